"""The registry over REST: who may do what, what is told, and what bad input gets."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.audit.models import AuditEntry
from keys.rotation import server_address
from rounds.models import ModelStanza, ModelVersion, Training
from rounds.selectors import aliases_for, manifest_for, model_blob_for, work_for
from rounds.services.aliases import confirm_move, propose_move
from rounds.services.standing import revoke_model
from rounds.services.trainings import stop_training
from tests.rounds.cohort import Cohort
from tests.rounds.line import Line, exchange

pytestmark = pytest.mark.django_db


def post(client: Client, path: str, body: Any = None) -> Any:
    return client.post(f"/api/v1/{path}", json.dumps(body or {}), content_type="application/json")


def proposal(version: ModelVersion, **changes: Any) -> dict[str, Any]:
    return {"alias": "production", "model": str(version.id), "reason": "measured well", **changes}


def test_an_operator_proposes_and_a_compliance_officer_confirms(
    client: Client, operator: User, compliance: User, older: ModelVersion
) -> None:
    client.force_login(operator)
    made = post(client, "alias-moves", proposal(older))
    assert made.status_code == 201 and made.json()["state"] == "proposed"
    path = f"alias-moves/{made.json()['id']}/confirm"
    same = post(client, path)
    assert (same.status_code, same.json()["type"]) == (403, "second_person_needed")
    client.force_login(compliance)
    confirmed = post(client, path)
    assert confirmed.status_code == 200 and confirmed.json()["decided_by"] == f"user:{compliance.pk}"
    again = post(client, path)
    assert (again.status_code, again.json()["type"]) == (409, "invalid_transition")
    [alias] = client.get("/api/v1/aliases").json()["results"]
    assert (alias["alias"], alias["model"], alias["number"]) == ("production", str(older.id), 1)
    assert client.get("/api/v1/models").json()["results"][1]["aliases"] == ["production"]
    assert len(client.get("/api/v1/alias-moves?state=confirmed&alias=production").json()["results"]) == 1


def test_clinicians_read_and_change_nothing(client: Client, clinician: User, older: ModelVersion) -> None:
    client.force_login(clinician)
    assert client.get("/api/v1/models").status_code == client.get("/api/v1/aliases").status_code == 200
    assert post(client, "alias-moves", proposal(older)).status_code == 403
    for path in (f"models/{older.id}/retire", f"models/{older.id}/revoke", f"alias-moves/{uuid4()}/confirm"):
        assert post(client, path, {"reason": "no"}).status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"alias": "Not A Name"}, 400, "invalid_input"),
        ({"model": "17"}, 400, "invalid_input"),
        ({"reason": ""}, 400, "invalid_input"),
        ({"model": "00000000-0000-4000-8000-000000000000"}, 404, "not_found"),
    ],
)
def test_bad_proposals_are_told_what_is_wrong(
    client: Client, operator: User, older: ModelVersion, changes: dict[str, str], status: int, code: str
) -> None:
    client.force_login(operator)
    answer = post(client, "alias-moves", proposal(older, **changes))
    assert (answer.status_code, answer.json()["type"]) == (status, code)


def test_a_revocation_needs_a_reason_and_ends_the_standing(
    client: Client, compliance: User, older: ModelVersion
) -> None:
    client.force_login(compliance)
    assert post(client, f"models/{older.id}/revoke").status_code == 400
    assert post(client, f"models/{older.id}/retire", {"reason": "old"}).status_code == 403
    answer = post(client, f"models/{older.id}/revoke", {"reason": "wrong labels"})
    assert answer.json()["state"] == "revoked"
    assert AuditEntry.objects.get(event="model.revoked").details["reason"] == "wrong labels"


def test_a_version_tells_where_it_came_from(client: Client, operator: User, cohort: Cohort) -> None:
    training = cohort.train(rounds=2)
    first = cohort.whole_round(training)
    second = cohort.whole_round(training, cohort.weights(first))
    cohort.whole_round(training, cohort.weights(second))
    assert first.model and second.model
    client.force_login(operator)
    told = client.get(f"/api/v1/models/{second.model.id}").json()
    assert told["base_model"] == str(first.model.id) and told["round"] == str(second.id)
    assert told["base_model_digest"] == bytes(first.model.weights_digest).hex()
    assert (told["devices"], len(told["hospitals"]), told["parameters"]) == (4, 4, 36)
    assert told["metric"]["name"] == "auc" and told["metric"]["hospitals"] == 4
    assert told["server_optimiser"] == {"name": "fedavg"}
    line = client.get(f"/api/v1/models/{second.model.id}/lineage").json()["results"]
    assert [row["number"] for row in line] == [2, 1, 0]
    assert line[2]["model"] is None and line[2]["weights_digest"] == bytes(first.base_model_digest).hex()


@pytest.mark.parametrize("released", [True, False])
def test_hospitals_own_metrics_are_told_only_where_the_plan_releases_them(
    client: Client, operator: User, cohort: Cohort, released: bool
) -> None:
    plan: dict[str, Any] = {"rounds": 1}
    if released:
        plan["release"] = {"hospital_metrics": True, "patients_per_class": 20}
    training = cohort.train(**plan)
    made = cohort.whole_round(training)
    cohort.whole_round(training, cohort.weights(made))
    client.force_login(operator)
    assert made.model is not None
    told = client.get(f"/api/v1/models/{made.model.id}").json()
    assert told["metric"]["hospitals"] == 4
    if not released:
        assert told["metric_by_hospital"] is None
        return
    # Switzerland has too few healthy patients for the minimum: nothing of it is kept.
    names = [row["hospital"] for row in told["metric_by_hospital"]]
    assert "Cleveland" in names and "Switzerland" not in names
    assert all(row["patients"] >= 40 and 0 <= row["value"] <= 1 for row in told["metric_by_hospital"])


def test_counts_of_too_few_hospitals_are_not_told(client: Client, operator: User, cohort: Cohort) -> None:
    made = cohort.whole_round(cohort.train())
    made.participants.filter(device__site__slug__in=["hungary", "cleveland"]).update(state="excluded")
    client.force_login(operator)
    assert made.model is not None
    told = client.get(f"/api/v1/models/{made.model.id}").json()
    assert told["devices"] is None and told["hospitals"] is None


def test_a_revoked_version_is_handed_out_no_more(cohort: Cohort) -> None:
    training = cohort.train()
    model = cohort.whole_round(training).model
    device = cohort.hospitals[0].device
    assert model is not None and manifest_for(model.id, device) and work_for(device)["models"]
    training.refresh_from_db()
    stop_training(training=training, actor="user:1", reason="enough")
    revoke_model(model_id=model.id, actor="user:1", reason="wrong")
    assert manifest_for(model.id, device) is None and model_blob_for(model.id, device) is None
    assert work_for(device)["models"] == []
    assert ModelStanza.objects.filter(model=model).count() == 4


def test_devices_of_the_federation_are_told_its_aliases(older: ModelVersion, training: Training) -> None:
    device = training.federation.sites.first().devices.get()  # type: ignore[union-attr]
    assert aliases_for(device) == []
    move = propose_move(model=older, name="production", reason="good", actor="user:1")
    confirm_move(move_id=move.id, actor="user:2")
    [told] = aliases_for(device)
    assert told["model"] == str(older.id) and told["job"] == "heart"


@pytest.mark.django_db(transaction=True)
def test_the_door_answers_aliases_to_signed_requests_only(cohort: Cohort) -> None:
    line = Line(cohort.hospitals[0].machine)
    assert line.ask("GET", "/api/v1/work/aliases").json == {"aliases": []}
    unsigned = [("host", server_address())]
    assert asyncio.run(exchange("GET", "/api/v1/work/aliases", "", unsigned, [b""])).status == 401
