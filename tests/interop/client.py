"""A device made after docs/protocol.md: it enrols, submits updates and opens models, over plain HTTP.

It stands on ``signed_http.py`` (section 10) and ``wire.py`` (the formats). What a device does beyond this to take part
in a whole training is in ``plans.py``, ``records.py`` and ``proofs.py``.
"""

import base64
import hmac
import json
import math
import os
import struct
import time
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop import wire
from tests.interop.signed_http import BYTES, CBOR, JSON, SignedHttp
from tests.interop.wire import require

# The messages of this file, each with exactly the fields that it has.
TRUST = "federation_id federation authority sequence issued_at expires_at keys certificates"
SERVER_KEY = "federation_id purpose algorithm public_key not_before not_after issued_at"
ANSWER = "enrolment_id device_id server_nonce suite sealed_challenge expires_at"
DEVICE_KEYS = "device_id federation_id site epoch keys certificate_digest not_before not_after issued_at"
ASSIGNMENT = (
    "round_id training_id federation_id number kind plan_digest base_model base_model_digest recipient_algorithm"
    " recipient_key roster_digest opened_at recruiting_due_at collecting_due_at"
)
RECEIPT = "submission_id device_id round_id plan_digest submission_digest size_bytes via received_at ledger_due_at"
MANIFEST = (
    "model_id training_id round_id number plan_digest base_model_digest weights_digest header body_digest body_bytes"
    " created_at"
)


class Device(SignedHttp):
    """One machine with a claim code in its machine form."""

    def __init__(self, claim: str, name: str = "independent") -> None:
        self.claim, self.name = wire.Claim(claim), name
        super().__init__(urlsplit(self.claim.server).netloc, wire.Keys())
        self.sequence, self.epoch = 0, 1
        self.trust: dict[str, Any] = {}
        self.trusted: dict[tuple[str, bytes], bytes] = {}
        self.id = ""

    # --- 5.3, 8: trust ----------------------------------------------------------------------------------------------

    def fetch_trust(self) -> None:
        """Believe the trust bundle, or refuse it."""
        _, kind, raw = self.exchange("GET", "/api/v1/trust", None, {})
        require(kind == CBOR, f"the trust bundle is {kind}")
        bundle = wire.decode(raw, 512 * 1024)
        require(bundle.keys() == {"trust", "anchor", "anchor_algorithm", "statements"}, "a bundle with other fields")
        anchor = wire.key_id(bundle["anchor_algorithm"], bundle["anchor"])
        require(anchor == self.claim.anchor, "another trust anchor than the claim code names")
        payload = self._open_signed(bundle["trust"], "trust", {("trust", anchor): bundle["anchor"]})
        statement = wire.read(payload, "trust-statement", TRUST, 256 * 1024)
        now = time.time() * 1000
        require(statement["issued_at"] <= now < statement["expires_at"], "a trust statement of another time")
        require(statement["authority"] == self.authority, "a trust statement of another server")
        require(statement["sequence"] >= max(self.sequence, 1), "an old trust statement")
        keys = list(statement["keys"])
        trusted = self._valid(keys, now)
        for signed in bundle["statements"]:
            told = wire.read(
                self._open_signed(signed, "key-statement", trusted), "server-key-statement", SERVER_KEY, 32 * 1024
            )
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

    def believe(self, signed: bytes, purpose: str, kind: str, fields: str) -> dict[str, Any]:
        """The fields of a message that is signed for a purpose."""
        return wire.read(self.payload(signed, purpose), kind, fields)

    def payload(self, signed: bytes, purpose: str) -> bytes:
        """The bytes that somebody whom the trust statement names has signed for a purpose."""
        return self._open_signed(signed, purpose, self.trusted)

    # --- 9: enrolment -----------------------------------------------------------------------------------------------

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
        told = wire.read(answer, "enrolment-answer", ANSWER, 8192)
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
        return json.loads(self.exchange("POST", path, json.dumps(fields).encode(), {"Content-Type": JSON})[2])

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
        signed = wire.bytes64(told["statement"])
        statement = self.believe(signed, "key-statement", "device-key-statement", DEVICE_KEYS)
        require((statement["device_id"], statement["keys"]) == (self.id, self.keys.wire), "a statement of other keys")
        require(statement["federation_id"] == self.trust["federation_id"], "a statement of another federation")
        leaf, issuer = (x509.load_der_x509_certificate(base64.b64decode(der)) for der in told["certificate_chain"])
        root = x509.load_der_x509_certificate(self.trust["certificates"][-1])
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
        require(wire.sha256(leaf.public_bytes(Encoding.DER)) == statement["certificate_digest"], "another certificate")
        require(leaf.public_key() == self.keys.authentication.public_key(), "a certificate of another key")
        self.epoch = statement["epoch"]

    # --- 13, 15: an update --------------------------------------------------------------------------------------------

    def assignment(self, round_id: str) -> tuple[bytes, dict[str, Any]]:
        """A round's plan, as its bytes, and the assignment that names it."""
        signed = self.ask_cbor(f"/api/v1/rounds/{round_id}/assignment", {"plan", "assignment"})
        plan = self.payload(signed["plan"], "plan")
        told = self.believe(signed["assignment"], "plan", "assignment", ASSIGNMENT)
        require(told["plan_digest"] == wire.digest("latticeward/plan/v1", plan), "an assignment of another plan")
        require(told["federation_id"] == self.trust["federation_id"], "a round of another federation")
        require(told["round_id"] == round_id, "another round")
        require(told["recipient_algorithm"] == wire.SEALING, "a round key of another suite")
        require(told["collecting_due_at"] > time.time() * 1000, "the round is over")
        return plan, told

    def submit(self, assignment: dict[str, Any], plaintext: bytes) -> dict[str, Any]:
        """Seal, sign and send a contribution, twice as if the first answer had been lost; returns the receipt."""
        envelope, name = wire.seal_update(self.keys, plaintext, assignment, int(time.time() * 1000))
        path = f"/api/v1/rounds/{assignment['round_id']}/submissions"
        headers = {"content_type": BYTES, "idempotency_key": name.hex()}
        status, kind, signed = self.ask("POST", path, body=envelope, **headers)
        again, _, repeated = self.ask("POST", path, body=envelope, **headers)
        require((status, again, kind) == (201, 200, CBOR) and repeated == signed, "not one receipt for one envelope")
        if ("submission-receipt", wire.decode(signed, 2**20)["key_id"]) not in self.trusted:
            self.fetch_trust()
        receipt = self.believe(signed, "submission-receipt", "submission-receipt", RECEIPT)
        own = (self.id, assignment["round_id"], assignment["plan_digest"], name, len(envelope))
        fields = ("device_id", "round_id", "plan_digest", "submission_digest", "size_bytes")
        require(tuple(receipt[field] for field in fields) == own, "a receipt of something else")
        return receipt

    # --- 16: a model --------------------------------------------------------------------------------------------------

    def model(self, model_id: str) -> tuple[dict[str, Any], bytes]:
        """A model's manifest, and its weights as little-endian float32."""
        answer = self.ask_cbor(f"/api/v1/models/{model_id}/manifest", {"manifest", "stanza"})
        manifest = self.believe(answer["manifest"], "model-manifest", "model-manifest", MANIFEST)
        header = wire.read(manifest["header"], "envelope", wire.ENVELOPE, 2048)
        require(manifest["model_id"] == model_id, "a manifest of another model")
        require((header["message_type"], header["direction"]) == ("model", "to-device"), "not a model for a device")
        require(header["federation_id"] == self.trust["federation_id"], "a model of another federation")
        for name in ("round_id", "plan_digest"):
            require(header[name] == manifest[name], f"a body with another {name}")
        _, kind, body = self.ask("GET", f"/api/v1/models/{model_id}/body")
        require(kind == BYTES, f"a body is {kind}")
        require(len(body) == manifest["body_bytes"] and wire.sha256(body) == manifest["body_digest"], "another body")
        weights = wire.open_body(self.keys, manifest["header"], answer["stanza"], body, self.id, self.epoch)
        require(wire.digest("latticeward/weights/v1", weights) == manifest["weights_digest"], "other weights")
        require(all(math.isfinite(number) for (number,) in struct.iter_unpack("<f", weights)), "not finite")
        return manifest, weights
