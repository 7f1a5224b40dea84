"""A simulated federation, and after every scenario the auditor's question: does every round give the same bits?"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from tests.devices.conftest import nothing_remembered
from tests.simulation.federation import FederationSimulator

__all__ = ["nothing_remembered"]


@pytest.fixture
def simulator(
    transactional_db: None, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FederationSimulator]:
    settings.BLOB_DIR = tmp_path / "blobs"
    with FederationSimulator.running(tmp_path / "devices") as simulator:
        yield simulator
        simulator.audit()
