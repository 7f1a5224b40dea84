"""Run published test vectors, and our own frozen ones, through the code that serves.

The self-test asks whether this process computes; conformance asks whether it computes what the standards say, with
vectors that others made. The vectors are data that the product does not ship: those of the package
``cryptography_vectors``, a folder of shared ones, and the frozen known answers of our formats in ``tests/vectors``.
What is not there is skipped and says so. Which rows exist is the table ``_CHECKS``.
"""

import importlib.util
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem

from latticeward import canonical
from latticeward.crypto import conformance_standards as standards
from latticeward.crypto.authentication import AuthenticationSigningKey, ClassicalSigningKey
from latticeward.crypto.body import open_whole_body
from latticeward.crypto.composite import CompositeSigningKey
from latticeward.crypto.conformance_standards import Cases, Check, read_json
from latticeward.crypto.envelope import open_envelope, parse_envelope, verify_envelope
from latticeward.crypto.hpke import hpke_open
from latticeward.crypto.kem import DecapsulationKey
from latticeward.crypto.signing import Purpose, verify, verify_message
from latticeward.crypto.suites import BodyAlgorithm, get_suite
from latticeward.crypto.wrapping import derive_key, unwrap_secret
from latticeward.errors import LatticewardError

OWN_VECTORS: Final = Path(__file__).parents[2] / "tests" / "vectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceRow:
    """One set of vectors: how many cases there were and how many came out right.

    Attributes:
        name: what is tested.
        source: where the vectors come from.
        cases, passed, failed: counts; passed and failed add up to cases.
        skipped: why nothing was run; empty when something was.
    """

    name: str
    source: str
    cases: int
    passed: int
    failed: int
    skipped: str = ""


def run_conformance(shared_vectors_dir: Path | None, *, own_vectors_dir: Path = OWN_VECTORS) -> list[ConformanceRow]:
    """Run every set of vectors that is at hand; takes a few seconds.

    Args:
        shared_vectors_dir: folder with ``composite/``, ``ascon/`` and ``httpsig/``, or None.
        own_vectors_dir: the frozen known answers of our formats.

    Returns:
        A row for each set, those without vectors too. A case that raises counts as failed.
    """
    folders = {
        "cryptography_vectors": _package_vectors(),
        "shared vectors": shared_vectors_dir,
        "own frozen vectors": own_vectors_dir,
    }
    return [_run(name, source, folders[source], path, check) for name, source, path, check in _CHECKS]


def _run(name: str, source: str, folder: Path | None, path: str, check: Check) -> ConformanceRow:
    if folder is None or not (folder / path).is_file():
        reason = f"{path} is not in the {source}" if folder else f"the {source} are not installed here"
        return ConformanceRow(name=name, source=source, cases=0, passed=0, failed=0, skipped=reason)
    passed = failed = 0
    cases = check(folder / path)
    while True:
        try:
            right = next(cases)
        except StopIteration:
            break
        except (LatticewardError, InvalidSignature, ValueError, TypeError, KeyError):
            # A generator that raised is over: what it had not reached is not counted as passed.
            failed += 1
            break
        passed, failed = passed + right, failed + (not right)
    return ConformanceRow(name=name, source=source, cases=passed + failed, passed=passed, failed=failed)


def _package_vectors() -> Path | None:
    spec = importlib.util.find_spec("cryptography_vectors")
    return Path(spec.origin).parent if spec and spec.origin else None


def _own_canonical(path: Path) -> Cases:
    document = read_json(path)
    for case in document["accepted"]:
        raw = bytes.fromhex(case["hex"])
        decoded = canonical.decode(raw, limit_bytes=1024)
        yield canonical.encode(case["value"]) == raw and canonical.encode(decoded) == raw
    for case in document["refused"]:
        try:
            canonical.decode(bytes.fromhex(case["hex"]), limit_bytes=1024)
        except LatticewardError:
            yield True
        else:
            yield False
    for case in document["digests"]:
        yield canonical.digest(case["label"], *map(bytes.fromhex, case["parts"])).hex() == case["digest"]


def _own_keys(path: Path) -> Cases:
    for case in read_json(path):
        seed = b64decode(case["seed"])
        match case["kind"]:
            case "composite":
                key_id = CompositeSigningKey.from_seed(seed, case["algorithm"]).verify_key.key_id
            case "kem":
                key_id = DecapsulationKey.from_seed(seed, case["algorithm"]).encapsulation_key.key_id
            case AuthenticationSigningKey.KIND:
                key_id = AuthenticationSigningKey.from_seed(seed, case["algorithm"]).verify_key.key_id
            case _:
                key_id = ClassicalSigningKey.from_seed(seed, case["algorithm"]).verify_key.key_id
        yield key_id.hex() == case["key_id"]


def _own_signatures(path: Path) -> Cases:
    for case in read_json(path):
        key = CompositeSigningKey.from_seed(b64decode(case["seed"]), case["algorithm"]).verify_key
        payload = b64decode(case["payload"])
        verify(b64decode(case["signature"]), payload, purpose=Purpose(case["purpose"]), key=key)
        message = b64decode(case["message"])
        yield verify_message(message, purpose=Purpose(case["message_purpose"]), key=key) == payload


def _own_hpke(path: Path) -> Cases:
    for case in read_json(path):
        key = DecapsulationKey.from_seed(b64decode(case["seed"]), case["algorithm"])
        opened = hpke_open(b64decode(case["sealed"]), key=key, info=b64decode(case["info"]))
        yield opened == b64decode(case["plaintext"])


def _own_bodies(path: Path) -> Cases:
    for case in read_json(path):
        plaintext = b64decode(case["plaintext"])
        opened = open_whole_body(
            BodyAlgorithm(case["algorithm"]),
            b64decode(case["body"]),
            key=b64decode(case["key"]),
            header=b64decode(case["header"]),
            plaintext_bytes=len(plaintext),
        )
        yield opened == plaintext


def _own_envelopes(path: Path) -> Cases:
    for case in read_json(path):
        suite = get_suite(case["suite"])
        signer = CompositeSigningKey.from_seed(b64decode(case["signature_seed"]), suite.signature)
        recipient = DecapsulationKey.from_seed(b64decode(case["kem_seed"]), suite.kem)
        raw = b64decode(case["envelope"])
        verified = verify_envelope(
            parse_envelope(raw, limit_bytes=len(raw)), purpose=Purpose(case["purpose"]), verify_key=signer.verify_key
        )
        opened = open_envelope(
            verified,
            role=case["role"],
            subject_id=case["subject_id"],
            epoch=case["epoch"],
            decapsulation_key=recipient,
        )
        right = opened.plaintext == b64decode(case["plaintext"])
        yield right and verified.signed_digest.hex() == case["signed_digest"]


def _own_wrapping(path: Path) -> Cases:
    document = read_json(path)
    for case in document["wrapped"]:
        opened = unwrap_secret(
            b64decode(case["wrapped"]),
            key=b64decode(case["key"]),
            associated_data=b64decode(case["associated_data"]),
        )
        yield opened == b64decode(case["secret"])
    for case in document["derived"]:
        yield derive_key(b64decode(case["secret"]), label=case["label"]) == b64decode(case["key"])


_PACKAGE, _SHARED, _OWN = "cryptography_vectors", "shared vectors", "own frozen vectors"
_MLDSA, _MLKEM = "asymmetric/MLDSA/kat_MLDSA_{}_det_pure.rsp", "asymmetric/MLKEM/kat_MLKEM_{}.rsp"
_CHECKS: Final[tuple[tuple[str, str, str, Check], ...]] = (
    ("ML-KEM-768", _PACKAGE, _MLKEM.format(768), standards.check_ml_kem(mlkem.MLKEM768PrivateKey.from_seed_bytes)),
    ("ML-KEM-1024", _PACKAGE, _MLKEM.format(1024), standards.check_ml_kem(mlkem.MLKEM1024PrivateKey.from_seed_bytes)),
    ("ML-DSA-44", _PACKAGE, _MLDSA.format(44), standards.check_ml_dsa(mldsa.MLDSA44PrivateKey.from_seed_bytes)),
    ("ML-DSA-65", _PACKAGE, _MLDSA.format(65), standards.check_ml_dsa(mldsa.MLDSA65PrivateKey.from_seed_bytes)),
    ("ML-DSA-87", _PACKAGE, _MLDSA.format(87), standards.check_ml_dsa(mldsa.MLDSA87PrivateKey.from_seed_bytes)),
    ("HPKE, RFC 9180, base mode", _PACKAGE, "HPKE/test-vectors.json", standards.check_hpke),
    ("HPKE, post-quantum and hybrid KEMs", _PACKAGE, "HPKE/hpke-pq-test-vectors.json", standards.check_hpke),
    ("AES-256-GCM, 96-bit nonce", _PACKAGE, "ciphers/AES/GCM/gcmDecrypt256.rsp", standards.check_aes_gcm),
    ("Composite ML-DSA, draft 19", _SHARED, "composite/composite-ml-dsa.json", standards.check_composite),
    ("Ascon-AEAD128, SP 800-232", _SHARED, "ascon/LWC_AEAD_KAT_128_128.txt", standards.check_ascon),
    ("ML-DSA in HTTP message signatures", _SHARED, "httpsig/ml-dsa.json", standards.check_http_signatures),
    ("Deterministic CBOR", _OWN, "canonical.json", _own_canonical),
    ("Keys from seeds", _OWN, "keys.json", _own_keys),
    ("Composite signatures and signed messages", _OWN, "signatures.json", _own_signatures),
    ("Sealed secrets", _OWN, "hpke.json", _own_hpke),
    ("Bodies", _OWN, "bodies.json", _own_bodies),
    ("Envelopes", _OWN, "envelopes.json", _own_envelopes),
    ("Wrapped and derived keys", _OWN, "wrapping.json", _own_wrapping),
)
