"""The device API of ``docs/api.md`` over ``http_client.py``: one method a resource, bytes in and bytes out."""

import json
from typing import Any, Final, Self

from latticeward import canonical
from latticeward.agent.config import AgentConfig
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.chunked import submit_in_chunks
from latticeward.agent.transports.http_client import ANSWER_LIMIT_BYTES, HttpClient
from latticeward.agent.work import (
    Answer,
    IssuedCertificate,
    LedgerProof,
    SubmissionOutcome,
    Work,
    decode_base64,
    encode_base64url,
)
from latticeward.canonical import Fields
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import FinishProofs
from latticeward.errors import PermanentTransportError, TransientTransportError
from latticeward.lifecycle import EnciphermentState
from latticeward.messages import RoundRecord
from latticeward.renewal import RenewalProofs
from latticeward.uploads import CHUNK_BYTES

_API: Final = "/api/v1"
_JSON: Final = {"Content-Type": "application/json"}


class HttpTransport:
    """The entry ``http`` of ``TRANSPORTS``."""

    def __init__(self, client: HttpClient, *, chunks_above_bytes: int) -> None:
        self._client = client
        self._chunks_above_bytes = chunks_above_bytes
        self._broke: set[bytes] = set()

    @classmethod
    def make(cls, config: AgentConfig, server: str, keys: DeviceKeys, interruption: Interruption) -> Self:
        """A transport to one server.

        Raises:
            PermanentTransportError: the address is not allowed.
        """
        client = HttpClient(server, config=config, keys=keys, interruption=interruption)
        return cls(client, chunks_above_bytes=config.chunks_above_bytes)

    @property
    def authority(self) -> str:
        return self._client.authority

    def trust(self) -> bytes:
        return self._client.request("GET", f"{_API}/trust", signed=False).body

    def begin_enrolment(self, transcript: bytes, mac: bytes) -> tuple[str, bytes, bytes]:
        body = {"transcript": encode_base64url(transcript), "mac": encode_base64url(mac)}
        answer = Answer(self._post(f"{_API}/enrolments", body, signed=False))
        return answer.text("enrolment"), answer.binary("answer"), answer.binary("mac")

    def finish_enrolment(self, enrolment_id: str, proofs: FinishProofs) -> str:
        path = f"{_API}/enrolments/{enrolment_id}/finish"
        return Answer(self._post(path, _proofs(proofs), signed=False)).text("state")

    def collect_certificate(self, enrolment_id: str, *, wait_seconds: int) -> IssuedCertificate | None:
        return self._collect(f"{_API}/enrolments/{enrolment_id}/certificate", "active", wait_seconds)

    def begin_renewal(self, transcript: bytes) -> tuple[str, bytes]:
        body = {"transcript": encode_base64url(transcript)}
        answer = Answer(self._post(f"{_API}/renewals", body, signed=True))
        return answer.text("renewal"), answer.binary("answer")

    def finish_renewal(self, renewal_id: str, proofs: RenewalProofs) -> str:
        body = {**_proofs(proofs.finish), "continuity": encode_base64url(proofs.continuity)}
        return Answer(self._post(f"{_API}/renewals/{renewal_id}/finish", body, signed=True)).text("state")

    def collect_renewal(self, renewal_id: str, *, wait_seconds: int) -> IssuedCertificate | None:
        return self._collect(f"{_API}/renewals/{renewal_id}/certificate", "issued", wait_seconds)

    def begin_encipherment(self, request: bytes) -> tuple[str, bytes]:
        answer = Answer(self._post(f"{_API}/encipherments", {"request": encode_base64url(request)}, signed=True))
        return answer.text("encipherment"), answer.binary("answer")

    def finish_encipherment(self, encipherment_id: str, mac: bytes) -> str:
        path = f"{_API}/encipherments/{encipherment_id}/finish"
        return Answer(self._post(path, {"mac": encode_base64url(mac)}, signed=True)).text("state")

    def collect_encipherment(self, encipherment_id: str, *, wait_seconds: int) -> tuple[str, tuple[bytes, ...] | None]:
        path = f"{_API}/encipherments/{encipherment_id}/certificate"
        answer = self._client.request("GET", path, query={"wait": wait_seconds}, patience_seconds=wait_seconds)
        body = Answer(answer.json())
        state = body.text("state")
        if state == EnciphermentState.LAPSED:
            why = body.optional_text("code")
            raise PermanentTransportError(f"the request ended without a certificate: {why}", server_code=state)
        if state != EnciphermentState.ISSUED:
            return state, None
        return state, tuple(decode_base64(str(item)) for item in body.items("certificate_chain"))

    def work(self, *, after: str, wait_seconds: int) -> Work:
        query: dict[str, str | int] = {"wait": wait_seconds}
        if after:
            query["after"] = after
        answer = self._client.request("GET", f"{_API}/work", query=query, patience_seconds=wait_seconds)
        return Work.from_json(answer.json())

    def assignment(self, round_id: str) -> tuple[bytes, bytes]:
        return self._pair(f"{_API}/rounds/{round_id}/assignment", "plan", "assignment")

    def join(self, round_id: str) -> None:
        self._post(f"{_API}/rounds/{round_id}/join", {}, signed=True)

    def submit(self, round_id: str, envelope: bytes, *, submission_digest: bytes) -> bytes:
        if len(envelope) > self._chunks_above_bytes or submission_digest in self._broke:
            return submit_in_chunks(self._client, round_id, envelope, submission_digest=submission_digest)
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": submission_digest.hex()}
        try:
            return self._client.request(
                "POST", f"{_API}/rounds/{round_id}/submissions", body=envelope, headers=headers
            ).body
        except TransientTransportError:
            if len(envelope) > CHUNK_BYTES:  # the next attempt need not begin from the first byte again
                self._broke.add(submission_digest)
            raise

    def submission(self, submission_id: str, *, wait_seconds: int) -> SubmissionOutcome:
        answer = self._client.request(
            "GET",
            f"{_API}/submissions/{submission_id}",
            query={"wait": wait_seconds},
            patience_seconds=wait_seconds,
        )
        return SubmissionOutcome.from_json(answer.json())

    def proof(self, submission_id: str, *, since: int) -> LedgerProof | None:
        answer = self._client.request("GET", f"{_API}/submissions/{submission_id}/proof", query={"since": since})
        return LedgerProof.from_json(answer.json()) if answer.status == 200 else None

    def round_record(self, round_id: str) -> bytes:
        path = f"{_API}/rounds/{round_id}/record"
        return self._client.request("GET", path, limit_bytes=RoundRecord.LIMIT_BYTES).body

    def manifest(self, model_id: str) -> tuple[bytes, bytes]:
        return self._pair(f"{_API}/models/{model_id}/manifest", "manifest", "stanza")

    def model_body(self, model_id: str, *, limit_bytes: int) -> bytes:
        return self._client.request("GET", f"{_API}/models/{model_id}/body", limit_bytes=limit_bytes).body

    def _collect(self, path: str, done: str, wait_seconds: int) -> IssuedCertificate | None:
        answer = self._client.request("GET", path, query={"wait": wait_seconds}, patience_seconds=wait_seconds)
        if answer.status != 200:
            return None
        body = Answer(answer.json())
        state = body.text("state")
        if state != done:
            # A declined device is not wanted; a renewal that ended otherwise is told by how it ended.
            code = "not_permitted" if done == "active" else state
            raise PermanentTransportError(f"there is no certificate: {state}", server_code=code)
        chain = tuple(decode_base64(str(item)) for item in body.items("certificate_chain"))
        return IssuedCertificate(chain=chain, statement=body.binary("statement"))

    def _post(self, path: str, value: Any, *, signed: bool) -> Any:
        body = json.dumps(value).encode("utf-8")
        return self._client.request("POST", path, body=body, headers=_JSON, signed=signed).json()

    def _pair(self, path: str, first: str, second: str) -> tuple[bytes, bytes]:
        raw = self._client.request("GET", path).body
        fields = Fields(canonical.decode(raw, limit_bytes=ANSWER_LIMIT_BYTES), "answer")
        pair = fields.bytes(first), fields.bytes(second)
        fields.end()
        return pair


def _proofs(proofs: FinishProofs) -> dict[str, Any]:
    return {
        "challenge_mac": encode_base64url(proofs.challenge_mac),
        "signatures": {
            "authentication": encode_base64url(proofs.authentication),
            "classical": encode_base64url(proofs.classical),
            "signing": encode_base64url(proofs.signing),
        },
    }
