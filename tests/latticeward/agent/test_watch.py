"""The smartwatch job: plain arrays, a clinic's own patients, and windows that do not reach over the border."""

import zipfile

import numpy as np
import pytest

from bench.federation import run_federation
from bench.references import evaluate_vector, reference_results
from latticeward.agent.jobs import JOBS, watch
from latticeward.errors import NotFoundError

ROWS = {
    "harbour-clinic": (954, 223),
    "meadow-clinic": (846, 183),
    "hill-clinic": (688, 163),
    "river-clinic": (685, 163),
}


def test_the_file_holds_plain_arrays_and_is_never_unpickled() -> None:
    with np.load(watch.DATA_FILE, allow_pickle=False) as data:
        assert sorted(data) == ["exercise", "lengths", "samples", "subject", "unit"]
        assert not any(data[name].dtype.hasobject for name in data)
        assert len(data["lengths"]) == 140 and data["lengths"].sum() == len(data["samples"])
        assert sorted(set(data["subject"].tolist())) == list(range(1, 11))
    with zipfile.ZipFile(watch.DATA_FILE) as archive:
        assert sum(item.compress_size for item in archive.infolist()) < 1_200_000
    assert (watch.DATA_FILE.parent / "LICENSE-watch.txt").read_text().startswith("Copyright (c) 2018, David M. Burns")


@pytest.mark.parametrize("site", ROWS)
def test_a_clinic_has_its_windows_of_all_seven_exercises(site: str) -> None:
    data = JOBS["watch"].load_site(site)
    assert (data.num_examples, data.test_y.size) == ROWS[site]
    assert data.train_x.shape[1] == data.test_x.shape[1] == 600
    assert data.train_x.dtype == np.float32 and np.isfinite(data.train_x).all()
    assert set(data.train_y.tolist()) == set(data.test_y.tolist()) == set(range(7))


def test_no_sample_is_in_both_parts() -> None:
    # Windows overlap within a part. The last second of a training window never opens a test window.
    for site in ROWS:
        data = JOBS["watch"].load_site(site)
        ends = {row.reshape(6, 100)[:, -25:].tobytes() for row in data.train_x}
        starts = {row.reshape(6, 100)[:, :25].tobytes() for row in data.test_x}
        assert not ends & starts


def test_no_patient_is_at_two_clinics() -> None:
    whole = [patient for patients in watch._PATIENTS.values() for patient in patients]
    assert sorted(whole) == list(range(1, 11))
    with pytest.raises(NotFoundError):
        JOBS["watch"].load_site("cleveland")


@pytest.mark.torch
@pytest.mark.slow
def test_federation_is_within_two_points_of_the_same_algorithm_in_one_process() -> None:
    pytest.importorskip("torch")
    rounds = JOBS["watch"].default_plan["rounds"]
    ring = run_federation("watch", rounds=rounds, through_ring=True)
    plain = run_federation("watch", rounds=rounds, through_ring=False)
    pooled = evaluate_vector("watch", ring.vectors[-1])["pooled"]
    assert abs(pooled - evaluate_vector("watch", plain.vectors[-1])["pooled"]) < 0.02
    assert (ring.clipped, ring.saturated) == (0, 0)
    references = reference_results("watch")
    assert pooled >= 0.9
    assert pooled > max(references["single"].values()) + 0.05
