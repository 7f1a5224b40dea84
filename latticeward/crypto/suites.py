"""The table of cipher suites: what each is made of, how strong it is, and whether it may still be used.

A suite is chosen whole. Parts are never mixed by a message, because a receiver that lets a message choose its parts
lets an attacker choose the weakest. To add a suite is to add a row to ``_ROWS``; a new part is a member here and a row
in the table of its own file (``kem.py``, ``composite.py``, ``body.py``). Suites with parts of optional providers
(``providers.py``) are experimental and never in service. Keys and bytes do not live here, and this file imports no
cryptography, so that a page or a check can read the table cheaply.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from latticeward.errors import UnsupportedSuiteError


class KemAlgorithm(StrEnum):
    """How a content key is sealed to a recipient: HPKE base mode with this KEM and its KDF, and AES-256-GCM."""

    MLKEM768_X25519 = "mlkem768-x25519"
    MLKEM1024_P384 = "mlkem1024-p384"
    X25519 = "x25519"
    MLKEM768 = "mlkem768"
    MLKEM768_X25519_HQC192 = "mlkem768-x25519+hqc-192"  # experimental: a second KEM inside the first


class KdfAlgorithm(StrEnum):
    HKDF_SHA256 = "hkdf-sha256"
    HKDF_SHA384 = "hkdf-sha384"


class BodyAlgorithm(StrEnum):
    """How the body is encrypted: a stream of 16 KiB chunks that commits to its key."""

    COBBLESTONE_256 = "cobblestone-256"
    ASCON_STREAM = "ascon-aead128-stream"


class SignatureAlgorithm(StrEnum):
    MLDSA65_ED25519 = "mldsa65-ed25519"
    MLDSA65_P384 = "mldsa65-p384"
    MLDSA87_P384 = "mldsa87-p384"
    ED25519 = "ed25519"
    MLDSA65 = "mldsa65"
    FALCON512_ED25519 = "falcon512-ed25519"  # experimental, as the next two
    FALCON1024_P384 = "falcon1024-p384"
    SLHDSA128F_ED25519 = "slhdsa128f-ed25519"


class AuthenticationAlgorithm(StrEnum):
    """What signs a device's requests and stands in its certificate, beside Ed25519."""

    MLDSA65 = "ml-dsa-65"
    MLDSA87 = "ml-dsa-87"


class SuiteStatus(StrEnum):
    """What a suite may still do. Only the first two make new things in service."""

    PREFERRED = "preferred"
    ACCEPTED = "accepted"
    RETIRED = "retired"  # opens and verifies what was made before; makes nothing
    FORBIDDEN = "forbidden"  # does nothing at all
    BENCHMARK = "benchmark"  # makes and opens inside ``benchmark_context`` only
    EXPERIMENTAL = "experimental"  # the same, and needs an optional provider


DigestName = Literal["sha256", "sha512"]

MAKEABLE: Final = frozenset({SuiteStatus.PREFERRED, SuiteStatus.ACCEPTED})
OUT_OF_SERVICE: Final = frozenset({SuiteStatus.BENCHMARK, SuiteStatus.EXPERIMENTAL})
_in_benchmark: ContextVar[bool] = ContextVar("latticeward_benchmark", default=False)


@contextmanager
def benchmark_context() -> Iterator[None]:
    """Let benchmark suites work inside the ``with`` block, in this thread or task only.

    The comparison with classical and with purely post-quantum parts needs them. No setting and no message can open
    this context, so that nothing from outside can lower a verifier to one half of the hybrid.
    """
    token = _in_benchmark.set(True)
    try:
        yield
    finally:
        _in_benchmark.reset(token)


def in_benchmark_context() -> bool:
    """Whether the caller is inside ``benchmark_context``."""
    return _in_benchmark.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One row.

    Attributes:
        id: name on the wire and in plans.
        wire_id: number of the suite, 1 to 255, never used again for another.
        title: for people.
        kem, kdf, body, body_digest, signature: the parts; ``body_digest`` hashes header and sealed body.
        authentication: of the key that a device of this suite authenticates with.
        nist_category: what remains if the classical halves fall: 0 (nothing), 1, 3 or 5, the weakest part's.
        classical_bits: what remains if the post-quantum halves fall, in bits against a classical attacker; 0 nothing.
        strength: order for floors; a suite below the floor's strength is refused.
        status: see ``SuiteStatus``.
        introduced, retired: first day of use, and first day of no new use.
        experimental: parts that optional providers bring, by their ids in ``providers.EXPERIMENTAL``; see
            ``providers.suite_state`` for whether they are installed.
        note: one sentence for the documentation.
    """

    id: str
    wire_id: int
    title: str
    kem: KemAlgorithm
    kdf: KdfAlgorithm
    body: BodyAlgorithm
    body_digest: DigestName
    signature: SignatureAlgorithm
    nist_category: int
    classical_bits: int
    strength: int
    status: SuiteStatus
    introduced: date
    authentication: AuthenticationAlgorithm = AuthenticationAlgorithm.MLDSA65
    retired: date | None = None
    experimental: tuple[str, ...] = ()
    note: str

    def require_makeable(self) -> None:
        """Let only suites through that may make new messages.

        Raises:
            UnsupportedSuiteError: retired, forbidden, or for benchmarks and this is not one.
        """
        if self.status in MAKEABLE or (self.status in OUT_OF_SERVICE and in_benchmark_context()):
            return
        raise UnsupportedSuiteError(f"the suite {self.id} is {self.status} and makes nothing new")

    def require_openable(self) -> None:
        """Let only suites through whose messages may be verified and opened.

        Raises:
            UnsupportedSuiteError: forbidden, or for benchmarks and this is not one.
        """
        if self.status is not SuiteStatus.RETIRED:
            self.require_makeable()


_ROWS: Final = (
    Suite(
        id="hybrid",
        wire_id=0x01,
        title="Hybrid",
        kem=KemAlgorithm.MLKEM768_X25519,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha256",
        signature=SignatureAlgorithm.MLDSA65_ED25519,
        nist_category=3,
        classical_bits=128,
        strength=30,
        status=SuiteStatus.PREFERRED,
        introduced=date(2026, 11, 1),
        note="The default: holds while either the lattice or the elliptic-curve half holds.",
    ),
    Suite(
        id="high",
        wire_id=0x02,
        title="Hybrid, high",
        kem=KemAlgorithm.MLKEM1024_P384,
        kdf=KdfAlgorithm.HKDF_SHA384,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha512",
        signature=SignatureAlgorithm.MLDSA87_P384,
        authentication=AuthenticationAlgorithm.MLDSA87,
        nist_category=5,
        classical_bits=192,
        strength=40,
        status=SuiteStatus.ACCEPTED,
        introduced=date(2026, 11, 1),
        note="Category 5 and P-384 throughout; sealing costs about five times the default's.",
    ),
    Suite(
        id="constrained",
        wire_id=0x03,
        title="Hybrid, constrained devices",
        kem=KemAlgorithm.MLKEM768_X25519,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.ASCON_STREAM,
        body_digest="sha256",
        signature=SignatureAlgorithm.MLDSA65_ED25519,
        nist_category=1,
        classical_bits=128,
        strength=20,
        status=SuiteStatus.ACCEPTED,
        introduced=date(2026, 11, 1),
        note="Bodies in Ascon-AEAD128 (SP 800-232) for processors without AES instructions; 128-bit body keys.",
    ),
    Suite(
        id="pq-only",
        wire_id=0x81,
        title="Post-quantum alone",
        kem=KemAlgorithm.MLKEM768,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha256",
        signature=SignatureAlgorithm.MLDSA65,
        nist_category=3,
        classical_bits=0,
        strength=10,
        status=SuiteStatus.BENCHMARK,
        introduced=date(2026, 11, 1),
        note="Shows what the lattice half costs; never in service.",
    ),
    Suite(
        id="classical",
        wire_id=0x82,
        title="Classical alone",
        kem=KemAlgorithm.X25519,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha256",
        signature=SignatureAlgorithm.ED25519,
        nist_category=0,
        classical_bits=128,
        strength=0,
        status=SuiteStatus.BENCHMARK,
        introduced=date(2026, 11, 1),
        note="The base line of the overhead figures, and the far end of migration tests; never in service.",
    ),
    Suite(
        id="experimental-falcon",
        wire_id=0xC1,
        title="Experiment: Falcon-512",
        kem=KemAlgorithm.MLKEM768_X25519,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha256",
        signature=SignatureAlgorithm.FALCON512_ED25519,
        nist_category=1,
        classical_bits=128,
        strength=5,
        status=SuiteStatus.EXPERIMENTAL,
        introduced=date(2026, 11, 21),
        experimental=("falcon-512",),
        note="A fifth of the default's signature bytes; FN-DSA's standard is not final.",
    ),
    Suite(
        id="experimental-falcon-high",
        wire_id=0xC2,
        title="Experiment: Falcon-1024",
        kem=KemAlgorithm.MLKEM1024_P384,
        kdf=KdfAlgorithm.HKDF_SHA384,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha512",
        signature=SignatureAlgorithm.FALCON1024_P384,
        authentication=AuthenticationAlgorithm.MLDSA87,
        nist_category=5,
        classical_bits=192,
        strength=5,
        status=SuiteStatus.EXPERIMENTAL,
        introduced=date(2026, 11, 21),
        experimental=("falcon-1024",),
        note="The suite `high` with Falcon-1024 in the place of ML-DSA-87.",
    ),
    Suite(
        id="experimental-hash",
        wire_id=0xC3,
        title="Experiment: hash-based signatures",
        kem=KemAlgorithm.MLKEM768_X25519,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha256",
        signature=SignatureAlgorithm.SLHDSA128F_ED25519,
        nist_category=1,
        classical_bits=128,
        strength=5,
        status=SuiteStatus.EXPERIMENTAL,
        introduced=date(2026, 11, 21),
        experimental=("slh-dsa-sha2-128f",),
        note="SLH-DSA (FIPS 205): no lattice in the signature, at five times the bytes.",
    ),
    Suite(
        id="experimental-hqc",
        wire_id=0xC4,
        title="Experiment: a code-based KEM inside",
        kem=KemAlgorithm.MLKEM768_X25519_HQC192,
        kdf=KdfAlgorithm.HKDF_SHA256,
        body=BodyAlgorithm.COBBLESTONE_256,
        body_digest="sha256",
        signature=SignatureAlgorithm.MLDSA65_ED25519,
        nist_category=3,
        classical_bits=128,
        strength=5,
        status=SuiteStatus.EXPERIMENTAL,
        introduced=date(2026, 11, 21),
        experimental=("hqc-192",),
        note="Content keys stay sealed while the lattice, the curve or the code holds; HQC's standard is not final.",
    ),
)

SUITES: Final[Mapping[str, Suite]] = MappingProxyType({row.id: row for row in _ROWS})
DEFAULT_SUITE: Final = "hybrid"


def get_suite(suite_id: str) -> Suite:
    """The row of an id; says nothing about whether it may be used.

    Raises:
        UnsupportedSuiteError: no such row.
    """
    try:
        return SUITES[suite_id]
    except (KeyError, TypeError) as error:
        raise UnsupportedSuiteError(f"no suite is called {str(suite_id)[:40]!r}") from error
