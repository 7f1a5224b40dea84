"""What a round record must keep of its plan: rules only, for agents and for whoever checks a record offline."""

from latticeward.errors import LedgerError
from latticeward.lifecycle import ParticipantState
from latticeward.messages import RoundRecord
from latticeward.plan import RoundPlan


def require_promises(record: RoundRecord, plan: RoundPlan, *, k_hospitals: int = 0) -> None:
    """Check a verified record against the plan that its round was run under.

    1. Quorum, suite, protection, aggregator and noise are the plan's.
    2. It counts as many updates as it lists as accepted, a quorum at least.
    3. They come from enough hospitals, by the names in its rows; the server's word is all there is for a name.
    4. A pooled metric is the plan's, with enough hospitals and patients behind it; hospitals without test patients are
       not among them, so they can be fewer than sent updates.
    5. A hospital's own metric is shown only if the plan releases it, of an accepted update and of enough patients; and
       those that are not shown, which the pooled metric tells of together, are none or at least k hospitals.

    Args:
        k_hospitals: a reader's own k, where it is higher than the plan's.

    Raises:
        LedgerError: the record breaks the plan; it says in what.
    """
    broken = _first_broken(record, plan, max(k_hospitals, plan.k_hospitals))
    if broken:
        raise LedgerError(f"round {record.round_id}: {broken}")


def hospitals_of(record: RoundRecord) -> int:
    """Hospitals with an accepted update, by the names in the record."""
    return len({row["site"] for row in record.participants if row["outcome"] == ParticipantState.ACCEPTED})


def _first_broken(record: RoundRecord, plan: RoundPlan, k_hospitals: int) -> str:
    # 1
    for name in ("quorum", "suite", "protection", "aggregator", "noise_multiplier"):
        if getattr(record, name) != getattr(plan, name):
            return f"the record's {name} is not the plan's"
    # 2
    accepted = [row for row in record.participants if row["outcome"] == ParticipantState.ACCEPTED]
    if record.accepted != len(accepted):
        return "the record's count is not that of its rows"
    if record.accepted < plan.quorum:
        return f"the record counts {record.accepted} updates, and the plan's quorum is {plan.quorum}"
    # 3
    hospitals = hospitals_of(record)
    if hospitals < k_hospitals:
        return f"the result is of {hospitals} hospitals, and at least {k_hospitals} are asked"
    # 4
    if (metric := record.metric) is not None:
        patients, behind = metric.get("patients"), metric.get("hospitals")
        if metric.get("name") != plan.metric or not isinstance(patients, int) or not isinstance(behind, int):
            return "the record's metric is not the plan's"
        if not k_hospitals <= behind <= hospitals:
            return f"the metric is of {behind} hospitals of {hospitals}, and at least {k_hospitals} are asked"
        if patients < plan.k_patients:
            return f"the metric is of {patients} patients, and at least {plan.k_patients} are asked"
    # 5
    shown = [row for row in record.participants if row["metric"] is not None]
    if shown and not (plan.release.hospital_metrics and all(row in accepted for row in shown)):
        return "the record shows a hospital's own metric that the plan does not release"
    if any(not _enough(row["metric"].get("patients"), plan.release.patients_per_class) for row in shown):
        return "the record shows a hospital's own metric of fewer patients than the plan asks for"
    if metric is not None and shown and 0 < metric["hospitals"] - len({row["site"] for row in shown}) < k_hospitals:
        return "the record shows so many hospitals' own metrics that the pooled one tells of too few others"
    return ""


def _enough(patients: object, least: int) -> bool:
    return isinstance(patients, int) and patients >= least
