"""What a plan promises, as facts in words. Pure: a plan in, names and sentences out."""

from datetime import timedelta

from frontend.sentences import say_duration, say_metric
from latticeward.optimisers import OPTIMISERS
from latticeward.plan import RoundPlan
from latticeward.plan_parts import SENSITIVITIES


def say_plan(plan: RoundPlan) -> list[tuple[str, str]]:
    """The promises that a clinician asks about first, then those about learning."""
    return [
        ("Data", SENSITIVITIES[plan.sensitivity].title),
        ("Smallest group", f"{plan.k_hospitals} hospitals and {plan.k_patients} patients: nothing of fewer is shown"),
        ("Hospitals' own metrics", _say_release(plan)),
        ("Invited", _say_cohort(plan)),
        ("Quorum", f"{plan.quorum} updates"),
        ("Ends", _say_end(plan)),
        ("Weights", _say_weights(plan)),
        ("Clip norm", f"{plan.clip_norm:g}"),
        ("Server optimiser", OPTIMISERS[str(plan.server_optimiser["name"])].title),
    ]


def _say_release(plan: RoundPlan) -> str:
    if not plan.release.hospital_metrics:
        return "stay at the hospitals"
    return f"are shown to all, from {plan.release.patients_per_class} held-out patients of each class on"


def _say_cohort(plan: RoundPlan) -> str:
    match plan.cohort.rule:
        case "sites":
            return f"the devices of {', '.join(plan.cohort.sites)}"
        case "draw":
            return f"{plan.cohort.size} devices a round, by a draw that everybody can check"
        case _:
            return f"every active device, at most {plan.cohort_bound}"


def _say_end(plan: RoundPlan) -> str:
    stop, budget = plan.stop, plan.budget
    rules = [f"after {plan.rounds} rounds"]
    if stop.target is not None:
        rules.append(f"at {say_metric(plan.metric, stop.target)}")
    if stop.patience:
        gain = f" by more than {stop.min_delta:g}" if stop.min_delta else ""
        rules.append(f"after {stop.patience} versions in a row that are not better{gain}")
    if budget.seconds is not None:
        rules.append(f"after {say_duration(timedelta(seconds=budget.seconds))}")
    if budget.sent_bytes is not None:
        rules.append(f"after {budget.sent_bytes / 1e6:,.1f} MB of updates")
    return ", or ".join(rules)


def _say_weights(plan: RoundPlan) -> str:
    if plan.weight_rule == "equal":
        return "every hospital the same"
    return f"by training examples, each hospital at most as {plan.weight_cap:g}"
