"""A device made after docs/protocol.md: it enrols, takes part in rounds and opens models, over plain HTTP.

Like ``wire.py`` it imports nothing of the product, so that the two can agree only by the document.
"""

import base64
import hmac
import json
import os
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop import wire
from tests.interop.wire import Refused, require

CBOR, JSON, BYTES = "application/cbor", "application/json", "application/octet-stream"


class Problem(Refused):
    """The server refused: ``code`` is the problem document's type."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(f"{status} {document}")
        self.status, self.code, self.retryable = status, document["type"], document["retryable"]


class Device:
    """One machine with a claim code in its machine form."""

    def __init__(self, claim: str, name: str = "independent") -> None:
        self.claim, self.name, self.keys = wire.Claim(claim), name, wire.Keys()
        self.authority = urlsplit(self.claim.server).netloc
        self.sequence, self.epoch = 0, 1
        self.trust: dict[str, Any] = {}
        self.trusted: dict[tuple[str, bytes], bytes] = {}
        self.id = ""
        self.assignments: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.sent: dict[str, bytes] = {}

    # --- HTTP and 10: signed requests ---------------------------------------------------------------------------------

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        connection = HTTPConnection(self.authority, timeout=40)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            status, kind, raw = answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()
        if kind == "application/problem+json":
            document = json.loads(raw)
            require(document["status"] == status, "a problem document of another status")
            raise Problem(status, document)
        require(200 <= status < 300, f"{method} {target} was answered {status}: {raw[:200]!r}")
        return status, kind, raw

    def signed(self, method: str, path: str, query: str, body: bytes | None, headers: dict[str, str]) -> dict[str, str]:
        """All headers of a request: those given, and the signatures over what must be covered."""
        sent = {name.lower(): value for name, value in headers.items()}
        if body is not None:
            sent["content-digest"] = f"sha-256=:{base64.b64encode(wire.sha256(body)).decode()}:"
        covered = [("@method", method), ("@authority", self.authority), ("@path", path), ("@query", f"?{query}")]
        steering = ("content-digest", "content-encoding", "content-type", "idempotency-key")
        covered += [(name, sent[name]) for name in steering if name in sent]
        created = int(time.time())
        shared = f'created={created};expires={created + 60};nonce="{wire.text64(os.urandom(16))}"'
        key = self.keys.id("authentication").hex()
        names = " ".join(f'"{name}"' for name, _ in covered)
        inputs, signatures = [], []
        for label, algorithm, signer in (
            ("pq", "ml-dsa-65", self.keys.authentication),
            ("cl", "ed25519", self.keys.classical),
        ):
            parameters = f'({names});{shared};keyid="{key}";alg="{algorithm}";tag="latticeward-request-v1"'
            lines = [*(f'"{name}": {value}' for name, value in covered), f'"@signature-params": {parameters}']
            inputs.append(f"{label}={parameters}")
            signature = signer.sign("\n".join(lines).encode())
            signatures.append(f"{label}=:{base64.b64encode(signature).decode()}:")
        return {**sent, "signature-input": ", ".join(inputs), "signature": ", ".join(signatures)}

    def ask(
        self, method: str, path: str, query: str = "", body: bytes | None = None, **headers: str
    ) -> tuple[int, str, bytes]:
        """Send a signed request, and again with a new signature while the server says that this may help (18)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        target = f"{path}?{query}" if query else path
        for pause in (0.5, 1.0, 2.0):
            try:
                return self._exchange(method, target, body, self.signed(method, path, query, body, named))
            except Problem as refused:
                if not refused.retryable:
                    raise
            time.sleep(pause)
        return self._exchange(method, target, body, self.signed(method, path, query, body, named))

    def ask_json(self, path: str, query: str = "") -> tuple[int, Any]:
        status, kind, raw = self.ask("GET", path, query)
        require(kind == JSON, f"{path} is {kind}")
        return status, json.loads(raw)

    def ask_cbor(self, path: str, fields: set[str]) -> dict[str, bytes]:
        _, kind, raw = self.ask("GET", path)
        require(kind == CBOR, f"{path} is {kind}")
        value = wire.decode(raw, 2**21)
        require(value.keys() == fields, f"{path} has other fields")
        return value

    # --- 5.3, 8: trust ------------------------------------------------------------------------------------------------

    def fetch_trust(self) -> None:
        """Believe the trust bundle, or refuse it."""
        _, kind, raw = self._exchange("GET", "/api/v1/trust", None, {})
        require(kind == CBOR, f"the trust bundle is {kind}")
        bundle = wire.decode(raw, 512 * 1024)
        require(bundle.keys() == {"trust", "anchor", "anchor_algorithm", "statements"}, "a bundle with other fields")
        anchor = wire.key_id(bundle["anchor_algorithm"], bundle["anchor"])
        require(anchor == self.claim.anchor, "another trust anchor than the claim code names")
        payload = self._open_signed(bundle["trust"], "trust", {("trust", anchor): bundle["anchor"]})
        statement = wire.read(payload, "trust-statement", 256 * 1024)
        now = time.time() * 1000
        require(statement["issued_at"] <= now < statement["expires_at"], "a trust statement of another time")
        require(statement["authority"] == self.authority, "a trust statement of another server")
        require(statement["sequence"] >= max(self.sequence, 1), "an old trust statement")
        keys = list(statement["keys"])
        trusted = self._valid(keys, now)
        for signed in bundle["statements"]:
            told = wire.read(self._open_signed(signed, "key-statement", trusted), "server-key-statement", 32 * 1024)
            require(told["purpose"] == "submission-receipt", "only the anchor may name such a key")
            require(told["federation_id"] == statement["federation_id"], "a key of another federation")
            keys.append(told)
        self.trust, self.sequence, self.trusted = statement, statement["sequence"], self._valid(keys, now)

    @staticmethod
    def _valid(keys: list[dict[str, Any]], now: float) -> dict[tuple[str, bytes], bytes]:
        valid = [key for key in keys if key["not_before"] <= now < key["not_after"]]
        return {(key["purpose"], wire.key_id(key["algorithm"], key["public_key"])): key["public_key"] for key in valid}

    @staticmethod
    def _open_signed(signed: bytes, purpose: str, trusted: dict[tuple[str, bytes], bytes]) -> bytes:
        message = wire.decode(signed, 2**20)
        require(message.keys() == {"key_id", "payload", "signature"}, "a signed message with other fields")
        require((purpose, message["key_id"]) in trusted, f"nobody vouches for this key for {purpose}")
        wire.verify(trusted[purpose, message["key_id"]], message["signature"], message["payload"], purpose)
        payload: bytes = message["payload"]
        return payload

    def believe(self, signed: bytes, purpose: str, kind: str) -> tuple[dict[str, Any], bytes]:
        """A signed message's fields and its payload."""
        payload = self._open_signed(signed, purpose, self.trusted)
        return wire.read(payload, kind), payload

    # --- 9: enrolment -------------------------------------------------------------------------------------------------

    def enrol(self) -> None:
        """From the claim code to an active device with its certificate."""
        self.fetch_trust()
        transcript = self._transcript()
        begun = self._post(
            "/api/v1/enrolments",
            transcript=wire.text64(transcript),
            mac=wire.text64(wire.mac(self.claim.mac_key, "latticeward/enrolment-device-mac/v1", transcript)),
        )
        answer = wire.bytes64(begun["answer"])
        expected = wire.mac(self.claim.mac_key, "latticeward/enrolment-server-mac/v1", transcript, answer)
        require(hmac.compare_digest(expected, wire.bytes64(begun["mac"])), "the answer is not by the claim's server")
        told = wire.read(answer, "enrolment-answer", 8192)
        require(told["enrolment_id"] == begun["enrolment"] and told["suite"] == "hybrid", "another enrolment or suite")
        require(told["expires_at"] > time.time() * 1000, "the enrolment has expired")
        self.id = told["device_id"]
        named = wire.digest("latticeward/enrolment-transcript/v1", transcript)
        info = wire.encode(["latticeward/enrolment-challenge/v1", named])
        challenge = self.keys.open(told["sealed_challenge"], info)
        bound = wire.digest("latticeward/enrolment/v1", transcript, answer)
        key = wire.derive(challenge, "latticeward/enrolment-challenge-key/v1")
        proofs = {
            "authentication": self.keys.authentication.sign(b"latticeward/enrol-authentication/v1\0" + bound),
            "classical": self.keys.classical.sign(b"latticeward/enrol-classical/v1\0" + bound),
            "signing": self.keys.sign(bound, "enrol"),
        }
        finished = self._post(
            f"/api/v1/enrolments/{told['enrolment_id']}/finish",
            challenge_mac=wire.text64(wire.mac(key, "latticeward/enrolment-challenge-mac/v1", bound)),
            signatures={role: wire.text64(signature) for role, signature in proofs.items()},
        )
        require(finished["device"] == self.id, "another device")
        self._collect(told["enrolment_id"])

    def _post(self, path: str, **fields: Any) -> Any:
        return json.loads(self._exchange("POST", path, json.dumps(fields).encode(), {"Content-Type": JSON})[2])

    def _transcript(self) -> bytes:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return wire.encode(
            {
                "type": "enrolment-transcript",
                "v": 1,
                "operation": "enrol",
                "federation_id": self.trust["federation_id"],
                "authority": self.authority,
                "anchor": self.claim.anchor,
                "claim_id": self.claim.lookup_id,
                "site": self.claim.site,
                "device_class": self.claim.device_class,
                "name": self.name,
                "device_nonce": os.urandom(32),
                "suites": ["hybrid"],
                "floor": "hybrid",
                "keys": self.keys.wire,
                "csr": request.sign(self.keys.authentication, None).public_bytes(Encoding.DER),
                "epoch": 1,
                "renews": None,
            }
        )

    def _collect(self, enrolment_id: str) -> None:
        status: int = 202
        told: dict[str, Any] = {}
        while status == 202:
            status, told = self.ask_json(f"/api/v1/enrolments/{enrolment_id}/certificate", "wait=20")
        require(told["state"] == "active", "nobody let this device in")
        self.fetch_trust()
        statement, _ = self.believe(wire.bytes64(told["statement"]), "key-statement", "device-key-statement")
        require((statement["device_id"], statement["keys"]) == (self.id, self.keys.wire), "a statement of other keys")
        require(statement["federation_id"] == self.trust["federation_id"], "a statement of another federation")
        leaf, issuer = (x509.load_der_x509_certificate(base64.b64decode(der)) for der in told["certificate_chain"])
        root = x509.load_der_x509_certificate(self.trust["certificates"][-1])
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
        require(wire.sha256(leaf.public_bytes(Encoding.DER)) == statement["certificate_digest"], "another certificate")
        require(leaf.public_key() == self.keys.authentication.public_key(), "a certificate of another key")
        self.epoch = statement["epoch"]

    # --- 11, 12, 13: rounds -------------------------------------------------------------------------------------------

    def work(self, wait: float = 0, after: str = "") -> Any:
        return self.ask_json("/api/v1/work", f"wait={wait}&after={after}")[1]

    def assignment(self, round_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Plan and assignment of a round, checked against each other."""
        signed = self.ask_cbor(f"/api/v1/rounds/{round_id}/assignment", {"plan", "assignment"})
        plan, payload = self.believe(signed["plan"], "plan", "plan")
        told, _ = self.believe(signed["assignment"], "plan", "assignment")
        require(told["plan_digest"] == wire.digest("latticeward/plan/v1", payload), "an assignment of another plan")
        same = ("federation_id", "training_id")
        require(all(told[name] == plan[name] for name in same) and told["round_id"] == round_id, "another round")
        require(plan["federation_id"] == self.trust["federation_id"], "a plan of another federation")
        require((plan["suite"], plan["protection"]) == ("hybrid", "sealed"), "a plan that this client cannot follow")
        require(told["recipient_algorithm"] == wire.SEALING, "a round key of another suite")
        require(told["collecting_due_at"] > time.time() * 1000, "the round is over")
        self.assignments[round_id] = plan, told
        return plan, told

    def join(self, round_id: str) -> Any:
        answer = self.ask("POST", f"/api/v1/rounds/{round_id}/join", body=b"{}", content_type=JSON)
        return json.loads(answer[2])

    def contribute(
        self, round_id: str, base: np.ndarray, update: np.ndarray, examples: int, counts: Sequence[int]
    ) -> str:
        """Send a contribution; returns the submission's id from its receipt."""
        plan, told = self.assignments[round_id]
        require(wire.weights_digest(base) == told["base_model_digest"], "the round starts from another model")
        plaintext = wire.contribution(plan, told["kind"], update, examples, counts)
        envelope, name = wire.seal_update(self.keys, plaintext, told, int(time.time() * 1000))
        self.sent[round_id] = name
        return self.submit(round_id, envelope, name)["submission_id"]

    def submit(self, round_id: str, envelope: bytes, name: bytes) -> dict[str, Any]:
        """Send an envelope, twice as if the first answer had been lost; returns the receipt."""
        path = f"/api/v1/rounds/{round_id}/submissions"
        headers = {"content_type": BYTES, "idempotency_key": name.hex()}
        status, kind, signed = self.ask("POST", path, body=envelope, **headers)
        again, _, repeated = self.ask("POST", path, body=envelope, **headers)
        require((status, again, kind) == (201, 200, CBOR) and repeated == signed, "not one receipt for one envelope")
        if ("submission-receipt", wire.decode(signed, 2**20)["key_id"]) not in self.trusted:
            self.fetch_trust()
        receipt, _ = self.believe(signed, "submission-receipt", "submission-receipt")
        own = (self.id, round_id, self.assignments[round_id][1]["plan_digest"], name, len(envelope))
        fields = ("device_id", "round_id", "plan_digest", "submission_digest", "size_bytes")
        require(tuple(receipt[field] for field in fields) == own, "a receipt of something else")
        return receipt

    def outcome(self, submission_id: str, wait: float = 20) -> Any:
        return self.ask_json(f"/api/v1/submissions/{submission_id}", f"wait={wait}")[1]

    def record(self, round_id: str) -> dict[str, Any]:
        """The round's record, with this device in it."""
        record, _ = self.believe(
            self.ask("GET", f"/api/v1/rounds/{round_id}/record")[2], "round-record", "round-record"
        )
        told = self.assignments[round_id][1]
        same = ["round_id", "training_id", "federation_id", "number", "kind", "plan_digest", "base_model_digest"]
        require(all(record[name] == told[name] for name in same), "a record of another round")
        (own,) = (row for row in record["participants"] if row["device_id"] == self.id)
        require(own["outcome"] != "accepted" or own["submission_digest"] == self.sent[round_id], "not what was sent")
        return record

    # --- 16, 17: models and the ledger --------------------------------------------------------------------------------

    def model(self, record: dict[str, Any]) -> np.ndarray:
        """The weights that a round's record names."""
        path = f"/api/v1/models/{record['model_id']}"
        answer = self.ask_cbor(f"{path}/manifest", {"manifest", "stanza"})
        manifest, _ = self.believe(answer["manifest"], "model-manifest", "model-manifest")
        header = wire.read(manifest["header"], "envelope", 2048)
        for name in ("model_id", "training_id", "round_id", "plan_digest", "weights_digest", "number"):
            require(manifest[name] == record[name], f"a manifest with another {name}")
        for name in ("federation_id", "round_id", "plan_digest"):
            require(header[name] == record[name], f"a body with another {name}")
        _, kind, body = self.ask("GET", f"{path}/body")
        require(kind == BYTES, f"a body is {kind}")
        return wire.open_model(self.keys, manifest, answer["stanza"], body, self.id, self.epoch)

    def proof(self, submission_id: str, round_id: str) -> dict[str, Any]:
        """The ledger's entry of a submission, once it is proven."""
        status: int = 202
        told: dict[str, Any] = {}
        while status == 202:
            status, told = self.ask_json(f"/api/v1/submissions/{submission_id}/proof")
            time.sleep(0.2 if status == 202 else 0)
        (key,) = (raw for (purpose, _), raw in self.trusted.items() if purpose == "checkpoint")
        entry = wire.verify_proof(told, f"latticeward/{self.trust['federation_id']}", key)
        details = entry["details"]
        require((entry["event"], entry["subject_kind"]) == ("update.received", "participant"), "another entry")
        require(details["submission"] == submission_id, "an entry of another submission")
        require(details["digest"] == self.sent[round_id].hex(), "an entry of other bytes")
        return entry
