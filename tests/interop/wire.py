"""The formats of docs/protocol.md that a device needs, written and read after that document alone.

Encoding, keys, signatures, sealing, claim codes and envelopes, in the suite ``hybrid``; no network. Standard library,
``cryptography`` and ``cbor2``, nothing of the product, so that the two can agree only by the document. Section numbers
are the document's. Whatever is not as it says raises ``Refused``.
"""

import base64
import hashlib
import hmac
import os
import struct
from typing import Any
from urllib.parse import parse_qs

import cbor2
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SIGNING, SEALING, LABEL = "mldsa65-ed25519", "mlkem768-x25519", b"COMPSIG-MLDSA65-Ed25519-SHA512"
HPKE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ENVELOPE = (
    "suite message_type direction federation_id round_id plan_digest base_model_digest sender_key_id plaintext_bytes"
    " body_bytes created_at message_id"
)


class Refused(Exception):
    """What came is not as the document says."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


# --- 2, 3: encoding and digests --------------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def decode(raw: bytes, limit_bytes: int) -> Any:
    require(len(raw) <= limit_bytes, "too large")
    value = cbor2.loads(raw)
    require(encode(value) == raw, "not canonical")
    return value


def read(raw: bytes, kind: str, fields: str, limit_bytes: int = 2**20) -> dict[str, Any]:
    """A message of exactly these fields."""
    value = decode(raw, limit_bytes)
    require((value["type"], value["v"]) == (kind, 1), f"not a {kind} of version 1")
    require(value.keys() == {"type", "v", *fields.split()}, f"a {kind} has other fields: {sorted(value)}")
    return value


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


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
    prefix = b"CompositeAlgorithmSignatures2025" + LABEL + bytes([len(context)])
    return prefix + context + hashlib.sha512(message).digest()


def verify(raw_key: bytes, signature: bytes, message: bytes, purpose: str) -> None:
    require(len(raw_key) == 1984 and len(signature) == 3373, "a composite key or signature of another length")
    represented, broken = representative(message, purpose), 0
    try:
        lattice = mldsa.MLDSA65PublicKey.from_public_bytes(raw_key[:1952])
        lattice.verify(signature[:3309], represented, context=LABEL)
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
        lattice, curve = self.signing
        return lattice.sign(represented, context=LABEL) + curve.sign(represented)

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


# --- 15, 16: envelopes and the bodies of models ----------------------------------------------------------------------


def stanza_info(header: bytes, role: str, subject: str, raw_key: bytes, epoch: int) -> bytes:
    told = read(header, "envelope", ENVELOPE, 2048)
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


def open_body(keys: Keys, header: bytes, stanza: bytes, body: bytes, subject: str, epoch: int) -> bytes:
    """What a body holds that was sealed to a device."""
    told, sealed = read(header, "envelope", ENVELOPE, 2048), decode(stanza, 2048)
    require(len(body) == told["body_bytes"], "a body of another length")
    require(sealed.keys() == {"key_id", "sealed"} and sealed["key_id"] == keys.id("encapsulation"), "another's stanza")
    info = stanza_info(header, "device", subject, keys.public["encapsulation"][1], epoch)
    decryptor = Cobblestone256Decryptor(keys.open(sealed["sealed"], info), body_context(header))
    plaintext = decryptor.update(body) + decryptor.finalize()
    require(len(plaintext) == told["plaintext_bytes"], "a plaintext of another length")
    return plaintext
