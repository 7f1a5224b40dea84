"""Known answers of every primitive in the active policy, checked before the process serves anything.

A library that is too old, built without an algorithm, or miscompiled for this processor must stop the start with a
sentence, not a round with a wrong result. Each primitive is checked against frozen bytes where its result is fixed or
can be verified, once forward and back with fresh randomness, and once with a changed bit, which it must refuse. The
answers stand in ``selftest_answers.py``; the published vectors of the standards are run by ``conformance.py``.
"""

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from latticeward.crypto import selftest_answers as answers
from latticeward.crypto.suites import Suite, get_suite
from latticeward.errors import DecryptionError, InvalidSignatureError, LatticewardError, SelfTestError

OLDEST_CRYPTOGRAPHY: Final = "50.0.2"
_KEY: Final = bytes(range(32))
_DIGESTS: Final = {
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "sha512": (
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    ),
    "shake_256": "483366601360a8771c6863080cc4114d8db44530f8f1e1ee4f94ea37e78b5739",
}


class _WrongAnswerError(Exception):
    """A primitive computed something else than it must."""


def run_selftest(suite_ids: Iterable[str]) -> list[str]:
    """Check every primitive that the suites use, and those that every process uses.

    Takes some ten milliseconds.

    Args:
        suite_ids: the suites of the active policy.

    Returns:
        The names of what was checked, in order.

    Raises:
        SelfTestError: one sentence, naming the primitive and what to do.
    """
    try:
        suites = [_usable(suite_id) for suite_id in suite_ids]
    except LatticewardError as error:
        raise SelfTestError(f"The policy names a suite that cannot be used: {error}.") from error
    checks: dict[str, Callable[[], None]] = {
        "SHA-2 and SHAKE256": _check_digests,
        "HKDF-SHA256 and AES-256-GCM": _check_wrapping,
        "ML-DSA-65 and Ed25519 (requests)": _check_authentication,
    }
    for suite in suites:
        checks[f"KEM {suite.kem}"] = partial(_check_kem, suite.kem)
        checks[f"signature {suite.signature}"] = partial(_check_signature, suite.signature)
        checks[f"body {suite.body}"] = partial(_check_body, suite.body)
    for name, check in checks.items():
        _run(name, check)
    return list(checks)


def _usable(suite_id: str) -> Suite:
    suite = get_suite(suite_id)
    suite.require_openable()
    return suite


def _run(name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except (ImportError, AttributeError) as error:
        raise SelfTestError(
            f"The primitive {name} is missing: install cryptography {OLDEST_CRYPTOGRAPHY} or newer "
            f"(found {_installed()})."
        ) from error
    except Exception as error:
        # Whatever a broken primitive throws, the start ends with the same sentence.
        raise SelfTestError(
            f"The primitive {name} gives a wrong answer: do not use this machine's cryptography {_installed()} "
            f"before it is reinstalled."
        ) from error


def _installed() -> str:
    try:
        return version("cryptography")
    except PackageNotFoundError:
        return "none"


def _require(same: bool) -> None:
    if not same:
        raise _WrongAnswerError


def _require_equal(found: bytes, wanted: bytes) -> None:
    _require(hmac.compare_digest(found, wanted))


def _require_refusal(refusal: type[Exception], action: Callable[[], Any]) -> None:
    try:
        action()
    except refusal:
        return
    raise _WrongAnswerError


def _flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def _check_digests() -> None:
    for name, wanted in _DIGESTS.items():
        state = hashlib.new(name, b"abc")
        found = state.hexdigest(32) if name == "shake_256" else state.hexdigest()  # type: ignore[call-arg]
        _require(found == wanted)


def _check_wrapping() -> None:
    from latticeward.crypto.wrapping import derive_key, unwrap_secret, wrap_secret

    _require_equal(derive_key(_KEY, label="latticeward/test/v1"), b64decode(answers.DERIVED["hkdf-sha256"]))
    wrapped = b64decode(answers.WRAPPED["aes-256-gcm"])
    _require_equal(unwrap_secret(wrapped, key=_KEY, associated_data=answers.HEADER), answers.PAYLOAD)
    again = wrap_secret(answers.PAYLOAD, key=_KEY, associated_data=b"")
    _require_equal(unwrap_secret(again, key=_KEY, associated_data=b""), answers.PAYLOAD)
    forged = _flipped(wrapped, 12)
    _require_refusal(DecryptionError, lambda: unwrap_secret(forged, key=_KEY, associated_data=answers.HEADER))


def _check_authentication() -> None:
    from latticeward.crypto.authentication import AuthenticationSigningKey, ClassicalSigningKey

    for key in (AuthenticationSigningKey.from_seed(_KEY), ClassicalSigningKey.from_seed(_KEY)):
        public = key.verify_key
        _require(public.key_id.hex() == answers.KEY_IDS[public.algorithm])
        signature = key.sign(answers.PAYLOAD)
        public.verify(signature, answers.PAYLOAD)
        _require_refusal(InvalidSignatureError, lambda: public.verify(signature, answers.HEADER))  # noqa: B023


def _check_kem(algorithm: str) -> None:
    from latticeward.crypto.hpke import hpke_open, hpke_seal
    from latticeward.crypto.kem import DecapsulationKey

    key = DecapsulationKey.from_seed(_KEY, algorithm)
    _require(key.encapsulation_key.key_id.hex() == answers.KEY_IDS[algorithm])
    sealed = b64decode(answers.SEALED[algorithm])
    _require_equal(hpke_open(sealed, key=key, info=answers.HEADER), answers.PAYLOAD)
    again = hpke_seal(answers.PAYLOAD, key=key.encapsulation_key, info=b"")
    _require_equal(hpke_open(again, key=key, info=b""), answers.PAYLOAD)
    _require_refusal(DecryptionError, lambda: hpke_open(_flipped(sealed, 0), key=key, info=answers.HEADER))


def _check_signature(algorithm: str) -> None:
    from latticeward.crypto.composite import CompositeSigningKey
    from latticeward.crypto.signing import Purpose, sign, verify

    key = CompositeSigningKey.from_seed(b64decode(answers.SIGNATURE_SEEDS[algorithm]), algorithm)
    public = key.verify_key
    _require(public.key_id.hex() == answers.KEY_IDS[algorithm])
    frozen = b64decode(answers.SIGNATURES[algorithm])
    fresh = sign(answers.PAYLOAD, purpose=Purpose.BENCHMARK, key=key)
    for signature in (frozen, fresh):
        verify(signature, answers.PAYLOAD, purpose=Purpose.BENCHMARK, key=public)
    for place in (0, len(frozen) - 1):
        forged = _flipped(frozen, place)
        _require_refusal(
            InvalidSignatureError,
            lambda: verify(forged, answers.PAYLOAD, purpose=Purpose.BENCHMARK, key=public),  # noqa: B023
        )


def _check_body(algorithm: str) -> None:
    from latticeward.crypto.body import open_whole_body, seal_body_into, sealed_body_bytes
    from latticeward.crypto.suites import BodyAlgorithm

    row, plain = BodyAlgorithm(algorithm), answers.PAYLOAD

    def opened(body: bytes) -> bytes:
        return open_whole_body(row, body, key=_KEY, header=answers.HEADER, plaintext_bytes=len(plain))

    frozen = b64decode(answers.BODIES[algorithm])
    _require_equal(opened(frozen), plain)
    fresh, state = bytearray(sealed_body_bytes(len(plain))), hashlib.sha256()
    seal_body_into(row, plain, memoryview(fresh), key=_KEY, header=answers.HEADER, state=state)
    _require_equal(opened(bytes(fresh)), plain)
    _require_equal(state.digest(), hashlib.sha256(fresh).digest())
    _require_refusal(DecryptionError, lambda: opened(_flipped(frozen, len(frozen) - 1)))
