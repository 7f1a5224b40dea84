"""A machine at a hospital, for tests: it speaks the protocol with the real keys and code of the device's side."""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from devices import claims, enrolment, services
from devices.models import Claim, Device, Site
from keys.rotation import server_address
from latticeward.claim_code import ClaimCode
from latticeward.crypto.certificate import make_csr
from latticeward.crypto.httpsig import RequestFacts, sign_request
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import FinishProofs, finish_proofs, transcript_mac, verify_answer
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting


@dataclass
class Machine:
    """Keys and a claim code; everything that is sent can be changed before it is sent."""

    site: Site
    code: ClaimCode
    claim: Claim
    keys: DeviceKeys = field(default_factory=DeviceKeys.generate)
    enrolment_id: UUID | None = None
    device: Device | None = None

    @classmethod
    def with_claim(cls, site: Site, *, auto_approve: bool = False) -> "Machine":
        claim, code = claims.create_claim(
            site=site, device_class="workstation", auto_approve=auto_approve, actor="user:1"
        )
        return cls(site=site, code=code, claim=claim)

    def transcript(self, **changes: object) -> bytes:
        values: dict[str, object] = {
            "operation": "enrol",
            "meeting": Meeting(
                federation_id=str(self.site.federation_id),
                authority=server_address(),
                anchor=self.code.anchor,
            ),
            "claim_id": self.code.lookup_id,
            "site": self.site.slug,
            "device_class": "workstation",
            "name": "ward 3",
            "device_nonce": secrets.token_bytes(32),
            "suites": ("hybrid",),
            "floor": "hybrid",
            "keys": self.keys.public,
            "csr": make_csr(self.keys.authentication),
            "epoch": 1,
            "renews": None,
        }
        return EnrolmentTranscript(**{**values, **changes}).to_bytes()  # type: ignore[arg-type]

    def begin(self, raw: bytes | None = None, mac: bytes | None = None, **named: object) -> FinishProofs:
        """Send T1, believe the answer, and make the proofs."""
        raw = raw if raw is not None else self.transcript()
        mac = mac if mac is not None else transcript_mac(raw, mac_key=self.code.mac_key)
        begun = enrolment.begin_enrolment(transcript=raw, mac=mac, source="192.0.2.7", **named)  # type: ignore[arg-type]
        self.enrolment_id = begun.enrolment_id
        answer = verify_answer(
            begun.answer, begun.mac, transcript=raw, mac_key=self.code.mac_key, now=datetime.now(UTC)
        )
        return finish_proofs(answer, keys=self.keys)

    def finish(self, proofs: FinishProofs) -> Device:
        assert self.enrolment_id is not None
        self.device = enrolment.finish_enrolment(enrolment_id=self.enrolment_id, proofs=proofs)
        return self.device

    def enrol(self) -> Device:
        """All the way to an active device with its certificate."""
        device = self.finish(self.begin())
        if device.state == "pending":
            services.approve_device(device_id=device.id, actor="user:1")
        services.issue(device_id=device.id)
        self.device = services.get_device(device.id)
        return self.device

    def facts(
        self,
        method: str = "GET",
        path: str = "/api/v1/work",
        *,
        body: bytes | None = None,
        created_at: datetime | None = None,
        nonce: bytes | None = None,
        signed_by: "Machine | None" = None,
        authority: str | None = None,
    ) -> RequestFacts:
        """A request signed with this machine's key id, by its own keys or by another machine's."""
        signer = (signed_by or self).keys
        digest = hashlib.sha256(body).digest() if body is not None else None
        host = authority or server_address()
        added = sign_request(
            method,
            host,
            path,
            "",
            [],
            digest,
            key_id=self.keys.authentication.verify_key.key_id.hex(),
            mldsa=signer.authentication,
            ed25519=signer.classical,
            created_at=created_at or datetime.now(UTC),
            nonce=nonce or secrets.token_bytes(16),
        )
        return RequestFacts.make(method, host, path, "", [("host", host), *added.items()])


def enrolled(site: Site) -> Machine:
    """A machine whose device is active."""
    machine = Machine.with_claim(site)
    machine.enrol()
    return machine
