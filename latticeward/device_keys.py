"""The four keys of a device, private and public, as one value each.

A key has one role: the authentication pair signs requests (and the ML-DSA one certificate requests and TLS), the
composite key signs what a device says inside messages, the encapsulation key is sealed to. No part of one key may
appear in another, because a composite signature is only as strong as the promise that its halves are never used alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from latticeward.canonical import Fields
from latticeward.crypto.authentication import ED25519
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    AuthenticationVerifyKey,
    ClassicalSigningKey,
    ClassicalVerifyKey,
    CompositeSigningKey,
    CompositeVerifyKey,
    DecapsulationKey,
    EncapsulationKey,
)
from latticeward.crypto.suites import DEFAULT_SUITE, get_suite
from latticeward.errors import KeyUsageError, UnsupportedSuiteError

# A device may have further keys, of other purposes; these four are one set, of one epoch.
DEVICE_ROLES: Final = ("authentication", "classical", "signing", "encapsulation")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePublicKeys:
    """The public halves. ``encapsulation`` is sealed to; the other three verify."""

    authentication: AuthenticationVerifyKey
    classical: ClassicalVerifyKey
    signing: CompositeVerifyKey
    encapsulation: EncapsulationKey

    def to_wire(self) -> dict[str, dict[str, Any]]:
        """Role to ``{"algorithm": text, "public_key": bytes}``."""
        return {
            "authentication": _entry(self.authentication.algorithm, self.authentication.raw),
            "classical": _entry(ED25519, self.classical.raw),
            "signing": _entry(self.signing.algorithm, self.signing.raw),
            "encapsulation": _entry(self.encapsulation.algorithm, self.encapsulation.raw),
        }

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """Read and check four public keys from outside.

        Raises:
            MalformedMessageError: a field is missing, unknown, or a key has another length than its algorithm's.
            UnsupportedSuiteError: an algorithm that this role does not have.
            KeyUsageError: a weak key, or key material shared between roles.
        """
        fields = Fields(value, "device keys")
        authentication = _read(fields.map("authentication"))
        classical = _read(fields.map("classical"), expected=ED25519)
        signing = _read(fields.map("signing"))
        encapsulation = _read(fields.map("encapsulation"))
        fields.end()
        keys = cls(
            authentication=AuthenticationVerifyKey.from_raw(authentication[1], authentication[0]),
            classical=ClassicalVerifyKey.from_raw(classical[1]),
            signing=CompositeVerifyKey.from_raw(signing[1], signing[0]),
            encapsulation=EncapsulationKey.from_raw(encapsulation[1], encapsulation[0]),
        )
        keys._refuse_shared_material()
        return keys

    def matches(self, other: "DevicePublicKeys") -> bool:
        """Whether all four raw keys and algorithms are the same; for comparing records, not for authentication."""
        return self.to_wire() == other.to_wire()

    def _refuse_shared_material(self) -> None:
        composite, sealed_to = self.signing.raw, self.encapsulation.raw
        alone = (self.authentication.raw, self.classical.raw)
        if any(raw in composite for raw in alone) or any(raw in sealed_to for raw in alone):
            raise KeyUsageError("two roles of a device share key material")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceKeys:
    """The private halves; they exist only on the device."""

    authentication: AuthenticationSigningKey
    classical: ClassicalSigningKey
    signing: CompositeSigningKey
    decapsulation: DecapsulationKey

    @classmethod
    def generate(cls, suite: str = DEFAULT_SUITE) -> Self:
        """Four fresh keys of the algorithms of a suite.

        Raises:
            UnsupportedSuiteError: there is no such suite.
        """
        row = get_suite(suite)
        return cls(
            authentication=AuthenticationSigningKey.generate(row.authentication),
            classical=ClassicalSigningKey.generate(),
            signing=CompositeSigningKey.generate(row.signature),
            decapsulation=DecapsulationKey.generate(row.kem),
        )

    @property
    def public(self) -> DevicePublicKeys:
        """The public halves, in the same roles."""
        return DevicePublicKeys(
            authentication=self.authentication.verify_key,
            classical=self.classical.verify_key,
            signing=self.signing.verify_key,
            encapsulation=self.decapsulation.encapsulation_key,
        )


def _entry(algorithm: str, raw: bytes) -> dict[str, Any]:
    return {"algorithm": str(algorithm), "public_key": raw}


def _read(entry: Mapping[str, Any], *, expected: str | None = None) -> tuple[str, bytes]:
    fields = Fields(entry, "device key")
    algorithm, raw = fields.text("algorithm"), fields.bytes("public_key")
    fields.end()
    if expected is not None and algorithm != expected:
        raise UnsupportedSuiteError(f"this role of a device has the algorithm {expected}")
    return algorithm, raw
