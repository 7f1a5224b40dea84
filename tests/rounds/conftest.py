"""A cohort of four enrolled hospitals, and nothing remembered from the test before."""

from pathlib import Path

import pytest
from pytest_django import Settings

from tests.devices.conftest import nothing_remembered
from tests.rounds.cohort import Cohort

__all__ = ["nothing_remembered"]


@pytest.fixture
def cohort(db: None, settings: Settings, tmp_path: Path) -> Cohort:
    settings.BLOB_DIR = tmp_path / "blobs"
    return Cohort.enrol()
