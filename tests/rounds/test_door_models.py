"""Model bodies at the door: to those who hold a stanza, whole and in pieces."""

import pytest

from rounds import door
from rounds.storage import read_blob
from tests.rounds.cohort import Cohort
from tests.rounds.line import Line

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_model_body_leaves_in_pieces_and_arrives_whole(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    published = cohort.whole_round(cohort.train())
    assert published.model is not None
    monkeypatch.setattr(door, "PIECE_BYTES", 7)
    answer = Line(cohort.hospitals[0].machine).ask("GET", f"/api/v1/models/{published.model.id}/body")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.body == bytes(read_blob(published.model.body_blob))
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.pieces_sent == -(-len(answer.body) // 7)
