"""The environment variables, read once, typed, and refused when they make no sense.

Every variable starts with ``LATTICEWARD_``; any secret may come from a file instead by ``LATTICEWARD_<NAME>_FILE``.
``mode`` changes defaults only; what production must not do is refused by ``controlplane/checks.py``.
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Environment(BaseSettings):
    """What the operator decides; everything else in ``settings.py`` follows from it."""

    model_config = SettingsConfigDict(env_prefix="LATTICEWARD_", extra="ignore")

    mode: Literal["development", "production"] = "development"
    role: Literal["all", "web", "intake", "aggregate", "authority"] = Field(
        "all", description="which private keys this process may read; `all` is the embedded single process"
    )
    var: Path = Field(Path("var"), description="folder of database, blobs, vault, logs")
    federation: str = Field("federation", description="slug of this installation's federation; stands in certificates")
    federation_name: str = Field("Hospital federation", description="its name for people")
    profile: Literal["standard", "cnsa2"] = Field(
        "standard", description="algorithms of a new authority; `cnsa2`: ML-DSA-87 everywhere, suite `high` only"
    )
    suites: str = Field("hybrid", description="comma-separated suites that new devices and plans may use")
    claim_hours: int = Field(24, ge=1, le=720, description="how long a claim code is good, at most")
    suite_floor: str = Field("hybrid", description="the weakest suite that is accepted from anybody")
    secret_key: str = Field("", description="Django's signing secret; made and kept in the var folder if empty")
    public_url: str = Field("http://127.0.0.1:8750", description="address that devices and browsers use")
    allowed_hosts: str = Field("127.0.0.1,localhost,[::1],testserver", description="comma-separated host names")
    database_url: str = Field("", description="postgresql://user:password@host:port/name; empty: SQLite in var")
    broker_url: str = Field("memory://", description="amqp://…; memory:// runs the workers inside the server")
    database_connections: int = Field(16, ge=4, description="most connections of one process to PostgreSQL")
    live_url: str = Field("", description="redis://… for events and nonces between processes; empty: in-process")
    vault: Literal["file", "env"] = "file"
    blob_path: Path | None = Field(None, description="folder of sealed blobs; default: blobs in var")
    max_update_bytes: int = Field(256 * 1024 * 1024, ge=1024, description="largest envelope a device may send")
    max_open_upload_bytes: int = Field(
        8 * 1024**3, ge=1024, description="room for uploads in chunks that are not whole yet, of all devices"
    )
    max_connections: int = Field(2048, ge=16, description="connections and requests that one web process takes at once")
    trusted_proxies: int = Field(
        0, ge=0, le=8, description="proxies in front whose entries in X-Forwarded-For are believed"
    )
    limit_person: int = Field(6_000, ge=0, description="REST requests of one person a minute; 0: no limit")
    limit_device: int = Field(3_000, ge=0, description="signed requests of one device a minute; 0: no limit")
    limit_enrolment: int = Field(600, ge=0, description="first calls of enrolments by one address a minute")
    limit_public: int = Field(6_000, ge=0, description="trust, revocation and status answers to one address a minute")
    limit_sign_in: int = Field(20, ge=0, description="attempts to sign in, by one address and for one name, a minute")
    limit_refused: int = Field(1_200, ge=0, description="refused signatures from one address a minute")
    worker_concurrency: int = Field(2, ge=1, le=64)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="before")
    @classmethod
    def read_secret_files(cls, values: dict[str, object]) -> dict[str, object]:
        """Take ``secret_key`` and the service addresses from files where ``…_FILE`` names one."""
        for name in ("secret_key", "database_url", "broker_url", "live_url"):
            path = os.environ.get(f"LATTICEWARD_{name.upper()}_FILE")
            if path:
                values[name] = Path(path).read_text(encoding="utf-8").strip()
        return values

    @model_validator(mode="after")
    def follow_the_profile(self) -> Self:
        """The profile ``cnsa2`` knows one suite; whoever names a weaker one is refused at the start (E007)."""
        if self.profile == "cnsa2":
            for name in {"suites", "suite_floor"} - self.model_fields_set:
                setattr(self, name, "high")
        return self

    @model_validator(mode="after")
    def refuse_half_embedded(self) -> Self:
        """Several processes need a shared live channel, or events and nonces would stay in one of them."""
        if self.broker_url != "memory://" and not self.live_url:
            raise ValueError("LATTICEWARD_BROKER_URL is set, so LATTICEWARD_LIVE_URL (redis://…) is needed as well")
        return self
