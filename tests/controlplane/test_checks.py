"""What is said of the settings before production."""

from typing import Any

import pytest

from controlplane.checks import production_is_safe
from latticeward.crypto import ascon
from latticeward.crypto.ascon_lanes import NumpyCore


@pytest.mark.parametrize(("accepted", "warned"), [(("hybrid", "constrained"), True), (("hybrid", "high"), False)])
def test_production_is_warned_of_a_slow_suite_and_may_leave_it_out(
    settings: Any, monkeypatch: pytest.MonkeyPatch, accepted: tuple[str, ...], warned: bool
) -> None:
    monkeypatch.setattr(ascon, "default_core", NumpyCore)
    settings.PRODUCTION, settings.ACCEPTED_SUITES = True, accepted
    found = [problem for problem in production_is_safe(None) if problem.id == "latticeward.W003"]
    assert [problem.msg.split(" is slow")[0] for problem in found] == ["The accepted suite constrained"] * warned
