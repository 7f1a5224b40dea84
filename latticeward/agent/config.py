"""The agent's settings: one frozen value, from ``agent.toml`` in the home directory and then the environment.

A file line ``poll_seconds = 20`` is overridden by ``LATTICEWARD_AGENT_POLL_SECONDS=20``. The floor is read from the
file's ``[floor]`` table only: a variable of the environment is too easily inherited to decide what may leave a
hospital.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from latticeward.agent.floor import Floor
from latticeward.crypto.suites import DEFAULT_SUITE
from latticeward.errors import MalformedMessageError

FILE_NAME: Final = "agent.toml"
_PREFIX: Final = "LATTICEWARD_AGENT_"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Everything that people may set.

    Attributes:
        home: directory of keys, state and models.
        job: name of the learning job that this machine takes part in.
        site: slug of the hospital whose rows it loads.
        suite: that its keys are made for at enrolment, and the weakest that it accepts then.
        transport: a name of ``TRANSPORTS``.
        ca_file: PEM file of the authorities for the server's TLS certificate; empty takes the system's.
        poll_seconds: how long the server may hold a question open, 0 to 60.
        connect_seconds, read_seconds: time limits of a connection and of a whole answer, which may take a second more
            for each 8 KiB of it; reading waits for a long-poll on top.
        model_limit_bytes: largest model body that is fetched.
        chunks_above_bytes: submissions larger than this are sent in chunks.
        keep_models: model versions that stay on the disk beside the newest.
        log_file: also write the log here; empty writes to standard error only.
        floor: the weakest plan that this hospital accepts.
    """

    home: Path
    job: str = ""
    site: str = ""
    suite: str = DEFAULT_SUITE
    transport: str = "http"
    ca_file: str = ""
    poll_seconds: int = 20
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    model_limit_bytes: int = 512 * 1024 * 1024
    chunks_above_bytes: int = 4 * 1024 * 1024
    keep_models: int = 2
    log_file: str = ""
    floor: Floor = field(default_factory=Floor)

    def __post_init__(self) -> None:
        if not 0 <= self.poll_seconds <= 60:
            raise MalformedMessageError("poll_seconds lies between 0 and 60")
        sizes = (self.keep_models, self.chunks_above_bytes, self.model_limit_bytes - 1)
        if min(self.connect_seconds, self.read_seconds) <= 0 or min(sizes) < 0:
            raise MalformedMessageError("time limits and sizes of the configuration must be positive")

    @classmethod
    def load(cls, home: Path, *, given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Self:
        """Read file, then environment, then what the command line gives.

        Args:
            home: the agent's directory.
            environment: variables that start with ``LATTICEWARD_AGENT_`` count.
            given: values of the command line; empty ones are left out.

        Raises:
            MalformedMessageError: a name that is not a setting, or a value of the wrong kind.
        """
        path = home / FILE_NAME
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except tomllib.TOMLDecodeError as exc:
            raise MalformedMessageError(f"{path} is not TOML: {exc}") from exc
        floor = Floor.from_mapping(values.pop("floor", {}))
        defaults = {item.name: item.default for item in fields(cls) if item.name not in ("home", "floor")}
        for name in defaults:
            if (text := environment.get(_PREFIX + name.upper())) is not None:
                values[name] = text
        values |= {name: value for name, value in given.items() if value not in (None, "")}
        unknown = values.keys() - defaults.keys()
        if unknown:
            raise MalformedMessageError(f"{path} has no setting named {', '.join(sorted(unknown))}")
        read = {name: _typed(name, value, defaults[name]) for name, value in values.items()}
        return cls(home=home, floor=floor, **read)


def _typed(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    try:
        if isinstance(value, bool):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError) as exc:
        raise MalformedMessageError(f"the setting {name} must be a {kind.__name__}") from exc
