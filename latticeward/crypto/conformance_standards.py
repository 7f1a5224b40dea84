"""Readers and checks for the vectors that others made; ``conformance.py`` holds the table that runs them."""

import hashlib
import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.bindings._rust import openssl as rust_openssl
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem, x25519

from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.kem import DecapsulationKey
from latticeward.crypto.suites import KemAlgorithm, SignatureAlgorithm
from latticeward.crypto.wrapping import unwrap_secret
from latticeward.errors import DecryptionError

Cases = Iterator[bool]
Check = Callable[[Path], Cases]
_MlKem = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
_MlDsa = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _records(path: Path) -> Iterator[dict[str, str]]:
    """Blocks of ``name = value`` lines; an empty line or a name that comes again begins the next.

    Section lines in brackets add to all blocks that follow.
    """
    section: dict[str, str] = {}
    record: dict[str, str] = {}
    with path.open() as lines:
        for line in lines:
            text = line.strip()
            if "=" in text and not text.startswith("#"):
                name, value = (part.strip() for part in text.strip("[]").split("=", 1))
                if name.lower() in record:
                    yield section | record
                    record = {}
                (section if text.startswith("[") else record)[name.lower()] = value
            elif text == "FAIL":
                record["fail"] = text
            elif not text and record:
                yield section | record
                record = {}
    if record:
        yield section | record


def check_ml_kem(private: Callable[[bytes], _MlKem]) -> Check:
    """Key generation and decapsulation of one parameter set."""

    def check(path: Path) -> Cases:
        for record in _records(path):
            key = private(bytes.fromhex(record["d"] + record["z"]))
            yield (
                key.public_key().public_bytes_raw().hex() == record["pk"].lower()
                and key.decapsulate(bytes.fromhex(record["ct"])).hex() == record["ss"].lower()
            )

    return check


def check_ml_dsa(private: Callable[[bytes], _MlDsa]) -> Check:
    """Key generation and verifying of one parameter set; signing is hedged and cannot be compared."""

    def check(path: Path) -> Cases:
        for record in _records(path):
            message, signed = bytes.fromhex(record["msg"]), bytes.fromhex(record["sm"])
            public = private(bytes.fromhex(record["xi"])).public_key()
            signature = signed[: len(signed) - len(message)]
            context = bytes.fromhex(record["ctx"])
            yield (
                public.public_bytes_raw().hex() == record["pk"].lower()
                and _verifies(public, signature, message, context)
                and not _verifies(public, signature, message + b"x", context)
            )

    return check


def _verifies(public: Any, signature: bytes, message: bytes, context: bytes) -> bool:
    try:
        public.verify(signature, message, context=context)
    except InvalidSignature:
        return False
    return True


_HPKE_KEMS: Final[Mapping[int, tuple[hpke.KEM, Callable[[bytes], Any]]]] = {
    0x0020: (hpke.KEM.X25519, x25519.X25519PrivateKey.from_private_bytes),
    0x0041: (hpke.KEM.MLKEM768, mlkem.MLKEM768PrivateKey.from_seed_bytes),
    0x0042: (hpke.KEM.MLKEM1024, mlkem.MLKEM1024PrivateKey.from_seed_bytes),
    0x0051: (
        hpke.KEM.MLKEM1024_P384,
        lambda seed: DecapsulationKey.from_seed(seed, KemAlgorithm.MLKEM1024_P384).native,
    ),
    0x647A: (
        hpke.KEM.MLKEM768_X25519,
        lambda seed: DecapsulationKey.from_seed(seed, KemAlgorithm.MLKEM768_X25519).native,
    ),
}
_HPKE_KDFS: Final = {
    0x0001: hpke.KDF.HKDF_SHA256,
    0x0002: hpke.KDF.HKDF_SHA384,
    0x0003: hpke.KDF.HKDF_SHA512,
    0x0010: hpke.KDF.SHAKE128,
    0x0011: hpke.KDF.SHAKE256,
}
_HPKE_AEADS: Final = {1: hpke.AEAD.AES_128_GCM, 2: hpke.AEAD.AES_256_GCM, 3: hpke.AEAD.CHACHA20_POLY1305}


def check_hpke(path: Path) -> Cases:
    """Base mode, first message. The vectors carry associated data, for which the library has a private function."""
    for case in read_json(path):
        known = case["kem_id"] in _HPKE_KEMS and case["kdf_id"] in _HPKE_KDFS and case["aead_id"] in _HPKE_AEADS
        if case["mode"] != 0 or not known:
            continue
        kem, load = _HPKE_KEMS[case["kem_id"]]
        first = case["encryptions"][0]
        opened = rust_openssl.hpke._decrypt_with_aad(
            hpke.Suite(kem, _HPKE_KDFS[case["kdf_id"]], _HPKE_AEADS[case["aead_id"]]),
            bytes.fromhex(case["enc"] + first["ct"]),
            load(bytes.fromhex(case["skRm"])),
            bytes.fromhex(case["info"]),
            bytes.fromhex(first["aad"]),
        )
        yield opened.hex() == first["pt"]


def check_aes_gcm(path: Path) -> Cases:
    """Wrapped secrets, whose form is nonce, ciphertext, tag."""
    for record in _records(path):
        if record.get("ivlen") != "96" or record.get("taglen") != "128":
            continue
        wrapped = bytes.fromhex(record["iv"] + record["ct"] + record["tag"])
        try:
            opened = unwrap_secret(
                wrapped, key=bytes.fromhex(record["key"]), associated_data=bytes.fromhex(record["aad"])
            )
        except DecryptionError:
            yield "fail" in record
        else:
            yield opened.hex() == record.get("pt")


def check_composite(path: Path) -> Cases:
    """Keys, secret forms and signatures of the draft, empty context."""
    names = {
        "id-MLDSA65-Ed25519-SHA512": SignatureAlgorithm.MLDSA65_ED25519,
        "id-MLDSA65-ECDSA-P384-SHA512": SignatureAlgorithm.MLDSA65_P384,
        "id-MLDSA87-ECDSA-P384-SHA512": SignatureAlgorithm.MLDSA87_P384,
    }
    document = read_json(path)
    prehash = hashlib.sha512(b64decode(document["m"])).digest()
    for case in document["tests"]:
        if case["tcId"] not in names:
            continue
        key = CompositeVerifyKey.from_raw(b64decode(case["pk"]), names[case["tcId"]])
        key.verify_prehashed(b64decode(case["s"]), prehash, context=b"")
        secret = CompositeSigningKey.from_seed(b64decode(case["sk"]), names[case["tcId"]])
        yield secret.verify_key == key and secret.export_seed() == b64decode(case["sk"])


def check_ascon(path: Path) -> Cases:
    """The form of Ascon-AEAD128 that serves in this process."""
    from latticeward.crypto.ascon import default_core

    core = default_core()
    for record in _records(path):
        key, nonce, extra, plain = (bytes.fromhex(record[name]) for name in ("key", "nonce", "ad", "pt"))
        sealed = core.seal(key=key, nonce=nonce, associated_data=extra, plaintext=plain)
        opened = core.open(key=key, nonce=nonce, associated_data=extra, sealed=sealed)
        yield sealed.hex() == record["ct"].lower() and opened == plain


def check_http_signatures(path: Path) -> Cases:
    """Signatures over given signature bases."""
    keys: Mapping[str, Callable[[bytes], _MlDsa]] = {
        "ml-dsa-44": mldsa.MLDSA44PrivateKey.from_seed_bytes,
        "ml-dsa-65": mldsa.MLDSA65PrivateKey.from_seed_bytes,
        "ml-dsa-87": mldsa.MLDSA87PrivateKey.from_seed_bytes,
    }
    for case in read_json(path)["vectors"]:
        public = keys[case["algorithm"]](bytes.fromhex(case["private_key_seed_hex"])).public_key()
        signature = b64decode(case["deterministic_signature_base64"])
        yield (
            public.public_bytes_raw() == b64decode(case["public_key_base64"])
            and _verifies(public, signature, b64decode(case["signature_base_base64"]), b"")
        )
