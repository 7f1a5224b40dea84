"""Enrolment: how a device and the authority come to believe each other, starting from one claim code.

Theory of operation. Three values are hashed into each other, so that no part can be exchanged on the way:

- **T1**, the transcript, is everything the device says: whom it thinks it talks to (server authority, trust anchor,
  federation), what it claims (claim id, site, class), what it offers (suites and floor), and its four public keys with
  the certificate request. The request is inside, not beside: hashing T1 hashes it. T1 travels with a MAC under a key
  that only the holder of the claim code and the server can derive.
- **A**, the server's answer: ids, a nonce, the chosen suite, and a 32-byte challenge sealed to the device's
  encapsulation key, with T1's digest in the ``info`` so that the challenge opens for this transcript only. It carries a
  MAC under the same key, another label: who has not got the claim cannot pose as the server.
- **T2** = H(T1, A). The device proves all four keys over it: a MAC under the opened challenge (encapsulation key), and
  a signature by each of the other three in a context of its own.

The ML-DSA authentication key signs with the empty context everywhere, so its proof is told from a certificate
request, an HTTP signature base and a TLS handshake by its first bytes (``latticeward/``; see ``crypto/httpsig.py``).
The Ed25519 key's proof has another label; the composite key signs under ``Purpose.ENROL``.

What does not live here: the messages as bytes (``enrolment_messages.py``), claim codes (``claim_code.py``), whether a
claim is unused, and what the certificate will say. The authority copies nothing but the public key out of the
certificate request.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from latticeward import canonical
from latticeward.crypto.certificate import verify_csr
from latticeward.crypto.hpke import hpke_open, hpke_seal
from latticeward.crypto.negotiation import negotiate
from latticeward.crypto.signing import Purpose, sign, verify
from latticeward.crypto.wrapping import derive_key
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment_messages import EnrolmentAnswer, EnrolmentTranscript, Meeting
from latticeward.errors import (
    ClaimRefusedError,
    ClockSkewError,
    InvalidSignatureError,
    KeyUsageError,
    WrongContextError,
)
from latticeward.instants import to_unix_milliseconds

CHALLENGE_BYTES: Final = 32
CHALLENGE_LIFETIME_SECONDS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTranscript:
    """T1 after its MAC and its view of the meeting have been checked. Made only by ``verify_transcript``."""

    raw: bytes
    transcript: EnrolmentTranscript


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAnswer:
    """T1 and A together, after A has been checked. Made only by ``verify_answer`` and, on renewal, by
    ``renewal.read_renewal_answer``."""

    transcript: bytes
    raw: bytes
    answer: EnrolmentAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishProofs:
    """The four proofs over T2: one MAC (32 bytes) and three signatures."""

    challenge_mac: bytes
    authentication: bytes
    classical: bytes
    signing: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenEnrolment:
    """A device that has proven all four keys. Made only by ``verify_finish``."""

    transcript: EnrolmentTranscript
    answer: EnrolmentAnswer
    digest: bytes


# --- begin: the device speaks ------------------------------------------------------------------------------------


def transcript_mac(raw: bytes, *, mac_key: bytes) -> bytes:
    """The device's MAC over T1 (32 bytes), under the claim's derived key."""
    return _mac(mac_key, "latticeward/enrolment-device-mac/v1", raw)


def verify_transcript(
    raw: bytes, mac: bytes, *, mac_key: bytes, meeting: Meeting, site: str, device_class: str
) -> VerifiedTranscript:
    """Believe a device's T1, or refuse it. The server's side of ``begin``.

    1. The MAC holds. It is compared before anything that a stranger could learn from an error.
    2. The device met this federation, this server and this anchor.
    3. Site and class, if the device states them, are the claim's.
    4. The certificate request is signed by the authentication key and asks for it; nothing else of it is believed.

    Left to the caller: that the claim is unused and unexpired, and the choice of the suite.

    Args:
        raw: T1 as received.
        mac: 32 bytes as received.
        mac_key: the claim's derived key, 32 bytes; for an unknown claim id a key that nobody has, so that unknown and
            wrong take the same time.
        meeting: the server's own view.
        site, device_class: of the claim record.

    Raises:
        ClaimRefusedError: the MAC is wrong.
        MalformedMessageError, UnsupportedSuiteError, KeyUsageError, CertificateNotValidError: T1 is not as it must be.
        WrongContextError: T1 was made for another server, anchor, federation, site or class, or is a renewal.
    """
    # 1
    if not hmac.compare_digest(transcript_mac(raw, mac_key=mac_key), mac):
        raise ClaimRefusedError("the transcript's MAC is wrong")

    # 2
    transcript = EnrolmentTranscript.from_bytes(raw)
    if transcript.operation != "enrol":
        raise WrongContextError("a claim code enrols; a renewal is authorised by the present key")
    if transcript.meeting != meeting:
        raise WrongContextError("the device enrols with another server, federation or trust anchor")

    # 3
    if transcript.site not in ("", site) or transcript.device_class not in ("", device_class):
        raise WrongContextError("the device states another site or class than its claim")

    # 4
    asked = transcript.keys.authentication
    if verify_csr(transcript.csr, algorithm=asked.algorithm) != asked.raw:
        raise KeyUsageError("the certificate request is for another key than the transcript's")
    return VerifiedTranscript(raw=raw, transcript=transcript)


# --- begin: the server answers -----------------------------------------------------------------------------------


def make_answer(
    verified: VerifiedTranscript,
    *,
    enrolment_id: str,
    device_id: str,
    suite: str,
    server_nonce: bytes,
    challenge: bytes,
    expires_at: datetime,
    mac_key: bytes,
) -> tuple[bytes, bytes]:
    """Make A and its MAC (32 bytes).

    Args:
        verified: the believed T1.
        suite: id of the suite chosen by ``negotiate``.
        server_nonce: 32 random bytes.
        challenge: 32 random bytes; the server keeps them, wrapped, until ``finish``.
        expires_at: aware time, usually ``CHALLENGE_LIFETIME_SECONDS`` from now.
        mac_key: the claim's derived key, 32 bytes.
    """
    raw = answer_bytes(
        verified.raw,
        verified.transcript,
        enrolment_id=enrolment_id,
        device_id=device_id,
        suite=suite,
        server_nonce=server_nonce,
        challenge=challenge,
        expires_at=expires_at,
    )
    return raw, _answer_mac(mac_key, verified.raw, raw)


def answer_bytes(
    raw: bytes,
    transcript: EnrolmentTranscript,
    *,
    enrolment_id: str,
    device_id: str,
    suite: str,
    server_nonce: bytes,
    challenge: bytes,
    expires_at: datetime,
) -> bytes:
    """A without its MAC, for a T1 that has been believed; arguments as of ``make_answer``."""
    return EnrolmentAnswer(
        enrolment_id=enrolment_id,
        device_id=device_id,
        server_nonce=server_nonce,
        suite=suite,
        sealed_challenge=hpke_seal(challenge, key=transcript.keys.encapsulation, info=_challenge_info(raw)),
        expires_at=to_unix_milliseconds(expires_at),
    ).to_bytes()


def verify_answer(raw: bytes, mac: bytes, *, transcript: bytes, mac_key: bytes, now: datetime) -> VerifiedAnswer:
    """Believe the server's answer to our own T1, or refuse it. The device's side of ``begin``.

    1. The MAC holds, over our T1 and this answer: an answer to another T1 does not pass.
    2. The chosen suite is one that we offered and not below our floor.
    3. The answer has not expired.

    Raises:
        ClaimRefusedError: the MAC is wrong: this server does not know the claim.
        MalformedMessageError, MessageTooLargeError: not an answer.
        UnsupportedSuiteError: a suite that we did not offer or do not accept.
        ClockSkewError: expired, or one of the clocks is wrong.
    """
    # 1
    if not hmac.compare_digest(_answer_mac(mac_key, transcript, raw), mac):
        raise ClaimRefusedError("the server's answer has a wrong MAC: it does not know this claim")

    # 2
    answer = EnrolmentAnswer.from_bytes(raw)
    own = EnrolmentTranscript.from_bytes(transcript)
    negotiate(own.suites, (answer.suite,), own.floor)

    # 3
    refuse_expired(answer.expires_at, now)
    return VerifiedAnswer(transcript=transcript, raw=raw, answer=answer)


# --- finish ------------------------------------------------------------------------------------------------------


def finish_proofs(verified: VerifiedAnswer, *, keys: DeviceKeys) -> FinishProofs:
    """Open the challenge and prove all four keys over T2. The device's side of ``finish``.

    Raises:
        DecryptionError: the challenge was not sealed for this transcript and this key.
    """
    digest = transcript_digest(verified.transcript, verified.raw)
    challenge = hpke_open(
        verified.answer.sealed_challenge, key=keys.decapsulation, info=_challenge_info(verified.transcript)
    )
    return FinishProofs(
        challenge_mac=_challenge_mac(challenge, digest),
        authentication=keys.authentication.sign(_proof("authentication", digest)),
        classical=keys.classical.sign(_proof("classical", digest)),
        signing=sign(digest, purpose=Purpose.ENROL, key=keys.signing),
    )


def verify_finish(
    proofs: FinishProofs, *, transcript: bytes, answer: bytes, challenge: bytes, now: datetime
) -> ProvenEnrolment:
    """Check all four proofs over T2. The server's side of ``finish``; all are checked before the verdict.

    Args:
        proofs: as received.
        transcript: T1 as ``begin`` verified and stored it.
        answer: A as ``begin`` made and stored it.
        challenge: the 32 bytes that were sealed into A.
        now: aware time of the server.

    Raises:
        ClockSkewError: the answer has expired.
        InvalidSignatureError: at least one proof is wrong; which one is not said.
    """
    read_transcript = EnrolmentTranscript.from_bytes(transcript)
    read_answer = EnrolmentAnswer.from_bytes(answer)
    refuse_expired(read_answer.expires_at, now)
    digest = transcript_digest(transcript, answer)
    keys = read_transcript.keys
    failed = not hmac.compare_digest(_challenge_mac(challenge, digest), proofs.challenge_mac)
    checks: tuple[Callable[[], None], ...] = (
        lambda: keys.authentication.verify(proofs.authentication, _proof("authentication", digest)),
        lambda: keys.classical.verify(proofs.classical, _proof("classical", digest)),
        lambda: verify(proofs.signing, digest, purpose=Purpose.ENROL, key=keys.signing),
    )
    for check in checks:
        try:
            check()
        except InvalidSignatureError:
            failed = True
    if failed:
        raise InvalidSignatureError("the device has not proven all four keys")
    return ProvenEnrolment(transcript=read_transcript, answer=read_answer, digest=digest)


def transcript_digest(transcript: bytes, answer: bytes) -> bytes:
    """T2 = H(T1, A), 32 bytes."""
    return canonical.digest("latticeward/enrolment/v1", transcript, answer)


def refuse_expired(expires_at: int, now: datetime) -> None:
    """Raises ClockSkewError if a challenge has expired (unix milliseconds); the text says by how much."""
    late = to_unix_milliseconds(now) - expires_at
    if late >= 0:
        raise ClockSkewError(f"the challenge expired {late / 1000:.0f} s ago")


# --- parts -------------------------------------------------------------------------------------------------------


def _proof(role: str, digest: bytes) -> bytes:
    return f"latticeward/enrol-{role}/v1\x00".encode("ascii") + digest


def _challenge_info(transcript: bytes) -> bytes:
    return canonical.encode(
        [
            "latticeward/enrolment-challenge/v1",
            canonical.digest("latticeward/enrolment-transcript/v1", transcript),
        ]
    )


def _challenge_mac(challenge: bytes, digest: bytes) -> bytes:
    key = derive_key(challenge, label="latticeward/enrolment-challenge-key/v1")
    return _mac(key, "latticeward/enrolment-challenge-mac/v1", digest)


def _answer_mac(mac_key: bytes, transcript: bytes, answer: bytes) -> bytes:
    return _mac(mac_key, "latticeward/enrolment-server-mac/v1", transcript, answer)


def _mac(key: bytes, label: str, *parts: bytes) -> bytes:
    return hmac.new(key, canonical.encode([label, *parts]), hashlib.sha256).digest()
