"""A machine becomes a device: ``begin`` and ``finish``, the server's side.

What the messages are and how they are checked lives in ``latticeward.enrolment``; here stands what one server must
remember: which claim is reserved for whom, which answer was given, that a claim is used once.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache as remember
from typing import Final
from uuid import UUID, uuid4

from django.core.cache import cache
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.audit.services import record, record_together
from controlplane.prepared import PreparedSelect, PreparedUpdate, insert_rows
from devices.authentication import seen_is_written
from devices.models import Claim, Device, Enrolment
from devices.services import approve
from devices.suites import choose_suite
from keys import vault
from keys.rotation import server_address
from keys.selectors import anchor_fingerprint
from keys.services import refuse_registered, register_device_keys, require_certifiable
from latticeward import canonical
from latticeward.claim_code import LOOKUP_ID_BYTES
from latticeward.enrolment import (
    CHALLENGE_BYTES,
    CHALLENGE_LIFETIME_SECONDS,
    FinishProofs,
    ProvenEnrolment,
    VerifiedTranscript,
    make_answer,
    verify_finish,
    verify_transcript,
)
from latticeward.enrolment_messages import NONCE_BYTES, TRANSCRIPT_LIMIT_BYTES, Meeting
from latticeward.errors import (
    ClaimRefusedError,
    InvalidSignatureError,
    KeyUsageError,
    MalformedMessageError,
    NotFoundError,
)

logger = logging.getLogger(__name__)

# Refusals are counted and reported, and never lock anything: a secret of 128 bits cannot be guessed at any rate, while
# a lock on a claim or on a hospital's one public address would let a stranger keep real machines out.
_TELL_AT: Final = 50
_COUNT_SECONDS: Final = 600
_UNKNOWN: Final = "unknown"
# A version of the key that wraps may be forgotten twice this time after the next one came, and a process notices the
# next one within this time: a decoy that lived longer would not open, and tell unknown claims from known ones.
_DECOY_SECONDS: Final = vault.READ_AGAIN_SECONDS

# A claim as both calls need it; what is not named here is read when somebody asks for it.
_NEEDED: Final = (
    "site__slug",
    "site__name",
    "site__federation_id",
    "device_class__slug",
    "device_class__suite_floor",
    "device_class__default_suite",
    "device_class__auto_approve",
)
_OF_CLAIM: Final = (
    "lookup_id",
    "auto_approve",
    "bound_fingerprint",
    "wrapped_key",
    "created_by",
    "expires_at",
    "consumed_at",
)
_CLAIM: Final = PreparedSelect(
    lambda lookup_id: (
        Claim.objects.select_related("site", "device_class").only(*_OF_CLAIM, *_NEEDED).filter(lookup_id=lookup_id)
    ),
    str,
)
_ENROLMENT: Final = PreparedSelect(
    lambda enrolment_id: (
        Enrolment.objects.select_related("claim__site", "claim__device_class")
        .only(
            *(field.attname for field in Enrolment._meta.concrete_fields),
            *(f"claim__{name}" for name in ("auto_approve", "created_by", *_NEEDED)),
        )
        .filter(pk=enrolment_id)
    ),
    UUID,
)
# The conditional updates that decide races: each row changes hands in one statement or not at all.
_RESERVE: Final = PreparedUpdate(
    lambda claim_id, now, digest, until: (
        Claim.objects.filter(
            Q(reserved_for="") | Q(reserved_until__lte=now), pk=claim_id, consumed_at=None, expires_at__gt=now
        ),
        {"reserved_for": digest, "reserved_until": until},
    ),
    UUID,
    datetime,
    str,
    datetime,
)
_CONSUME: Final = PreparedUpdate(
    lambda claim_id, digest, now: (
        Claim.objects.filter(pk=claim_id, consumed_at=None, reserved_for=digest),
        {"consumed_at": now, "wrapped_key": None},
    ),
    UUID,
    str,
    datetime,
)
_FINISH: Final = PreparedUpdate(
    lambda enrolment_id, now, proofs_digest: (
        Enrolment.objects.filter(pk=enrolment_id),
        {"finished_at": now, "wrapped_challenge": None, "proofs_digest": proofs_digest},
    ),
    UUID,
    datetime,
    str,
)


@dataclass(frozen=True, slots=True)
class Begun:
    """What ``begin`` answers."""

    enrolment_id: UUID
    answer: bytes
    mac: bytes


def begin_enrolment(*, transcript: bytes, mac: bytes, source: str, now: datetime | None = None) -> Begun:
    """Believe a device's first message and reserve its claim, or refuse.

    1. The MAC holds under the claim's key. Unknown, used, cancelled and expired claims are tried with a key that
       nobody has, so they and a wrong code take the same way and get the same answer. With a good MAC, the message
       must be meant for this server and ask for the key that it will prove.
    2. None of its keys is known, it has the key that the claim is bound to, and there is a suite that federation,
       class and device accept and that its keys are made for.
    3. The claim is free, or reserved for this very message: then the stored answer is given again.

    Args:
        transcript: T1 as received.
        mac: as received.
        source: network address of the sender; refusals are counted by it, for minutes.

    Raises:
        ClaimRefusedError: 1 or 3.
        MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError, KeyUsageError, WrongContextError,
        CertificateNotValidError: only the holder of the code gets to see these.
    """
    now = now or timezone.now()
    # 1
    lookup_id = _lookup_id(transcript)
    claim = _CLAIM.first(lookup_id.hex())
    usable = claim is not None and claim.consumed_at is None and claim.expires_at > now
    decoy = _decoy(int(time.time() // _DECOY_SECONDS))
    wrapped, row_id = (claim.wrapped_key, str(claim.id)) if claim and usable else (decoy, "decoy")
    mac_key = vault.unwrap(bytes(wrapped or b""), purpose="claim", row_id=row_id)
    try:
        verified = verify_transcript(
            transcript,
            mac,
            mac_key=mac_key,
            meeting=Meeting(
                federation_id=str(claim.site.federation_id) if claim else "",
                authority=server_address(),
                anchor=anchor_fingerprint(),
            ),
            site=claim.site.slug if claim else "",
            device_class=claim.device_class.slug if claim else "",
        )
    except ClaimRefusedError:
        _count_refusal(_claim_counter(claim.lookup_id if claim else _UNKNOWN))
        if _count_refusal(_source_counter(source)) == _TELL_AT:
            logger.warning("%d claim codes were refused to %s in the last minutes", _TELL_AT, source)
        raise
    assert claim is not None

    # 2
    keys = verified.transcript.keys
    refuse_registered(keys)
    if claim.bound_fingerprint not in ("", keys.signing.fingerprint):
        raise KeyUsageError(f"claim {claim.id} is bound to another signing key")
    chosen = choose_suite(verified.transcript, claim.device_class)
    require_certifiable(keys)

    # 3
    return _reserve(claim, verified, chosen.id, mac_key, now)


def _reserve(claim: Claim, verified: VerifiedTranscript, suite: str, mac_key: bytes, now: datetime) -> Begun:
    digest = hashlib.sha256(verified.raw).hexdigest()
    expires_at = now + timedelta(seconds=CHALLENGE_LIFETIME_SECONDS)
    with transaction.atomic():
        if _RESERVE(claim.pk, now, digest, expires_at) != 1:
            # A second copy of the same message waited for the claim's row, and finds what the first was answered.
            held = Q(claim__reserved_for=digest, claim__consumed_at=None, claim__expires_at__gt=now)
            earlier = claim.enrolments.filter(held, transcript_digest=digest, expires_at__gt=now).first()
            if earlier is None:
                raise ClaimRefusedError(f"claim {claim.id} is reserved for another device, or used")
            return Begun(earlier.id, bytes(earlier.answer), bytes(earlier.answer_mac))
        enrolment_id, device_id = uuid4(), uuid4()
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        answer, answer_mac = make_answer(
            verified,
            enrolment_id=str(enrolment_id),
            device_id=str(device_id),
            suite=suite,
            server_nonce=secrets.token_bytes(NONCE_BYTES),
            challenge=challenge,
            expires_at=expires_at,
            mac_key=mac_key,
        )
        enrolment = Enrolment(
            id=enrolment_id,
            claim=claim,
            device_id=device_id,
            transcript=verified.raw,
            transcript_digest=digest,
            answer=answer,
            answer_mac=answer_mac,
            suite=suite,
            wrapped_challenge=vault.wrap(challenge, purpose="challenge", row_id=str(enrolment_id)),
            begun_at=now,
            expires_at=expires_at,
        )
        insert_rows([enrolment])
    return Begun(enrolment_id, answer, answer_mac)


def finish_enrolment(*, enrolment_id: UUID, proofs: FinishProofs, now: datetime | None = None) -> Device:
    """Take in a device that has proven its four keys; consumes the claim.

    1. The enrolment was begun here and not finished; the same proofs again get the same device.
    2. All four proofs hold over this transcript and this answer.
    3. In one transaction: the claim is still reserved for this transcript and becomes used, the keys are registered,
       the device exists. Of two racing calls one wins; of a failed one nothing remains.

    Raises:
        NotFoundError: no such enrolment.
        ClaimRefusedError: the claim was used or given to another device meanwhile.
        InvalidSignatureError, ClockSkewError: the proofs do not hold, or came too late.
        KeyUsageError: a key was registered meanwhile.
    """
    now = now or timezone.now()
    # 1
    enrolment = _ENROLMENT.first(enrolment_id)
    if enrolment is None:
        raise NotFoundError(f"there is no enrolment {enrolment_id}")
    proofs_digest = hashlib.sha256(proofs.challenge_mac).hexdigest()
    if enrolment.finished_at is not None:
        if not hmac.compare_digest(proofs_digest, enrolment.proofs_digest):
            raise InvalidSignatureError("the enrolment was finished with other proofs")
        return Device.objects.get(pk=enrolment.device_id)
    if enrolment.wrapped_challenge is None:
        raise ClaimRefusedError(f"enrolment {enrolment_id} has expired")

    # 2
    challenge = vault.unwrap(bytes(enrolment.wrapped_challenge), purpose="challenge", row_id=str(enrolment.id))
    proven = verify_finish(
        proofs,
        transcript=bytes(enrolment.transcript),
        answer=bytes(enrolment.answer),
        challenge=challenge,
        now=now,
    )

    # 3
    try:
        return _take_in(enrolment, proven, proofs_digest, now)
    except ClaimRefusedError:
        # A device that repeats itself while its first call is under way is not a second device.
        again = Enrolment.objects.filter(pk=enrolment.pk, proofs_digest=proofs_digest).exclude(finished_at=None)
        if again.exists():
            return Device.objects.get(pk=enrolment.device_id)
        raise


def _take_in(enrolment: Enrolment, proven: ProvenEnrolment, proofs_digest: str, now: datetime) -> Device:
    claim = enrolment.claim
    site, feed = claim.site, claim.site.feed
    actor = f"device:{enrolment.device_id}"
    with transaction.atomic(), record_together():
        if _CONSUME(claim.pk, enrolment.transcript_digest, now) != 1:
            raise ClaimRefusedError(f"claim {claim.id} was used or given to another device meanwhile")
        _FINISH(enrolment.pk, now, proofs_digest)
        device = Device(
            id=enrolment.device_id,
            site=site,
            name=proven.transcript.name or claim.device_class.slug,
            device_class=claim.device_class,
            suite=enrolment.suite,
            key_epoch=proven.transcript.epoch,
            requested_at=now,
            last_seen_at=now,  # it has proven its keys: what comes to collect at once finds nothing to write
        )
        insert_rows([device])
        record(
            "device.requested",
            actor=actor,
            feed=feed,
            subject=("device", device.id),
            details={
                "device": str(device.id),
                "site": site.name,
                "name": device.name,
                "device_class": claim.device_class.slug,
                "suite": device.suite,
                "transcript": proven.digest.hex(),
            },
        )
        register_device_keys(
            subject_id=str(device.id),
            keys=proven.transcript.keys,
            epoch=device.key_epoch,
            actor=actor,
            feed=feed,
        )
        if claim.auto_approve:
            # The person who made the claim decided; the entry says so.
            approve(device, actor=claim.created_by, why="claim with automatic approval")
        elif claim.auto_approve is None and claim.device_class.auto_approve:
            approve(device, actor="system", why=f"policy of the class {claim.device_class.slug}")
    seen_is_written(device.id)
    return device


def _count_refusal(counter: str) -> int:
    # In the cache, not in the database: a write would tell a known claim from an unknown one by its time.
    if cache.add(counter, 1, timeout=_COUNT_SECONDS):
        return 1
    try:
        return int(cache.incr(counter))
    except ValueError:  # it ended in between; the next refusal begins anew
        return 0


def refusals_of(claims: Iterable[Claim]) -> dict[UUID, int]:
    """How often a wrong code was tried against each of these claims in the last minutes; one question to the cache."""
    counters = {_claim_counter(claim.lookup_id): claim.id for claim in claims}
    return {counters[name]: int(count) for name, count in cache.get_many(counters).items()}


def refusals_of_unknown() -> int:
    """How often a code that nobody made was tried in the last minutes; they lock nothing."""
    return int(cache.get(_claim_counter(_UNKNOWN), 0))


def _claim_counter(lookup_id: str) -> str:
    return f"claim-refused:{lookup_id}"


def _source_counter(source: str) -> str:
    # A bounded number of buckets, so that many sources cannot push nonces out of an in-process cache.
    return f"claim-source:{hashlib.sha256(source.encode()).hexdigest()[:4]}"


def _lookup_id(transcript: bytes) -> bytes:
    value = canonical.decode(transcript, limit_bytes=TRANSCRIPT_LIMIT_BYTES)
    found = value.get("claim_id") if isinstance(value, dict) else None
    if not isinstance(found, bytes) or len(found) != LOOKUP_ID_BYTES:
        raise MalformedMessageError("not an enrolment transcript with a claim")
    return found


@remember(maxsize=1)
def _decoy(number: int) -> bytes:
    return vault.wrap(secrets.token_bytes(32), purpose="claim", row_id="decoy")
