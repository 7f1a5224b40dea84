"""Two published versions of a training that has ended, as rows."""

from pathlib import Path

import pytest
from pytest_django import Settings

from rounds.models import ModelVersion, Training
from tests.devices.conftest import nothing_remembered
from tests.frontend import scene
from tests.rounds.cohort import Cohort

__all__ = ["nothing_remembered"]


@pytest.fixture
def training(db: None) -> Training:
    made = scene.make_training(scene.make_federation())
    scene.run_round(made, 0.5)
    scene.run_round(made, 0.7)
    scene.complete(made)
    return made


@pytest.fixture
def older(training: Training) -> ModelVersion:
    return training.models.get(number=1)


@pytest.fixture
def newer(training: Training) -> ModelVersion:
    return training.models.get(number=2)


@pytest.fixture
def cohort(db: None, settings: Settings, tmp_path: Path) -> Cohort:
    settings.BLOB_DIR = tmp_path / "blobs"
    return Cohort.enrol()
