"""Renewal: a device replaces its four keys by the authority of those that it has.

Theory of operation. It is an enrolment (``enrolment.py``: T1, A, T2, four proofs) in which the claim code's place is
taken by the present keys, three times over:

- T1 names what it replaces, by the digests of the present certificate and key statement, and its epoch is the next
  one. So a transcript fits one parent only, and cannot be sent again later.
- T1 and the proofs travel in requests that both present authentication keys have signed, so T1 needs no MAC.
- The present *signing* key signs T2 under a purpose of its own, ``Purpose.RENEW``. With the proofs of the new keys this
  shows continuity: who holds the new keys held all the old ones that sign, at the same time.

A carries no MAC either. A forged one gains nothing: the server verifies the proofs over the answer that it stored
itself, and the device believes certificate and statement by the trust anchor, not by who delivered them.

What does not live here: whether a renewal is due, and whether another one of the same parent exists
(``devices/renewal.py``).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from latticeward.crypto.certificate import verify_csr
from latticeward.crypto.keys import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.negotiation import negotiate
from latticeward.crypto.signing import Purpose, sign, verify
from latticeward.device_keys import DeviceKeys, DevicePublicKeys
from latticeward.enrolment import (
    FinishProofs,
    ProvenEnrolment,
    VerifiedAnswer,
    answer_bytes,
    finish_proofs,
    refuse_expired,
    transcript_digest,
    verify_finish,
)
from latticeward.enrolment_messages import EnrolmentAnswer, EnrolmentTranscript, Meeting, Renewal
from latticeward.errors import InvalidSignatureError, KeyUsageError, WrongContextError
from latticeward.instants import from_unix_milliseconds
from latticeward.statements import KeyStatement

# A device renews by itself from here on, and spreads its own beginning over the tenth that follows.
RENEWAL_SHARE: Final = 2 / 3
SPREAD_SHARE: Final = 1 / 10


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRenewal:
    """T1 of a renewal that fits its parent. Made only by ``verify_renewal``."""

    raw: bytes
    transcript: EnrolmentTranscript
    parent: KeyStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalProofs:
    """The four proofs of the new keys, and the present signing key's signature over the same T2."""

    finish: FinishProofs
    continuity: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenRenewal:
    """A renewal proven by all new keys and by the parent's signing key. Made only by ``verify_renewal_finish``."""

    enrolment: ProvenEnrolment


def renewal_opens_at(statement: KeyStatement) -> datetime:
    """From when a device may renew without being asked: two thirds of the statement's validity, aware UTC."""
    return _at_share(statement, RENEWAL_SHARE)


def renewal_begins_at(statement: KeyStatement, *, spread: float) -> datetime:
    """When a device begins by itself.

    Args:
        spread: 0 to 1, the device's own and always the same, so that a fleet enrolled in one hour does not renew in
            one hour.
    """
    return _at_share(statement, RENEWAL_SHARE + SPREAD_SHARE * min(max(spread, 0.0), 1.0))


def replaces(statement: KeyStatement) -> Renewal:
    """What T1 says of the keys that it replaces."""
    return Renewal(
        device_id=statement.device_id,
        certificate_digest=statement.certificate_digest,
        statement_digest=statement.digest,
    )


def verify_renewal(raw: bytes, *, meeting: Meeting, parent: KeyStatement) -> VerifiedRenewal:
    """Believe T1 of a renewal, or refuse it. The server's side of ``POST /api/v1/renewals``.

    1. It is a renewal, met this federation, this server and this anchor, and states no other site.
    2. It replaces the keys that signed the request: their device, their certificate, their statement.
    3. Its epoch is the next one: an old one would bring keys back, a skipped one hide some.
    4. The certificate request is signed by the new authentication key and asks for it.
    5. No new key is one of the present ones.

    Args:
        raw: T1 as received, in a request signed by the parent's authentication keys.
        meeting: the server's own view.
        parent: the statement of the keys that signed the request.

    Raises:
        MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError, CertificateNotValidError: not as it must be.
        WrongContextError: 1, 2 or 3.
        KeyUsageError: 4 or 5, or weak or shared keys.
    """
    # 1
    transcript = EnrolmentTranscript.from_bytes(raw)
    if transcript.operation != "renew" or transcript.renews is None:
        raise WrongContextError("an enrolment is authorised by a claim code, not by present keys")
    if transcript.meeting != meeting:
        raise WrongContextError("the device renews with another server, federation or trust anchor")
    if transcript.site not in ("", parent.site):
        raise WrongContextError("the device states another site than its own")

    # 2
    if transcript.renews != replaces(parent):
        raise WrongContextError("the renewal replaces other keys than those that signed its request")

    # 3
    if transcript.epoch != parent.epoch + 1:
        raise WrongContextError(f"epoch {transcript.epoch} does not follow epoch {parent.epoch}")

    # 4
    asked = transcript.keys.authentication
    if verify_csr(transcript.csr, algorithm=asked.algorithm) != asked.raw:
        raise KeyUsageError("the certificate request is for another key than the transcript's")

    # 5
    if _key_ids(transcript.keys) & _key_ids(parent.keys):
        raise KeyUsageError("a renewal brings four new keys")
    return VerifiedRenewal(raw=raw, transcript=transcript, parent=parent)


def make_renewal_answer(
    verified: VerifiedRenewal,
    *,
    renewal_id: str,
    suite: str,
    server_nonce: bytes,
    challenge: bytes,
    expires_at: datetime,
) -> bytes:
    """Make A: as ``enrolment.make_answer``, without a MAC."""
    return answer_bytes(
        verified.raw,
        verified.transcript,
        enrolment_id=renewal_id,
        device_id=verified.parent.device_id,
        suite=suite,
        server_nonce=server_nonce,
        challenge=challenge,
        expires_at=expires_at,
    )


def read_renewal_answer(raw: bytes, *, transcript: bytes, now: datetime) -> VerifiedAnswer:
    """Take the server's answer to our own T1. The device's side.

    1. It is for this device.
    2. The chosen suite is one that we offered and not below our floor.
    3. It has not expired.

    Raises:
        MalformedMessageError, MessageTooLargeError: not an answer.
        WrongContextError: for another device.
        UnsupportedSuiteError: a suite that we did not offer or do not accept.
        ClockSkewError: expired, or one of the clocks is wrong.
    """
    answer, own = EnrolmentAnswer.from_bytes(raw), EnrolmentTranscript.from_bytes(transcript)
    # 1
    if own.renews is None or answer.device_id != own.renews.device_id:
        raise WrongContextError("the answer is for another device")
    # 2
    negotiate(own.suites, (answer.suite,), own.floor)
    # 3
    refuse_expired(answer.expires_at, now)
    return VerifiedAnswer(transcript=transcript, raw=raw, answer=answer)


def renewal_proofs(verified: VerifiedAnswer, *, keys: DeviceKeys, parent: CompositeSigningKey) -> RenewalProofs:
    """Prove the four new keys, and continuity by the signing key that they replace.

    Raises:
        DecryptionError: the challenge was not sealed for this transcript and this key.
    """
    digest = transcript_digest(verified.transcript, verified.raw)
    return RenewalProofs(
        finish=finish_proofs(verified, keys=keys), continuity=sign(digest, purpose=Purpose.RENEW, key=parent)
    )


def verify_renewal_finish(
    proofs: RenewalProofs,
    *,
    transcript: bytes,
    answer: bytes,
    challenge: bytes,
    parent: CompositeVerifyKey,
    now: datetime,
) -> ProvenRenewal:
    """Check all five proofs over T2; all are checked before the verdict.

    Args:
        transcript, answer, challenge: as the server stored them.
        parent: the signing key that is being replaced.

    Raises:
        ClockSkewError: the answer has expired.
        InvalidSignatureError: at least one proof is wrong; which one is not said.
    """
    proven = None
    failed = False
    try:
        proven = verify_finish(proofs.finish, transcript=transcript, answer=answer, challenge=challenge, now=now)
    except InvalidSignatureError:
        failed = True
    try:
        verify(proofs.continuity, transcript_digest(transcript, answer), purpose=Purpose.RENEW, key=parent)
    except InvalidSignatureError:
        failed = True
    if failed or proven is None:
        raise InvalidSignatureError("the device has not proven its new keys and its present one")
    return ProvenRenewal(enrolment=proven)


def _at_share(statement: KeyStatement, share: float) -> datetime:
    begins, ends = from_unix_milliseconds(statement.not_before), from_unix_milliseconds(statement.not_after)
    return begins + timedelta(seconds=(ends - begins).total_seconds() * share)


def _key_ids(keys: DevicePublicKeys) -> set[bytes]:
    return {key.key_id for key in (keys.authentication, keys.classical, keys.signing, keys.encapsulation)}
