"""The device's identity on its disk: its seeds, then, once the authority agreed, certificate and statement.

The seeds are written before the first byte about them is sent, so that a crash in the middle of an enrolment resumes
with the same keys and the same transcript. They rest in the home directory with mode 0600; a machine with a hardware
store puts that directory on it.
"""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from latticeward.agent.files import read_json, require_private, write_json
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    ClassicalSigningKey,
    CompositeSigningKey,
    DecapsulationKey,
)
from latticeward.crypto.suites import DEFAULT_SUITE, get_suite
from latticeward.device_keys import DeviceKeys
from latticeward.errors import CustodyError, LatticewardError

KEYS_FILE: Final = "keys.json"
IDENTITY_FILE: Final = "identity.json"
LOCAL_SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceSecrets:
    """What never leaves the device: its four private keys, and 32 bytes from which its local randomness derives."""

    keys: DeviceKeys
    local_seed: bytes = field(repr=False)
    suite: str = DEFAULT_SUITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An enrolled device.

    Attributes:
        device_id, federation_id: UUID text.
        site: slug of the hospital, as the statement says.
        server: base URL.
        anchor: fingerprint of the pinned trust anchor, 32 bytes.
        epoch: of the present keys.
        secrets: private keys and local seed.
        certificate_chain: DER, leaf first.
        statement: the signed key statement.
    """

    device_id: str
    federation_id: str
    site: str
    server: str
    anchor: bytes
    epoch: int
    secrets: DeviceSecrets
    certificate_chain: tuple[bytes, ...]
    statement: bytes

    def save(self, home: Path) -> None:
        """Write everything but the secrets, which ``load_or_make_secrets`` has written before."""
        write_json(
            home / IDENTITY_FILE,
            {
                "v": 1,
                "device_id": self.device_id,
                "federation_id": self.federation_id,
                "site": self.site,
                "server": self.server,
                "anchor": self.anchor.hex(),
                "epoch": self.epoch,
                "certificate_chain": [base64.b64encode(der).decode("ascii") for der in self.certificate_chain],
                "statement": base64.b64encode(self.statement).decode("ascii"),
            },
        )

    @classmethod
    def load(cls, home: Path) -> Self | None:
        """Read an enrolled identity; None if this home has none yet.

        Raises:
            CustodyError: it is there and incomplete, unreadable, or open to others.
        """
        values = read_json(home / IDENTITY_FILE)
        if values is None:
            return None
        secrets = load_secrets(home)
        if secrets is None:
            raise CustodyError(f"{home} holds an identity without its keys")
        try:
            return cls(
                device_id=values["device_id"],
                federation_id=values["federation_id"],
                site=values["site"],
                server=values["server"],
                anchor=bytes.fromhex(values["anchor"]),
                epoch=int(values["epoch"]),
                secrets=secrets,
                certificate_chain=tuple(base64.b64decode(item) for item in values["certificate_chain"]),
                statement=base64.b64decode(values["statement"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise CustodyError(f"{home / IDENTITY_FILE} does not hold what the agent wrote") from exc


def load_or_make_secrets(home: Path, *, suite: str = DEFAULT_SUITE) -> DeviceSecrets:
    """The secrets of this home, made for a suite and written now if there are none.

    Raises:
        CustodyError: they are there and unreadable, open to others, or made for another suite.
        UnsupportedSuiteError: there is no such suite.
    """
    secrets = load_secrets(home)
    if secrets is not None and secrets.suite != suite:
        raise CustodyError(f"{home} holds keys of the suite {secrets.suite}, not {suite}: use another directory")
    if secrets is None:
        secrets = DeviceSecrets(keys=DeviceKeys.generate(suite), local_seed=os.urandom(LOCAL_SEED_BYTES), suite=suite)
        seeds = {
            "authentication": secrets.keys.authentication.export_seed().hex(),
            "classical": secrets.keys.classical.export_seed().hex(),
            "signing": secrets.keys.signing.export_seed().hex(),
            "decapsulation": secrets.keys.decapsulation.export_seed().hex(),
            "local": secrets.local_seed.hex(),
        }
        write_json(home / KEYS_FILE, {"v": 1, "suite": suite, "seeds": seeds})
    return secrets


def load_secrets(home: Path) -> DeviceSecrets | None:
    """The secrets of this home; None if there are none.

    Raises:
        CustodyError: they are there and unreadable or open to others.
    """
    path = home / KEYS_FILE
    values = read_json(path)
    if values is None:
        return None
    require_private(path)
    try:
        seeds = {role: bytes.fromhex(text) for role, text in values["seeds"].items()}
        # Homes of before there was a choice hold keys of the default suite.
        suite = get_suite(values.get("suite", DEFAULT_SUITE))
        keys = DeviceKeys(
            authentication=AuthenticationSigningKey.from_seed(seeds["authentication"], suite.authentication),
            classical=ClassicalSigningKey.from_seed(seeds["classical"]),
            signing=CompositeSigningKey.from_seed(seeds["signing"], suite.signature),
            decapsulation=DecapsulationKey.from_seed(seeds["decapsulation"], suite.kem),
        )
        return DeviceSecrets(keys=keys, local_seed=seeds["local"], suite=suite.id)
    except (KeyError, TypeError, ValueError, AttributeError, LatticewardError) as exc:
        raise CustodyError(f"{path} does not hold the seeds that the agent wrote") from exc
