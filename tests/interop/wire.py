"""The formats of docs/protocol.md, written and read after that document: nothing of the product is imported.

What needs no network: encoding, keys, signatures, claim codes, contributions, envelopes, models and proofs, in the
suite ``hybrid``. Section numbers are the document's. Whatever is not as it says raises ``Refused``.
"""

import base64
import hashlib
import hmac
import math
import os
import secrets
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qs

import cbor2
import numpy as np
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SIGNING, SEALING = "mldsa65-ed25519", "mlkem768-x25519"
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
HPKE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
# Every message that a device reads, with exactly the fields that it has.
FIELDS = {
    "trust-statement": "federation_id federation authority sequence issued_at expires_at keys certificates",
    "server-key-statement": "federation_id purpose algorithm public_key not_before not_after issued_at",
    "enrolment-answer": "enrolment_id device_id server_nonce suite sealed_challenge expires_at",
    "device-key-statement": "device_id federation_id site epoch keys certificate_digest not_before not_after issued_at",
    "plan": "training_id federation_id title job trainer layout initial rounds suite protection aggregator"
    " server_optimiser clip_norm weight_rule weight_cap sensitivity cohort cohort_bound ring_bits quorum k_hospitals"
    " k_patients noise_multiplier privacy metric metric_size release evaluate_last stop budget stage_seconds"
    " stragglers created_at",
    "assignment": "round_id training_id federation_id number kind plan_digest base_model base_model_digest"
    " recipient_algorithm recipient_key roster_digest opened_at recruiting_due_at collecting_due_at",
    "submission-receipt": "submission_id device_id round_id plan_digest submission_digest size_bytes via received_at"
    " ledger_due_at",
    "round-record": "round_id training_id federation_id number kind plan_digest base_model_digest weights_digest"
    " model_id suite protection aggregator participants accepted quorum partial_commitments metric noise_multiplier"
    " epsilon_spent delta ledger opened_at closed_at",
    "model-manifest": "model_id training_id round_id number plan_digest base_model_digest weights_digest header"
    " body_digest body_bytes created_at",
    "envelope": "suite message_type direction federation_id round_id plan_digest base_model_digest sender_key_id"
    " plaintext_bytes body_bytes created_at message_id",
    "audit-entry": "id event actor subject_kind subject_id details feed feed_seq recorded_at",
}


class Refused(Exception):
    """What came is not as the document says."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


# --- 2, 3: encoding and digests --------------------------------------------------------------------------------------


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def encode(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def decode(raw: bytes, limit_bytes: int) -> Any:
    require(len(raw) <= limit_bytes, "too large")
    value = cbor2.loads(raw)
    require(encode(value) == raw, "not canonical")
    return value


def read(raw: bytes, kind: str, limit_bytes: int = 2**20) -> dict[str, Any]:
    value = decode(raw, limit_bytes)
    require((value["type"], value["v"]) == (kind, 1), f"not a {kind} of version 1")
    require(value.keys() == {"type", "v", *FIELDS[kind].split()}, f"a {kind} has other fields: {sorted(value)}")
    return value


def digest(label: str, *parts: bytes) -> bytes:
    return sha256(encode([label, *parts]))


def derive(secret: bytes, label: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, label.encode()).derive(secret)


def mac(key: bytes, label: str, *parts: bytes) -> bytes:
    return hmac.digest(key, encode([label, *parts]), "sha256")


def text64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def bytes64(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    require(text64(data) == text, "not the only spelling of base64url")
    return data


# --- 4, 5, 6: keys, signatures, sealing ------------------------------------------------------------------------------


def key_id(algorithm: str, raw: bytes) -> bytes:
    return sha256(algorithm.encode() + raw)


def representative(message: bytes, purpose: str) -> bytes:
    context = f"latticeward/{purpose}/v1".encode()
    prefix = b"CompositeAlgorithmSignatures2025COMPSIG-MLDSA65-Ed25519-SHA512"
    return prefix + bytes([len(context)]) + context + hashlib.sha512(message).digest()


def verify(raw_key: bytes, signature: bytes, message: bytes, purpose: str) -> None:
    require(len(raw_key) == 1984 and len(signature) == 3373, "a composite key or signature of another length")
    represented, broken = representative(message, purpose), 0
    try:
        label = b"COMPSIG-MLDSA65-Ed25519-SHA512"
        pq = mldsa.MLDSA65PublicKey.from_public_bytes(raw_key[:1952])
        pq.verify(signature[:3309], represented, context=label)
    except InvalidSignature:
        broken += 1
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(raw_key[1952:]).verify(signature[3309:], represented)
    except InvalidSignature:
        broken += 1
    require(broken == 0, f"the signature for {purpose} does not hold")


class Keys:
    """The four keys of a device."""

    def __init__(self) -> None:
        self.authentication = mldsa.MLDSA65PrivateKey.generate()
        self.classical = ed25519.Ed25519PrivateKey.generate()
        self.signing = mldsa.MLDSA65PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
        seed = hashlib.shake_256(os.urandom(32)).digest(96)
        self.kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed[:64])
        self.curve = x25519.X25519PrivateKey.from_private_bytes(seed[64:])
        self.public = {
            "authentication": ("ml-dsa-65", self._raw(self.authentication)),
            "classical": ("ed25519", self._raw(self.classical)),
            "signing": (SIGNING, self._raw(*self.signing)),
            "encapsulation": (SEALING, self._raw(self.kem, self.curve)),
        }

    @staticmethod
    def _raw(*keys: Any) -> bytes:
        return b"".join(key.public_key().public_bytes_raw() for key in keys)

    @property
    def wire(self) -> dict[str, Any]:
        return {role: {"algorithm": name, "public_key": raw} for role, (name, raw) in self.public.items()}

    def id(self, role: str) -> bytes:
        return key_id(*self.public[role])

    def sign(self, message: bytes, purpose: str) -> bytes:
        represented = representative(message, purpose)
        pq, cl = self.signing
        return pq.sign(represented, context=b"COMPSIG-MLDSA65-Ed25519-SHA512") + cl.sign(represented)

    def open(self, sealed: bytes, info: bytes) -> bytes:
        return HPKE.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(self.kem, self.curve), info=info)


def seal(plaintext: bytes, raw_key: bytes, info: bytes) -> bytes:
    kem = mlkem.MLKEM768PublicKey.from_public_bytes(raw_key[:1184])
    curve = x25519.X25519PublicKey.from_public_bytes(raw_key[1184:])
    return HPKE.encrypt(plaintext, hpke.MLKEM768X25519PublicKey(kem, curve), info=info)


# --- 7: claim codes --------------------------------------------------------------------------------------------------


class Claim:
    """A claim code in its machine form."""

    def __init__(self, uri: str) -> None:
        scheme, _, query = uri.strip().partition("?")
        require(scheme == "latticeward-claim:v1", "no claim of version 1")
        fields = {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}
        self.server, self.anchor = fields["server"], bytes.fromhex(fields["anchor"])
        self.site, self.device_class = fields.get("site", ""), fields.get("class", "")
        number = 0
        for character in fields["code"].replace("-", ""):
            number = number << 5 | ALPHABET.index(character)
        body = (number >> 18).to_bytes(29, "big")
        checksum = int.from_bytes(sha256(b"latticeward/claim-checksum/v1\0" + body)[:4], "big") >> 14
        require(number & 2**18 - 1 == checksum, "a typing error in the claim code")
        require(body[21:] == self.anchor[:8], "code and anchor belong to different federations")
        self.lookup_id, self.mac_key = body[:5], derive(body[5:21], "latticeward/claim-mac-key/v1")


# --- 12, 14: the starting model, and contributions -------------------------------------------------------------------


def version_zero(plan: dict[str, Any]) -> np.ndarray:
    shapes = [tensor["shape"] for tensor in plan["layout"]]
    parts = [np.zeros(math.prod(shape), "<f4") for shape in shapes]
    if plan["initial"]["kind"] == "glorot":
        source = np.random.PCG64(plan["initial"]["seed"])
        for part, shape in zip(parts, shapes, strict=True):
            if len(shape) > 1:
                u = (source.random_raw(len(part)) >> np.uint64(11)) * 2.0**-53
                part[:] = (2 * u - 1) * math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
    return np.concatenate(parts)


def weights_digest(weights: np.ndarray) -> bytes:
    return digest("latticeward/weights/v1", weights.astype("<f4").tobytes())


def contribution(plan: dict[str, Any], kind: str, update: np.ndarray, examples: float, counts: Sequence[int]) -> bytes:
    clip, cap, cohort, bits = (plan[name] for name in ("clip_norm", "weight_cap", "cohort_bound", "ring_bits"))
    scale = math.floor(Fraction(2 ** (bits - 1) - 1) / (cohort * Fraction(clip)))
    bound = (2 ** (bits - 1) - 1) // cohort
    share = min(examples, cap) / cap
    x = update.astype(np.float64)
    norm = float(np.linalg.norm(x))
    x = x * (clip / norm) if norm > clip else x
    draws = np.array([secrets.randbits(53) * 2.0**-53 for _ in x])
    quantised = np.clip(np.floor(scale * share * x + draws), -bound, bound).astype(np.int64)
    numbers = [*(quantised.tolist() if kind == "training" else [0] * len(x))]
    numbers += [min(round(share * scale * clip), bound), *counts]
    require(len(numbers) == len(x) + 1 + plan["metric_size"], "another number of counts")
    return b"".join((number % 2**bits).to_bytes(bits // 8, "little") for number in numbers)


# --- 15, 16: envelopes and models ------------------------------------------------------------------------------------


def stanza_info(header: bytes, role: str, subject: str, raw_key: bytes, epoch: int) -> bytes:
    told = read(header, "envelope", 2048)
    start = ["latticeward/stanza/v1", told["suite"], told["message_type"], told["direction"]]
    return encode([*start, sha256(header), told["sender_key_id"], role, subject, sha256(raw_key), epoch])


def body_context(header: bytes) -> bytes:
    return b"latticeward/body/v1" + hashlib.sha512(header).digest()


def seal_update(keys: Keys, plaintext: bytes, assignment: dict[str, Any], now_ms: int) -> tuple[bytes, bytes]:
    """The envelope, and its submission digest."""
    copied = {name: assignment[name] for name in ("federation_id", "round_id", "plan_digest", "base_model_digest")}
    own = {
        "type": "envelope",
        "v": 1,
        "suite": "hybrid",
        "message_type": "update",
        "direction": "to-server",
        "sender_key_id": keys.id("signing"),
        "plaintext_bytes": len(plaintext),
        "body_bytes": 56 + len(plaintext) + 16 * (len(plaintext) // 16384 + 1),
        "created_at": now_ms,
        "message_id": os.urandom(16),
    }
    header, content_key = encode({**copied, **own}), os.urandom(32)
    encryptor = Cobblestone256Encryptor(content_key, body_context(header))
    body = encryptor.update(plaintext) + encryptor.finalize()
    key = assignment["recipient_key"]
    sealed = seal(content_key, key, stanza_info(header, "round", assignment["round_id"], key, 1))
    prefix = encode([header, [encode({"key_id": key_id(SEALING, key), "sealed": sealed})]])
    signed = encode(["latticeward/envelope/v1", sha256(header), sha256(body)])
    envelope = b"LWENV\0\1\0" + struct.pack(">I", len(prefix)) + prefix + body + keys.sign(signed, "update")
    return envelope, sha256(signed)


def open_model(
    keys: Keys, manifest: dict[str, Any], stanza: bytes, body: bytes, subject: str, epoch: int
) -> np.ndarray:
    header, sealed = manifest["header"], decode(stanza, 2048)
    told = read(header, "envelope", 2048)
    require((told["message_type"], told["direction"]) == ("model", "to-device"), "not a model for a device")
    require(len(body) == manifest["body_bytes"] == told["body_bytes"], "a body of another length")
    require(sha256(body) == manifest["body_digest"], "another body")
    require(sealed.keys() == {"key_id", "sealed"} and sealed["key_id"] == keys.id("encapsulation"), "another's stanza")
    info = stanza_info(header, "device", subject, keys.public["encapsulation"][1], epoch)
    decryptor = Cobblestone256Decryptor(keys.open(sealed["sealed"], info), body_context(header))
    weights = np.frombuffer(decryptor.update(body) + decryptor.finalize(), "<f4")
    require(told["plaintext_bytes"] == 4 * len(weights), "a plaintext of another length")
    require(weights_digest(weights) == manifest["weights_digest"], "other weights")
    require(bool(np.isfinite(weights).all()), "a weight that is not finite")
    return weights


# --- 17: the ledger --------------------------------------------------------------------------------------------------


def verify_proof(proof: dict[str, Any], origin: str, raw_key: bytes) -> dict[str, Any]:
    """The entry that is proven to be in the ledger."""
    text, _, rest = proof["checkpoint"].partition("\n\n")
    named, size, root = text.split("\n")
    require(named == origin, "a checkpoint of another ledger")
    kind = b"\xfflatticeward/checkpoint/v1/" + SIGNING.encode() + b"\0"
    hint = sha256(origin.encode() + b"\n" + kind + raw_key)[:4]
    lines = [line.split(" ") for line in rest.removesuffix("\n").split("\n")]
    blobs = [base64.b64decode(blob, validate=True) for dash, name, blob in lines if (dash, name) == ("\u2014", origin)]
    ours = [blob[4:] for blob in blobs if blob[:4] == hint]
    require(len(ours) > 0, "no signature by the ledger's key")
    for signature in ours:
        verify(raw_key, signature, f"{text}\n".encode(), "checkpoint")
    entry = bytes64(proof["entry"])
    found, place, last = sha256(b"\0" + entry), proof["index"], int(size) - 1
    require(0 <= place <= last, "a leaf beyond the tree")
    for sibling in map(bytes.fromhex, proof["proof"]):
        require(last > 0, "a proof that is too long")
        if place & 1 or place == last:
            found = sha256(b"\1" + sibling + found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = sha256(b"\1" + found + sibling)
        place, last = place >> 1, last >> 1
    require(last == 0 and found == base64.b64decode(root, validate=True), "the entry is not in the tree")
    return read(entry, "audit-entry")
