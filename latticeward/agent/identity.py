"""The device's identity on its disk: its seeds, then, once the authority agreed, certificate and statement.

Each epoch of keys has a file of its own, and ``identity.json`` names the epoch that counts: replacing that one file is
the switch to new keys.

The seeds are written before the first byte about them is sent, so that a crash in the middle of an enrolment resumes
with the same keys and the same transcript. They rest in the home directory with mode 0600; a machine with a hardware
store puts that directory on it.
"""

import base64
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EarlierKeys:
    """Keys of an epoch before the present one, kept to open what was sealed to them: until when, aware UTC."""

    epoch: int
    until: datetime
    decapsulation: DecapsulationKey


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
        earlier: keys of earlier epochs that still open what was sealed to them.
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
    earlier: tuple[EarlierKeys, ...] = ()

    def opener(self, key_id: bytes) -> tuple[int, DecapsulationKey]:
        """Epoch and key that a stanza for this device opens with; the present ones for a key id that is not ours.

        Args:
            key_id: that the stanza is sealed to, 32 bytes.
        """
        for one in self.earlier:
            if one.decapsulation.encapsulation_key.key_id == key_id:
                return one.epoch, one.decapsulation
        return self.epoch, self.secrets.keys.decapsulation

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
                "earlier": [{"epoch": one.epoch, "until": one.until.isoformat()} for one in self.earlier],
            },
        )

    def forget_earlier(self, home: Path, *, now: datetime) -> Self:
        """Drop the earlier keys whose overlap has ended, from the disk as well."""
        over = [one for one in self.earlier if one.until <= now]
        if not over:
            return self
        kept = replace(self, earlier=tuple(one for one in self.earlier if one.until > now))
        kept.save(home)
        for one in over:
            remove_secrets(home, epoch=one.epoch)
        return kept

    @classmethod
    def load(cls, home: Path) -> Self | None:
        """Read an enrolled identity; None if this home has none yet.

        Raises:
            CustodyError: it is there and incomplete, unreadable, or open to others.
        """
        values = read_json(home / IDENTITY_FILE)
        if values is None:
            return None
        try:
            epoch = int(values["epoch"])
            secrets = load_secrets(home, epoch=epoch)
            if secrets is None:
                raise CustodyError(f"{home} holds an identity without its keys")
            return cls(
                device_id=values["device_id"],
                federation_id=values["federation_id"],
                site=values["site"],
                server=values["server"],
                anchor=bytes.fromhex(values["anchor"]),
                epoch=epoch,
                secrets=secrets,
                certificate_chain=tuple(base64.b64decode(item) for item in values["certificate_chain"]),
                statement=base64.b64decode(values["statement"]),
                earlier=tuple(
                    EarlierKeys(
                        epoch=row["epoch"],
                        until=datetime.fromisoformat(row["until"]),
                        decapsulation=known.keys.decapsulation,
                    )
                    for row in values.get("earlier", ())
                    if (known := load_secrets(home, epoch=row["epoch"])) is not None
                ),
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
    return secrets or make_secrets(home, suite=suite, epoch=1, local_seed=os.urandom(LOCAL_SEED_BYTES))


def make_secrets(home: Path, *, suite: str, epoch: int, local_seed: bytes) -> DeviceSecrets:
    """Fresh keys of an epoch, written before they are returned.

    Args:
        local_seed: 32 bytes; the same in every epoch of a device, since what it gave to a base model follows from it.

    Raises:
        UnsupportedSuiteError: there is no such suite.
    """
    secrets = DeviceSecrets(keys=DeviceKeys.generate(suite), local_seed=local_seed, suite=suite)
    seeds = {
        "authentication": secrets.keys.authentication.export_seed().hex(),
        "classical": secrets.keys.classical.export_seed().hex(),
        "signing": secrets.keys.signing.export_seed().hex(),
        "decapsulation": secrets.keys.decapsulation.export_seed().hex(),
        "local": secrets.local_seed.hex(),
    }
    write_json(_keys_path(home, epoch), {"v": 1, "suite": suite, "seeds": seeds})
    return secrets


def remove_secrets(home: Path, *, epoch: int) -> None:
    """Erase the keys of an epoch, if there are any."""
    _keys_path(home, epoch).unlink(missing_ok=True)


def _keys_path(home: Path, epoch: int) -> Path:
    # The first epoch's file is written before there is an epoch to speak of.
    return home / (KEYS_FILE if epoch == 1 else f"keys-{epoch}.json")


def load_secrets(home: Path, *, epoch: int = 1) -> DeviceSecrets | None:
    """The secrets of an epoch; None if there are none.

    Raises:
        CustodyError: they are there and unreadable or open to others.
    """
    path = _keys_path(home, epoch)
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
