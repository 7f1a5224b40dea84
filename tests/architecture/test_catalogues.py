"""Tables that must not drift apart."""

import re
from pathlib import Path

import pytest

from controlplane.audit.events import EVENTS
from controlplane.errors import PROBLEMS
from controlplane.management.commands.document import lifecycle_document
from frontend.words import sentence_of_code
from latticeward import errors
from latticeward.lifecycle import MACHINES, Machine

ROOT = Path(__file__).resolve().parents[2]


def every_error(root: type[errors.LatticewardError]) -> list[type[errors.LatticewardError]]:
    return [root, *(found for child in root.__subclasses__() for found in every_error(child))]


def test_every_error_has_a_status_and_a_sentence() -> None:
    assert set(every_error(errors.LatticewardError)) == set(PROBLEMS)


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in every_error(errors.LatticewardError)]
    assert len(codes) == len(set(codes))


def test_every_transition_is_audited_under_a_described_event() -> None:
    named = {row.audit_event for machine in MACHINES for row in machine.rows}
    assert named <= set(EVENTS), named - set(EVENTS)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_state_can_be_reached_and_every_row_is_unambiguous(machine: Machine) -> None:
    states = {str(state) for state in machine.states}
    reached = {str(machine.initial)}
    for _ in states:
        reached |= {row.target for row in machine.rows if row.source in reached}
    assert reached == states
    pairs = [(row.source, row.event) for row in machine.rows]
    assert len(pairs) == len(set(pairs))


def test_the_lifecycle_document_equals_the_tables() -> None:
    assert (ROOT / "docs" / "lifecycle.md").read_text(encoding="utf-8") == lifecycle_document()


def test_every_code_with_which_a_round_or_training_ends_is_explained() -> None:
    told = re.compile(r'(?:"fail", |failure_code=|_fail_training\(training, )"([a-z_]+)"')
    found = {code for path in (ROOT / "rounds").rglob("*.py") for code in told.findall(path.read_text())}
    assert {"quorum_not_met", "exclusion_failed", "training_stopped", "rounds_failed_in_a_row"} <= found
    document = (ROOT / "docs" / "api.md").read_text()
    for code in found:
        assert sentence_of_code(code) != sentence_of_code("no such code"), code
        assert f"`{code}`" in document, code
