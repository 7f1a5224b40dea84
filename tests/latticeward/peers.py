"""A small federation for tests of the protocol: an authority with its keys, and devices, made once and shared."""

import functools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from latticeward.claim_code import ClaimCode
from latticeward.crypto.certificate import DeviceNames, make_csr
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import issue_device, make_issuing, make_root
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DeviceKeys, DevicePublicKeys
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting
from latticeward.instants import to_unix_milliseconds
from latticeward.statements import KeyStatement, ServerKeyStatement, sign_statement
from latticeward.trust import PurposeKey, TrustAnchor, TrustStatement, make_bundle, sign_trust

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_csrs: dict[bytes, bytes] = {}
FEDERATION_ID = "7c1c2f4e-6ce3-4b4f-9a3d-2f6f1a0f9b11"
FEDERATION = "heart"
AUTHORITY = "127.0.0.1:8750"
SITE = "cleveland"
SIGNED_PURPOSES = (
    Purpose.KEY_STATEMENT,
    Purpose.PLAN,
    Purpose.ROUND_RECORD,
    Purpose.MODEL_MANIFEST,
    Purpose.CHECKPOINT,
)


def device_keys(number: int = 0) -> DeviceKeys:
    """The keys of the n-th device of the tests."""
    return _device_keys(number)


@functools.cache
def _device_keys(number: int) -> DeviceKeys:
    return DeviceKeys.generate()


@functools.cache
def composite_key(name: str) -> CompositeSigningKey:
    """A composite key of the tests by a name of its own."""
    return CompositeSigningKey.generate()


@dataclass(frozen=True, kw_only=True)
class Authority:
    """What the server's authority worker holds."""

    anchor_key: CompositeSigningKey
    purpose_keys: dict[Purpose, CompositeSigningKey]
    receipt_key: CompositeSigningKey
    root: bytes
    issuing: bytes
    issuing_key: CertificateSigningKey = field(repr=False)

    @property
    def anchor(self) -> TrustAnchor:
        return TrustAnchor(key=self.anchor_key.verify_key)

    def statement(self, **changes: object) -> TrustStatement:
        values: dict[str, object] = {
            "federation_id": FEDERATION_ID,
            "federation": FEDERATION,
            "authority": AUTHORITY,
            "sequence": 3,
            "issued_at": to_unix_milliseconds(NOW - 10 * MINUTE),
            "expires_at": to_unix_milliseconds(NOW + timedelta(days=30)),
            "keys": tuple(purpose_key(purpose, key) for purpose, key in self.purpose_keys.items()),
            "certificates": (self.issuing, self.root),
        }
        return TrustStatement(**{**values, **changes})  # type: ignore[arg-type]

    def receipt_statement(self, **changes: object) -> ServerKeyStatement:
        values: dict[str, object] = {
            "federation_id": FEDERATION_ID,
            "purpose": Purpose.SUBMISSION_RECEIPT,
            "key": self.receipt_key.verify_key,
            "not_before": to_unix_milliseconds(NOW - MINUTE),
            "not_after": to_unix_milliseconds(NOW + timedelta(days=1)),
            "issued_at": to_unix_milliseconds(NOW - MINUTE),
        }
        return ServerKeyStatement(**{**values, **changes})  # type: ignore[arg-type]

    def bundle(
        self,
        *,
        statement: TrustStatement | None = None,
        receipts: tuple[bytes, ...] | None = None,
        signer: CompositeSigningKey | None = None,
        anchor: TrustAnchor | None = None,
    ) -> bytes:
        if receipts is None:
            receipts = (sign_statement(self.receipt_statement(), key=self.purpose_keys[Purpose.KEY_STATEMENT]),)
        return make_bundle(
            anchor=anchor or self.anchor,
            signed=sign_trust(statement or self.statement(), key=signer or self.anchor_key),
            receipts=receipts,
        )

    def certificate(self, public_key: bytes, *, device_id: str, site: str = SITE, now: datetime = NOW) -> bytes:
        return issue_device(
            public_key,
            algorithm="ml-dsa-65",
            names=DeviceNames(federation=FEDERATION, site=site, device_id=device_id),
            issuing=self.issuing,
            issuing_key=self.issuing_key,
            now=now,
        )


@functools.cache
def authority() -> Authority:
    """The one authority of the tests."""
    root_key = CertificateSigningKey.generate("ml-dsa-87")
    issuing_key = CertificateSigningKey.generate("ml-dsa-65")
    root = make_root(root_key, name="Latticeward root", now=NOW)
    issuing = make_issuing(
        issuing_key.public_raw,
        algorithm="ml-dsa-65",
        federation=FEDERATION,
        root=root,
        root_key=root_key,
        now=NOW,
    )
    return Authority(
        anchor_key=composite_key("anchor"),
        purpose_keys={purpose: composite_key(f"purpose {purpose}") for purpose in SIGNED_PURPOSES},
        receipt_key=composite_key("receipts"),
        root=root,
        issuing=issuing,
        issuing_key=issuing_key,
    )


def purpose_key(purpose: Purpose, key: CompositeSigningKey, *, start: datetime = NOW - MINUTE) -> PurposeKey:
    return PurposeKey(
        purpose=purpose,
        key=key.verify_key,
        not_before=to_unix_milliseconds(start),
        not_after=to_unix_milliseconds(start + timedelta(days=30)),
    )


def meeting() -> Meeting:
    return Meeting(federation_id=FEDERATION_ID, authority=AUTHORITY, anchor=authority().anchor.fingerprint)


def claim() -> ClaimCode:
    return ClaimCode(
        lookup_id=bytes.fromhex("0102030405"),
        secret=bytes(range(16)),
        anchor=authority().anchor.fingerprint,
        server=f"http://{AUTHORITY}",
        site=SITE,
        device_class="edge",
    )


def transcript(keys: DeviceKeys | None = None, **changes: object) -> EnrolmentTranscript:
    keys = keys or device_keys()
    values: dict[str, object] = {
        "operation": "enrol",
        "meeting": meeting(),
        "claim_id": claim().lookup_id,
        "site": SITE,
        "device_class": "edge",
        "name": "ward 3, left rack",
        "device_nonce": b"n" * 32,
        "suites": ("hybrid",),
        "floor": "hybrid",
        "keys": keys.public,
        "csr": csr_of(keys),
        "epoch": 1,
        "renews": None,
    }
    return EnrolmentTranscript(**{**values, **changes})  # type: ignore[arg-type]


def csr_of(keys: DeviceKeys) -> bytes:
    """The same bytes each time: signatures are hedged, and a transcript must be repeatable."""
    return _csrs.setdefault(keys.authentication.verify_key.key_id, make_csr(keys.authentication))


def key_statement(
    keys: DevicePublicKeys, *, device_id: str, certificate_digest: bytes = b"c" * 32, **changes: object
) -> KeyStatement:
    values: dict[str, object] = {
        "device_id": str(UUID(device_id)),
        "federation_id": FEDERATION_ID,
        "site": SITE,
        "epoch": 1,
        "keys": keys,
        "certificate_digest": certificate_digest,
        "not_before": to_unix_milliseconds(NOW - MINUTE),
        "not_after": to_unix_milliseconds(NOW + timedelta(days=90)),
        "issued_at": to_unix_milliseconds(NOW - MINUTE),
    }
    return KeyStatement(**{**values, **changes})  # type: ignore[arg-type]
