import time

import pytest

from tests.rounds.cohort import Cohort
from tests.rounds.line import Line

pytestmark = pytest.mark.django_db(transaction=True)
def test_x(cohort: Cohort) -> None:
    t=time.perf_counter()
    current = cohort.open_round(cohort.train())
    l=Line(cohort.hospitals[0].machine)
    a=l.ask("GET","/api/v1/work")
    print(a)
    print(l.ask("POST", f"/api/v1/rounds/{current.id}/join", body=b"{}"))
    print(time.perf_counter()-t)
    print(l.ask("GET","/api/v1/work", "wait=nan&after="+a.json["token"]))
    a=l.ask("GET","/api/v1/work")
    print(l.ask("GET","/api/v1/work", "wait=nan&after="+a.json["token"]))
