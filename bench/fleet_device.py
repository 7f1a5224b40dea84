"""One simulated device of ``fleet.py``: its keys, its signed requests, and the door in the same process."""

import asyncio
import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Any, Final

from controlplane.asgi import application
from keys.rotation import server_address
from keys.selectors import read_statement, trust_document
from latticeward.agent.verification import verify_issued
from latticeward.agent.work import IssuedCertificate, decode_base64
from latticeward.base64url import decode_base64url, encode_base64url
from latticeward.crypto.certificate import make_csr
from latticeward.crypto.httpsig import NONCE_BYTES, sign_request
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    ClassicalSigningKey,
    CompositeSigningKey,
    DecapsulationKey,
)
from latticeward.crypto.signing import parse_signed_message
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting
from latticeward.renewal import read_renewal_answer, renewal_proofs, replaces
from latticeward.statements import KeyStatement
from latticeward.trust import TrustStore, read_anchor

# Between two questions for a certificate that is being made; the door's own long poll would need a shared channel.
PAUSE_SECONDS: Final = 0.25
ATTEMPTS: Final = 6


class SimulatedDevice:
    """A device with its present keys; ``renew`` gives it the next ones."""

    def __init__(self, device_id: str, seeds: dict[str, str]) -> None:
        self.device_id = device_id
        raw = {role: bytes.fromhex(text) for role, text in seeds.items()}
        self.keys = DeviceKeys(
            authentication=AuthenticationSigningKey.from_seed(raw["authentication"]),
            classical=ClassicalSigningKey.from_seed(raw["classical"]),
            signing=CompositeSigningKey.from_seed(raw["signing"]),
            decapsulation=DecapsulationKey.from_seed(raw["decapsulation"]),
        )
        self.statement: KeyStatement | None = None
        self._trust: Any = None

    async def renew(self, suite: str) -> None:
        """All steps of a renewal, each checked as the agent checks it."""
        if self._trust is None:
            self.statement, self._trust = await asyncio.to_thread(self._look_up)
        trust: TrustStore = self._trust.at(datetime.now(UTC))
        new = DeviceKeys.generate(suite)
        transcript = self._transcript(new, suite, trust)
        begun = await self._post("/api/v1/renewals", {"transcript": encode_base64url(transcript)}, 201)
        answer = read_renewal_answer(decode_base64url(begun["answer"]), transcript=transcript, now=datetime.now(UTC))
        proofs = renewal_proofs(answer, keys=new, parent=self.keys.signing)
        roles = ("authentication", "classical", "signing")
        body = {
            "challenge_mac": encode_base64url(proofs.finish.challenge_mac),
            "signatures": {role: encode_base64url(getattr(proofs.finish, role)) for role in roles},
            "continuity": encode_base64url(proofs.continuity),
        }
        address = f"/api/v1/renewals/{begun['renewal']}"
        await self._post(f"{address}/finish", body, 202)
        self.keys = new
        while (found := await self._get(f"{address}/certificate"))["state"] != "issued":
            await asyncio.sleep(PAUSE_SECONDS)
        issued = IssuedCertificate(
            chain=tuple(decode_base64(text) for text in found["certificate_chain"]),
            statement=decode_base64url(found["statement"]),
        )
        verify_issued(issued, device_id=self.device_id, keys=new.public, trust=trust)
        self.statement = KeyStatement.from_bytes(parse_signed_message(issued.statement).payload)

    def _look_up(self) -> tuple[KeyStatement, TrustStore]:
        bundle = trust_document()
        trust = TrustStore.from_signed(
            bundle,
            anchor_fingerprint=read_anchor(bundle).fingerprint,
            now=datetime.now(UTC),
            authority=server_address(),
        )
        return read_statement(self.device_id, epoch=1), trust

    def _transcript(self, new: DeviceKeys, suite: str, trust: TrustStore) -> bytes:
        assert self.statement is not None
        return EnrolmentTranscript(
            operation="renew",
            meeting=Meeting(
                federation_id=trust.federation_id, authority=server_address(), anchor=trust.anchor.fingerprint
            ),
            claim_id=b"",
            site="",
            device_class="",
            name="",
            device_nonce=os.urandom(32),
            suites=(suite,),
            floor=suite,
            keys=new.public,
            csr=make_csr(new.authentication),
            epoch=self.statement.epoch + 1,
            renews=replaces(self.statement),
        ).to_bytes()

    async def _post(self, path: str, value: dict[str, Any], status: int) -> Any:
        return await self._exchange("POST", path, json.dumps(value).encode(), (status,))

    async def _get(self, path: str) -> Any:
        return await self._exchange("GET", path, None, (200, 202))

    async def _exchange(self, method: str, path: str, body: bytes | None, expected: tuple[int, ...]) -> Any:
        """A signed request; like the agent, it is sent again, signed anew, when the server asks to come back."""
        for attempt in range(ATTEMPTS):
            status, answer = await self._once(method, path, body)
            if status in expected:
                return json.loads(answer)
            if status < 429:
                break
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
        raise RuntimeError(f"{method} {path} was answered {status}: {answer[:300]!r}")

    async def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        host = server_address()
        sent = [("host", host), *([("content-type", "application/json")] if body is not None else [])]
        added = sign_request(
            method,
            host,
            path,
            "",
            sent,
            None if body is None else hashlib.sha256(body).digest(),
            key_id=self.keys.authentication.verify_key.key_id.hex(),
            mldsa=self.keys.authentication,
            ed25519=self.keys.classical,
            created_at=datetime.now(UTC),
            nonce=os.urandom(NONCE_BYTES),
        )
        lines = [*sent, *((name.lower(), value) for name, value in added.items())]
        answer: dict[str, Any] = {"status": 0, "body": b""}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
            else:
                answer["body"] += message["body"]

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in lines],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 80),
        }
        await application(scope, receive, send)
        return int(answer["status"]), bytes(answer["body"])
