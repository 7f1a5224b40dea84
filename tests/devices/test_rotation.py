"""Rotations of many devices, due lists, dry runs, and the retirement of a suite."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import rotation, rotation_asking, selectors, services, suites, tasks
from devices.due import blast_radius, due_devices
from devices.models import Device, DeviceClass, Federation, Rotation, Site
from devices.renewal_issuing import issue_renewals
from devices.sites import create_site
from keys.models import Key, Reason
from keys.usage import count_use, flush_uses
from latticeward.errors import (
    InvalidTransitionError,
    InvalidValueError,
    MalformedMessageError,
    StateError,
    UnsupportedSuiteError,
)
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import Renewing, device_of


@pytest.fixture
def machines(site: Site) -> list[Machine]:
    return [enrolled(site) for _ in range(3)]


@pytest.fixture
def federation_of(site: Site) -> Federation:
    return site.federation


def renew(machine: Machine) -> Machine:
    """What an agent does that was asked: makes keys of the suite that it was asked for, and renews."""
    renewing = Renewing(machine, device_of(machine).renewal_suite)
    renewing.finish(renewing.begin())
    issue_renewals()
    return renewing.switched()


def start(federation: Federation, **changes: Any) -> Rotation:
    job = rotation.start_rotation(
        federation=federation, **{"scope": "fleet", "actor": "user:1", "why": "a drill", **changes}
    )
    rotation_asking.advance_rotations()
    job.refresh_from_db()
    return job


def counts(job: Rotation) -> tuple[int, int, int, int]:
    now = rotation.progress(job)
    return now.waiting, now.asked, now.done, now.left


def test_a_rotation_asks_every_device_and_ends_when_all_have_new_keys(
    machines: list[Machine], federation_of: Federation
) -> None:
    job = start(federation_of)
    assert counts(job) == (0, 3, 0, 0)
    for done, machine in enumerate(machines, start=1):
        assert selectors.renewal_asked(device_of(machine)) == {"suite": "hybrid", "reason": "rotation"}
        renew(machine)
        assert rotation.progress(job).done == done
        assert selectors.renewal_asked(device_of(machine)) is None
    rotation_asking.advance_rotations()
    job.refresh_from_db()
    assert (job.state, rotation.progress(job).percent) == ("completed", 100)
    assert [device_of(machine).key_epoch for machine in machines] == [2, 2, 2]


def test_every_change_of_a_rotation_is_in_the_ledger_with_its_actor(
    machines: list[Machine], federation_of: Federation
) -> None:
    job = start(federation_of)
    rotation.pause_rotation(rotation_id=job.id, actor="user:2")
    rotation.resume_rotation(rotation_id=job.id, actor="user:3")
    for machine in machines:
        renew(machine)
    rotation_asking.advance_rotations()
    events = AuditEntry.objects.filter(subject_kind="rotation", subject_id=str(job.id)).order_by("feed_seq")
    assert list(events.values_list("event", "actor")) == [
        ("rotation.started", "user:1"),
        ("rotation.paused", "user:2"),
        ("rotation.resumed", "user:3"),
        ("rotation.completed", "worker:authority"),
    ]
    asked = AuditEntry.objects.filter(event="device.asked_to_renew")
    assert {entry.details["device"] for entry in asked} == {str(device_of(machine).id) for machine in machines}
    assert AuditEntry.objects.filter(event="device.rotated").count() == 3


def test_no_more_devices_are_asked_at_once_than_the_job_says(
    machines: list[Machine], federation_of: Federation
) -> None:
    job = start(federation_of, at_once=1)
    assert counts(job) == (2, 1, 0, 0)
    rotation_asking.advance_rotations()
    assert counts(job) == (2, 1, 0, 0)
    renew(next(machine for machine in machines if device_of(machine).renewal_reason))
    rotation_asking.advance_rotations()
    assert counts(job) == (1, 1, 1, 0)


def test_a_device_that_does_not_answer_is_a_straggler_and_holds_nobody_up(
    machines: list[Machine], federation_of: Federation
) -> None:
    job = start(federation_of, at_once=1)
    job.rows.filter(state="asked").update(asked_at=timezone.now() - timedelta(minutes=5))
    rotation_asking.advance_rotations()
    assert counts(job) == (1, 2, 0, 0)
    assert len(rotation.progress(job).stragglers) == 1


def test_a_paused_rotation_asks_nobody_further_and_who_was_asked_may_renew(
    machines: list[Machine], federation_of: Federation
) -> None:
    job = start(federation_of, at_once=1)
    rotation.pause_rotation(rotation_id=job.id, actor="user:1")
    renew(next(machine for machine in machines if device_of(machine).renewal_reason))
    rotation_asking.advance_rotations()
    assert counts(job) == (2, 0, 1, 0)
    rotation.resume_rotation(rotation_id=job.id, actor="user:1")
    rotation_asking.advance_rotations()
    assert counts(job) == (1, 1, 1, 0)


def test_a_cancelled_rotation_lets_everybody_go(machines: list[Machine], federation_of: Federation) -> None:
    job = start(federation_of, at_once=2)
    rotation.cancel_rotation(rotation_id=job.id, actor="user:1")
    assert counts(job) == (0, 0, 0, 3)
    assert not Device.objects.exclude(renewal_reason="").exists()
    with pytest.raises(StateError):
        Renewing(machines[0]).begin()
    with pytest.raises(InvalidTransitionError):
        rotation.resume_rotation(rotation_id=job.id, actor="user:1")


def test_a_device_that_is_revoked_leaves_the_rotation(machines: list[Machine], federation_of: Federation) -> None:
    job = start(federation_of)
    services.revoke_device(device_id=device_of(machines[0]).id, actor="user:1", reason=Reason.KEY_COMPROMISE)
    for machine in machines[1:]:
        renew(machine)
    rotation_asking.advance_rotations()
    job.refresh_from_db()
    assert (job.state, counts(job)) == ("completed", (0, 0, 2, 1))


def test_a_suspended_device_is_asked_when_it_is_reinstated(machines: list[Machine], federation_of: Federation) -> None:
    job = rotation.start_rotation(federation=federation_of, scope="fleet", actor="user:1")
    services.suspend_device(device_id=device_of(machines[0]).id, actor="user:1")
    rotation_asking.advance_rotations()
    assert counts(job) == (1, 2, 0, 0)
    services.reinstate_device(device_id=device_of(machines[0]).id, actor="user:1")
    rotation_asking.advance_rotations()
    assert counts(job) == (0, 3, 0, 0)


def test_a_rotation_by_site_takes_that_hospital_only(machines: list[Machine], federation_of: Federation) -> None:
    other = create_site(federation=federation_of, slug="hungary", name="Hungary", actor="user:1")
    alone = enrolled(other)
    job = start(federation_of, scope="site", value="hungary")
    assert job.total == 1
    assert device_of(alone).renewal_reason == "rotation"
    assert not device_of(machines[0]).renewal_reason


def test_a_device_is_in_one_rotation_at_a_time_and_an_empty_scope_is_refused(
    machines: list[Machine], federation_of: Federation
) -> None:
    start(federation_of)
    with pytest.raises(StateError, match="no device"):
        start(federation_of, scope="site", value="cleveland")
    with pytest.raises(StateError, match="no device"):
        start(federation_of, scope="site", value="nowhere")
    with pytest.raises(MalformedMessageError):
        start(federation_of, scope="moon")
    assert Rotation.objects.count() == 1


def test_a_dry_run_shows_the_blast_radius_and_changes_nothing(
    machines: list[Machine], federation_of: Federation
) -> None:
    services.suspend_device(device_id=device_of(machines[0]).id, actor="user:1")
    Device.objects.filter(pk=device_of(machines[1]).pk).update(last_seen_at=timezone.now() - timedelta(days=2))
    Device.objects.filter(pk=device_of(machines[2]).pk).update(last_seen_at=timezone.now())
    before = AuditEntry.objects.count()
    radius, asked = blast_radius(federation_of, "fleet")
    assert (radius.devices, radius.keys, radius.suspended, radius.silent) == (2, 8, 1, 1)
    assert (radius.sites, radius.suites) == ({"Cleveland Clinic": 2}, {"hybrid": 2})
    assert {device.id for device in asked} == {device_of(machine).id for machine in machines[1:]}
    assert AuditEntry.objects.count() == before and not Rotation.objects.exists()


def use(machine: Machine, times: int) -> None:
    """So many signatures of the machine's signing key."""
    count_use(machine.keys.signing.verify_key.key_id.hex(), times)
    flush_uses()


# --- policies of the classes -----------------------------------------------------------------------------------------


def test_keys_are_due_by_age_by_use_and_when_their_own_renewal_is_late(
    machines: list[Machine], federation_of: Federation
) -> None:
    now = timezone.now()
    assert due_devices(federation_of, now=now) == []
    DeviceClass.objects.filter(slug="workstation").update(rotate_after_days=10, rotate_after_uses=3)
    use(machines[0], 3)
    [used] = due_devices(federation_of, now=now)
    assert (used.reason, used.uses, used.device.id) == ("uses", 3, device_of(machines[0]).id)
    assert [row.reason for row in due_devices(federation_of, now=now + timedelta(days=11))] == ["age"] * 3
    assert [row.reason for row in due_devices(federation_of, now=now + timedelta(days=80))] == ["late"] * 3


def test_the_heartbeat_asks_devices_that_are_due_once(
    machines: list[Machine], federation_of: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.issue_renewals, "delay", tasks.issue_renewals)
    for name in ("keep_authority_current", "publish_revocations"):
        monkeypatch.setattr(getattr(tasks, name), "delay", lambda: None)
    DeviceClass.objects.filter(slug="workstation").update(rotate_after_uses=1)
    use(machines[0], 1)
    tasks.sweep()
    tasks.sweep()
    assert device_of(machines[0]).renewal_reason == "policy_uses"
    assert AuditEntry.objects.filter(event="device.asked_to_renew").count() == 1
    renew(machines[0])
    assert due_devices(federation_of) == []
    assert Key.objects.get(subject_id=str(device_of(machines[0]).id), purpose="signing", state="active").uses == 0


# --- suites ----------------------------------------------------------------------------------------------------------


def test_a_suite_is_accepted_after_its_self_test_and_one_that_the_code_forbids_never(
    federation_of: Federation,
) -> None:
    assert suites.accepted_suites() == ("hybrid",)
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    assert suites.accepted_suites() == ("hybrid", "high")
    assert AuditEntry.objects.filter(event="suite.accepted").count() == 1
    for name in ("classical", "pq-only", "constrained", "nonsense"):
        with pytest.raises(UnsupportedSuiteError):
            suites.accept_suite(federation=federation_of, suite=name, actor="user:1")


def test_the_last_suite_cannot_be_retired(machines: list[Machine], federation_of: Federation) -> None:
    with pytest.raises(StateError, match="accept another"):
        retire(federation_of)
    assert suites.accepted_suites() == ("hybrid",) and not Rotation.objects.exists()


def test_of_two_suites_one_stays(machines: list[Machine], federation_of: Federation) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    retire(federation_of)
    with pytest.raises(StateError, match="accept another"):
        rotation.retire_suite(
            federation=federation_of, suite="high", retire_at=timezone.now() + timedelta(days=10), actor="user:1"
        )
    assert suites.SuitePolicy.objects.get(suite="high").state == "accepted"


def test_a_date_that_is_over_is_refused_and_now_must_be_said(
    machines: list[Machine], federation_of: Federation
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    with pytest.raises(InvalidValueError, match="over"):
        retire(federation_of, days=-1)
    assert suites.accepted_suites() == ("hybrid", "high") and not Rotation.objects.exists()
    job = rotation.retire_suite(federation=federation_of, suite="hybrid", retire_at=None, actor="user:1")
    assert job is not None and job.due_at is not None and job.due_at <= timezone.now()
    assert suites.accepted_suites() == ("high",)
    rotation_asking.advance_rotations()
    assert {device_of(renew(machine)).suite for machine in machines} == {"high"}


def test_a_retirement_whose_date_has_come_is_not_taken_back(machines: list[Machine], federation_of: Federation) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    rotation.retire_suite(federation=federation_of, suite="hybrid", retire_at=None, actor="user:1")
    with pytest.raises(StateError, match="for good"):
        rotation.keep_suite(federation=federation_of, suite="hybrid", actor="user:1")


def test_a_rotation_moves_nobody_back_to_a_suite_that_goes(machines: list[Machine], federation_of: Federation) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    rotation.cancel_rotation(rotation_id=retire(federation_of).id, actor="user:1")
    start(federation_of)
    assert {device_of(machine).renewal_suite for machine in machines} == {"high"}


def retire(federation: Federation, *, days: float = 30, **named: Any) -> Rotation:
    retire_at = timezone.now() + timedelta(days=days)
    job = rotation.retire_suite(federation=federation, suite="hybrid", retire_at=retire_at, actor="user:1", **named)
    assert job is not None
    rotation_asking.advance_rotations()
    job.refresh_from_db()
    return job


def test_retiring_a_suite_migrates_every_device_that_uses_it(
    machines: list[Machine], federation_of: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    job = retire(federation_of)
    assert (job.cause, job.scope_value, job.total) == ("retirement", "hybrid", 3)
    after = [renew(machine) for machine in machines]
    rotation_asking.advance_rotations()
    job.refresh_from_db()
    assert job.state == "completed"
    assert {device_of(machine).suite for machine in after} == {"high"}
    assert {machine.keys.signing.verify_key.algorithm for machine in after} == {"mldsa87-p384"}
    standing = {row.suite.id: (row.state, row.devices) for row in suites.standings(federation_of)}
    assert (standing["hybrid"], standing["high"]) == (("retiring", 0), ("accepted", 3))


def test_keys_of_the_suite_that_goes_do_not_count_as_migrated(
    machines: list[Machine], federation_of: Federation
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    job = retire(federation_of, at_once=1)
    for machine in machines:  # one is asked, two wait; all were about to renew by themselves
        Device.objects.filter(pk=device_of(machine).pk, renewal_reason="").update(renewal_reason="own")
        renewing = Renewing(machine, "hybrid")
        renewing.finish(renewing.begin())
        issue_renewals()
    rotation_asking.advance_rotations()
    assert counts(job) == (2, 1, 0, 0)
    assert Device.objects.filter(renewal_reason="retirement", renewal_suite="high", key_epoch=2).count() == 1


def test_devices_that_the_migration_missed_are_asked_by_the_heartbeat(
    machines: list[Machine], site: Site, federation_of: Federation
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    held = device_of(machines[0])
    services.suspend_device(device_id=held.id, actor="user:1")
    retire(federation_of)
    newcomer = device_of(enrolled(site))
    services.reinstate_device(device_id=held.id, actor="user:1")
    assert {row.reason for row in due_devices(federation_of)} == {"suite"}
    assert rotation_asking.ask_due(federation_of) == 2
    asked = Device.objects.filter(renewal_reason="policy_suite", renewal_suite="high")
    assert set(asked.values_list("id", flat=True)) == {held.id, newcomer.id}
    assert rotation_asking.ask_due(federation_of) == 0


def test_a_device_for_which_no_suite_is_left_keeps_no_others_from_being_asked(
    machines: list[Machine], federation_of: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    DeviceClass.objects.update(rotate_after_uses=1)
    strict = DeviceClass.objects.get(federation=federation_of, slug="imaging")
    Device.objects.filter(pk=device_of(machines[0]).pk).update(device_class=strict)
    DeviceClass.objects.filter(pk=strict.pk).update(suite_floor="high", default_suite="high")
    for machine in machines:
        use(machine, 1)
    assert rotation_asking.ask_due(federation_of) == 2
    assert device_of(machines[0]).renewal_reason == ""
    assert "cannot be asked" in caplog.text


def test_after_its_date_a_suite_makes_nothing_new_and_a_straggler_may_still_leave_it(
    machines: list[Machine], site: Site, federation_of: Federation
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    retire(federation_of)
    straggler, newcomer = machines[0], Machine.with_claim(site)
    suites.SuitePolicy.objects.filter(suite="hybrid").update(retire_at=timezone.now() - timedelta(seconds=1))
    assert suites.accepted_suites() == ("high",)
    with pytest.raises(UnsupportedSuiteError):
        newcomer.begin()
    with pytest.raises(UnsupportedSuiteError):
        Renewing(straggler, "hybrid").begin()
    with pytest.raises(UnsupportedSuiteError):
        suites.require_accepted("hybrid")
    device = device_of(straggler)
    assert device.id not in selectors.encapsulation_keys(device.site.federation)
    suites.retire_due()
    assert suites.SuitePolicy.objects.get(suite="hybrid").state == "retired"
    renew(straggler)
    device = device_of(straggler)
    assert device.id in selectors.encapsulation_keys(device.site.federation)


def test_a_retirement_can_be_taken_back_before_its_date_and_not_after(
    machines: list[Machine], federation_of: Federation
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    job = retire(federation_of)
    rotation.keep_suite(federation=federation_of, suite="hybrid", actor="user:1")
    job.refresh_from_db()
    assert (job.state, suites.accepted_suites()) == ("cancelled", ("hybrid", "high"))
    assert not Device.objects.exclude(renewal_reason="").exists()
    retire(federation_of)
    suites.retire_due(now=timezone.now() + timedelta(days=31))
    with pytest.raises(InvalidTransitionError):
        rotation.keep_suite(federation=federation_of, suite="hybrid", actor="user:1")
    with pytest.raises(StateError, match="retired"):
        suites.accept_suite(federation=federation_of, suite="hybrid", actor="user:1")


def test_a_rotation_into_the_suite_that_goes_is_replaced_by_the_migration(
    machines: list[Machine], federation_of: Federation
) -> None:
    suites.accept_suite(federation=federation_of, suite="high", actor="user:1")
    earlier = start(federation_of)
    job = retire(federation_of)
    earlier.refresh_from_db()
    assert (earlier.state, job.total) == ("cancelled", 3)
    assert {device_of(machine).renewal_suite for machine in machines} == {"high"}


# --- over REST -------------------------------------------------------------------------------------------------------


def test_rotations_and_suites_are_moved_over_rest(
    machines: list[Machine], operator: User, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.advance_rotations, "delay", tasks.advance_rotations)
    client.force_login(operator)
    preview = client.get("/api/v1/rotations/preview", {"scope": "site", "value": "cleveland"}).json()
    assert (preview["devices"], preview["keys"], preview["rounds"]) == (3, 12, [])
    assert client.get("/api/v1/rotations/due").json() == []
    made = client.post("/api/v1/rotations", {"scope": "fleet", "why": "a drill"}, content_type="application/json")
    assert made.status_code == 201
    address = f"/api/v1/rotations/{made.json()['id']}"
    assert client.post(f"{address}/pause", content_type="application/json").json()["state"] == "paused"
    assert client.post(f"{address}/resume", content_type="application/json").json()["state"] == "running"
    assert client.post(f"{address}/cancel", content_type="application/json").json()["left"] == 3
    again = client.post(f"{address}/pause", content_type="application/json")
    assert (again.status_code, again.json()["type"]) == (409, "invalid_transition")
    assert client.get("/api/v1/rotations?state=cancelled").json()["results"][0]["id"] == made.json()["id"]

    assert client.post("/api/v1/suites/high/accept", content_type="application/json").json()["state"] == "accepted"
    retire_at = (timezone.now() + timedelta(days=9)).isoformat()
    for wrong in ({}, {"now": False}, {"now": True, "retire_at": retire_at}, {"retire_at": "2020-01-01T00:00:00Z"}):
        refused = client.post("/api/v1/suites/hybrid/retire", wrong, content_type="application/json")
        assert (refused.status_code, refused.json()["type"]) == (422, "invalid_value")
        assert not Rotation.objects.exclude(state="cancelled").exists()
    retired = client.post("/api/v1/suites/hybrid/retire", {"retire_at": retire_at}, content_type="application/json")
    assert (retired.status_code, retired.json()["state"]) == (200, "retiring")
    states = {row["suite"]: row["state"] for row in client.get("/api/v1/suites").json()}
    assert (states["hybrid"], states["high"]) == ("retiring", "accepted")
    kept = client.post("/api/v1/suites/hybrid/keep", content_type="application/json")
    assert kept.json()["state"] == "accepted"


def test_only_operators_rotate_and_clinicians_see_nothing_of_keys(
    machines: list[Machine], compliance: User, clinician: User, client: Client
) -> None:
    client.force_login(compliance)
    assert client.get("/api/v1/rotations").status_code == 200
    assert client.post("/api/v1/rotations", {}, content_type="application/json").status_code == 403
    assert client.post("/api/v1/suites/high/accept", content_type="application/json").status_code == 403
    client.force_login(clinician)
    for path in ("rotations", "rotations/due", "rotations/preview", "suites"):
        assert client.get(f"/api/v1/{path}").status_code == 403
