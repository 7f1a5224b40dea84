"""Optional providers of experimental algorithms, found without ever building or downloading one.

Everything in service comes from ``cryptography``. The algorithms here are for measurements and for a look ahead:
their standards are not final, or their code is not audited, and each row says so. They are parts of the experimental
suites, which no verifier in service accepts; a process that never sees such a suite does not look for a provider.

Importing the liboqs wrapper where no liboqs is installed makes it wait, clone and build one, and end the process when
that fails. So its look-ups are repeated here, up to loading the library, and it is imported only when they succeed.
"""

import ctypes
import ctypes.util
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final, Literal

from latticeward.crypto.provider_adapters import KEM_ADAPTERS, SIGNATURE_ADAPTERS, KemScheme, SignatureScheme
from latticeward.crypto.suites import BodyAlgorithm, Suite
from latticeward.errors import UnsupportedSuiteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A package that may be there. ``find`` says whether it can be imported without side effects."""

    name: str
    distribution: str
    module: str
    how_to_install: str
    find: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """What was found: ``sentence`` is for people and, when it is missing, says how to install it."""

    name: str
    is_installed: bool
    version: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentalAlgorithm:
    """One row.

    Attributes:
        id: our name.
        kind: ``signature`` or ``kem``.
        title: for people; never the name of a standard that is not final.
        names: provider to its name of the algorithm, in the order of preference.
        nist_category: claimed.
        public_bytes, output_bytes: lengths of public key and of (the longest) signature or ciphertext.
        note: why it is experimental.
    """

    id: str
    kind: Literal["signature", "kem"]
    title: str
    names: Mapping[str, str]
    nist_category: int
    public_bytes: int
    output_bytes: int
    note: str
    status: Literal["experimental"] = "experimental"

    @property
    def state(self) -> ProviderState:
        """The first provider that is installed, else the first one's state with what to do."""
        states = [provider_state(name) for name in self.names]
        return next((state for state in states if state.is_installed), states[0])


_NOT_FINAL: Final = "the standard is not final; this is the submission's algorithm, without a context string"
_UNAUDITED: Final = "a final standard (FIPS 205), by code whose publisher calls it unaudited"


def _slh(variant: str, category: int, public_bytes: int, output_bytes: int) -> ExperimentalAlgorithm:
    return ExperimentalAlgorithm(
        id=f"slh-dsa-sha2-{variant}",
        kind="signature",
        title=f"SLH-DSA-SHA2-{variant}",
        names={"pqcrypto": f"slh_dsa_sha2_{variant}", "liboqs": f"SLH_DSA_PURE_SHA2_{variant.upper()}"},
        nist_category=category,
        public_bytes=public_bytes,
        output_bytes=output_bytes,
        note=_UNAUDITED,
    )


def _row(
    algorithm: str, kind: Literal["signature", "kem"], names: Mapping[str, str], sizes: tuple[int, int, int]
) -> ExperimentalAlgorithm:
    category, public_bytes, output_bytes = sizes
    return ExperimentalAlgorithm(
        id=algorithm.lower(),
        kind=kind,
        title=algorithm,
        names=names,
        nist_category=category,
        public_bytes=public_bytes,
        output_bytes=output_bytes,
        note=_NOT_FINAL,
    )


EXPERIMENTAL: Final[Mapping[str, ExperimentalAlgorithm]] = MappingProxyType(
    {
        row.id: row
        for row in (
            # The padded form: every signature has one length, so nothing about the key shows in it.
            _row("Falcon-512", "signature", {"liboqs": "Falcon-padded-512"}, (1, 897, 666)),
            _row("Falcon-1024", "signature", {"liboqs": "Falcon-padded-1024"}, (5, 1793, 1280)),
            _slh("128s", 1, 32, 7_856),
            _slh("128f", 1, 32, 17_088),
            _slh("192s", 3, 48, 16_224),
            _slh("256s", 5, 64, 29_792),
            _row("HQC-192", "kem", {"pqcrypto": "hqc_192", "liboqs": "HQC-3"}, (3, 4_514, 8_978)),
        )
    }
)


def provider_state(name: str) -> ProviderState:
    """Look for a provider; safe at any time, remembered for the process.

    Raises:
        UnsupportedSuiteError: no provider is called that.
    """
    if name not in PROVIDERS:
        raise UnsupportedSuiteError(f"no provider is called {name[:40]!r}")
    return _look(name)


def signature_scheme(algorithm: str) -> SignatureScheme:
    """An experimental signature algorithm, ready to use.

    Raises:
        UnsupportedSuiteError: unknown, a KEM, or its provider is not installed; the message says how to install it.
    """
    row, provider = _installed(algorithm, "signature")
    return SIGNATURE_ADAPTERS[provider](_load(provider), row.names[provider])


def kem_scheme(algorithm: str) -> KemScheme:
    """An experimental KEM, ready to use.

    Raises:
        UnsupportedSuiteError: as ``signature_scheme``.
    """
    row, provider = _installed(algorithm, "kem")
    return KEM_ADAPTERS[provider](_load(provider), row.names[provider])


def suite_state(suite: Suite) -> str:
    """One sentence for a row of the suites' table: what it may do here, and what is missing to try or to speed it."""
    sentences = [EXPERIMENTAL[name].state.sentence for name in suite.experimental]
    if suite_is_slow(suite):
        # Imported here, as everywhere: processes that never see this suite need not load its lanes.
        from latticeward.crypto.ascon import implementation

        sentences.append(f"slow here ({implementation()}): python -m latticeward.build_kernels needs a C compiler")
    return f"{suite.status}: {'; '.join(sentences)}" if sentences else suite.status.value


def suite_is_slow(suite: Suite) -> bool:
    """Whether a part of the suite has no compiled form here, so that bodies take five to forty times as long."""
    if suite.body is not BodyAlgorithm.ASCON_STREAM:
        return False
    from latticeward.crypto.ascon import is_compiled

    return not is_compiled()


def _installed(algorithm: str, kind: str) -> tuple[ExperimentalAlgorithm, str]:
    row = EXPERIMENTAL.get(algorithm)
    if row is None or row.kind != kind:
        raise UnsupportedSuiteError(f"no experimental {kind} is called {algorithm[:40]!r}")
    state = row.state
    if not state.is_installed:
        raise UnsupportedSuiteError(f"{row.title}: {state.sentence}")
    return row, state.name


# --- finding -----------------------------------------------------------------------------------------------------


def _find_liboqs() -> bool:
    if importlib.util.find_spec("oqs") is None:
        return False
    return any(_loads(candidate) for candidate in _liboqs_candidates())


def _liboqs_candidates() -> list[str]:
    """Where the wrapper looks on Linux, in its order: the system's finder, then its own folder."""
    found = [ctypes.util.find_library("liboqs"), ctypes.util.find_library("oqs")]
    home = os.environ.get("OQS_INSTALL_PATH")
    folder = Path(home) if home is not None else Path.home() / "_oqs"
    files = [folder / "lib" / "liboqs.so", folder / "lib64" / "liboqs.so"]
    return [name for name in found if name] + [str(file.absolute()) for file in files if file.is_file()]


def _loads(library: str) -> bool:
    # A file that is there and cannot be loaded (another architecture) would send the wrapper on to its build.
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _find_pqcrypto() -> bool:
    # Versions before 1.0 are other code with another surface.
    return importlib.util.find_spec("pqcrypto") is not None and not _version("pqcrypto").startswith("0.")


PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType(
    {
        "liboqs": Provider(
            name="liboqs",
            distribution="liboqs-python",
            module="oqs",
            how_to_install=(
                "build liboqs as a shared library, install it for the system or under ~/_oqs (OQS_INSTALL_PATH), "
                "and pip install liboqs-python"
            ),
            find=_find_liboqs,
        ),
        "pqcrypto": Provider(
            name="pqcrypto",
            distribution="pqcrypto",
            module="pqcrypto",
            how_to_install="pip install pqcrypto==1.0.0",
            find=_find_pqcrypto,
        ),
    }
)


@cache
def _look(name: str) -> ProviderState:
    provider = PROVIDERS[name]
    if provider.find():
        found = _version(provider.distribution)
        return ProviderState(
            name=name, is_installed=True, version=found, sentence=f"{provider.distribution} {found} is installed"
        )
    return ProviderState(
        name=name,
        is_installed=False,
        version="",
        sentence=f"{name} is not installed: {provider.how_to_install}",
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


@cache
def _load(name: str) -> ModuleType:
    provider = PROVIDERS[name]
    try:
        # The wrapper of liboqs prints to standard output, which belongs to our commands.
        with redirect_stdout(StringIO()):
            return importlib.import_module(provider.module)
    except (ImportError, OSError, RuntimeError, SystemExit) as error:
        raise UnsupportedSuiteError(f"{name} is there and cannot be loaded: {type(error).__name__}") from error
