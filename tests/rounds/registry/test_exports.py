"""A model leaves as a file for one person, once, and holds exactly the weights that were signed."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from safetensors.numpy import load

from controlplane.audit.models import AuditEntry
from latticeward.errors import (
    CustodyError,
    InvalidTransitionError,
    InvalidValueError,
    ModelUnusableError,
    NotFoundError,
    NotPermittedError,
    TooManyRequestsError,
)
from latticeward.lifecycle import ModelExportState
from latticeward.model_files import MODEL_FORMATS, read_vector
from latticeward.updates.tensors import weights_digest
from rounds import tasks
from rounds.models import ModelExport, ModelVersion
from rounds.registry.selectors import published_model
from rounds.services import exports, retention
from rounds.services.exports import expire_exports, make_export, request_export, take_export
from rounds.services.standing import revoke_model
from rounds.services.trainings import stop_training
from rounds.storage import blob_path, delete_blob
from tests.rounds.cohort import Cohort

pytestmark = pytest.mark.django_db

OLIVE = "user:1"


@pytest.fixture
def model(cohort: Cohort) -> ModelVersion:
    made = cohort.whole_round(cohort.train()).model
    assert made is not None
    return published_model(made.id)


def ask(model: ModelVersion, form: str = "safetensors") -> ModelExport:
    return request_export(model=model, form=form, licence="CC BY 4.0", reason="external validation", actor=OLIVE)


def test_files_under_way_are_bounded_and_none_is_half_asked_for(
    newer: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "UNDER_WAY_AT_MOST", 1)
    first = ask(newer)
    with pytest.raises(TooManyRequestsError):
        ask(newer)
    assert ModelExport.objects.get() == first
    assert AuditEntry.objects.filter(event="model_export.requested").count() == 1
    ModelExport.objects.update(state_due_at=timezone.now())
    assert expire_exports() == 1
    ask(newer)


def made(model: ModelVersion, form: str = "safetensors") -> ModelExport:
    export = ask(model, form)
    make_export(export.id)
    export.refresh_from_db()
    assert export.state == ModelExportState.READY
    return export


@pytest.mark.parametrize("form", sorted(MODEL_FORMATS))
def test_the_file_holds_the_signed_weights_and_says_where_they_come_from(model: ModelVersion, form: str) -> None:
    export = made(model, form)
    file = take_export(export_id=export.id, actor=OLIVE)
    layout = model.training.round_plan.layout
    assert weights_digest(read_vector(MODEL_FORMATS[form], file.content, layout=layout)) == bytes(model.weights_digest)
    metadata = MODEL_FORMATS[form].read(file.content)[1]
    assert metadata["licence"] == "CC BY 4.0" and metadata["model_id"] == str(model.id)
    assert metadata["manifest_digest"] == hashlib.sha256(bytes(model.signed_manifest or b"")).hexdigest()
    assert hashlib.sha256(file.content).hexdigest() == export.file_digest
    assert file.name.startswith("heart-1-") and file.name.endswith(MODEL_FORMATS[form].suffix)


def test_what_rests_on_the_disk_is_not_the_file(model: ModelVersion) -> None:
    export = made(model)
    sealed = blob_path(export.blob).read_bytes()
    file = take_export(export_id=export.id, actor=OLIVE)
    assert file.content[-64:] not in sealed and b"__metadata__" not in sealed


def test_the_aggregation_worker_cannot_open_what_it_sealed(model: ModelVersion, settings: Settings) -> None:
    export = made(model)
    settings.ROLE = "aggregate"
    with pytest.raises(CustodyError):
        take_export(export_id=export.id, actor=OLIVE)


def test_the_web_tier_asks_and_hands_out_and_cannot_make_the_file(model: ModelVersion, settings: Settings) -> None:
    settings.ROLE = "web"
    export = ask(model)
    make_export(export.id)
    export.refresh_from_db()
    assert (export.state, export.failure_code) == (ModelExportState.FAILED, "custody_failed")


def test_a_file_is_fetched_once_and_nothing_of_it_stays(
    model: ModelVersion, django_capture_on_commit_callbacks: Any
) -> None:
    export = made(model)
    path = blob_path(export.blob)
    with django_capture_on_commit_callbacks(execute=True):
        take_export(export_id=export.id, actor=OLIVE)
    with pytest.raises(InvalidTransitionError):
        take_export(export_id=export.id, actor=OLIVE)
    export.refresh_from_db()
    assert (export.wrapped_seed, export.sealed_key, export.blob) == (None, None, "") and not path.exists()
    events = AuditEntry.objects.filter(subject_kind="model_export").values_list("event", flat=True)
    assert list(events.order_by("feed_seq")) == ["model_export.requested", "model_export.made", "model_export.taken"]


def test_another_person_does_not_get_it(model: ModelVersion) -> None:
    with pytest.raises(NotPermittedError):
        take_export(export_id=made(model).id, actor="user:2")


def test_it_is_not_there_before_it_is_made(model: ModelVersion) -> None:
    with pytest.raises(InvalidTransitionError):
        take_export(export_id=ask(model).id, actor=OLIVE)
    with pytest.raises(NotFoundError):
        take_export(export_id=model.id, actor=OLIVE)


def test_what_nobody_fetched_in_time_is_destroyed(model: ModelVersion, django_capture_on_commit_callbacks: Any) -> None:
    export = made(model)
    path = blob_path(export.blob)
    ModelExport.objects.update(state_due_at=timezone.now() - timedelta(seconds=1))
    with django_capture_on_commit_callbacks(execute=True), pytest.raises(InvalidTransitionError):
        take_export(export_id=export.id, actor=OLIVE)
    assert not path.exists() and expire_exports() == 0
    ask(model)
    ModelExport.objects.update(state_due_at=timezone.now() - timedelta(seconds=1))
    assert expire_exports() == 1


def test_a_revoked_version_is_neither_made_nor_handed_out(model: ModelVersion) -> None:
    ready, waiting = made(model), ask(model)
    stop_training(training=model.training, actor=OLIVE, reason="enough")
    revoke_model(model_id=model.id, actor=OLIVE, reason="wrong")
    with pytest.raises(ModelUnusableError, match="revoked"):
        take_export(export_id=ready.id, actor=OLIVE)
    make_export(waiting.id)
    waiting.refresh_from_db()
    assert waiting.failure_code == "model_unusable"
    with pytest.raises(ModelUnusableError):
        ask(published_model(model.id))


def test_making_twice_changes_nothing_and_a_lost_body_is_said(model: ModelVersion) -> None:
    export = made(model)
    make_export(export.id)
    assert ModelExport.objects.get().blob == export.blob
    lost = ask(model)
    delete_blob(model.body_blob)
    make_export(lost.id)
    lost.refresh_from_db()
    assert (lost.state, lost.failure_code, lost.wrapped_seed) == (ModelExportState.FAILED, "not_found", None)


def test_a_waiting_file_is_no_orphan(model: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    export = made(model)
    monkeypatch.setattr(retention, "ORPHAN_AGE", timedelta(seconds=-5))
    retention.sweep_orphaned_blobs()
    assert blob_path(export.blob).exists()


def test_an_unknown_format_is_refused(model: ModelVersion) -> None:
    with pytest.raises(InvalidValueError, match="npz, safetensors"):
        ask(model, "pickle")


def test_an_operator_asks_and_fetches_over_rest(
    client: Client,
    operator: User,
    compliance: User,
    model: ModelVersion,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    monkeypatch.setattr(tasks.make_export, "delay", tasks.make_export)
    client.force_login(operator)
    body = {"model": str(model.id), "format": "safetensors", "reason": "validation"}
    with django_capture_on_commit_callbacks(execute=True):
        asked = client.post("/api/v1/model-exports", json.dumps(body), content_type="application/json")
    assert asked.status_code == 202 and asked.json()["state"] == "requested"
    path = f"/api/v1/model-exports/{asked.json()['id']}"
    assert client.get(path).json()["state"] == "ready"
    client.force_login(compliance)
    assert client.post(f"{path}/file").status_code == 403 and client.get(path).status_code == 200
    client.force_login(operator)
    answer = client.post(f"{path}/file")
    assert set(load(answer.content)) == {"weight", "bias"} and "attachment" in answer["Content-Disposition"]
    again = client.post(f"{path}/file")
    assert (again.status_code, again.json()["type"]) == (409, "invalid_transition")
    [row] = client.get(f"/api/v1/model-exports?model={model.id}").json()["results"]
    assert row["state"] == "taken" and "wrapped_seed" not in row


@pytest.mark.parametrize("body", [{"format": "pickle", "reason": "x"}, {"format": "npz"}, {"reason": "x"}])
def test_bad_requests_make_no_export(client: Client, operator: User, model: ModelVersion, body: dict[str, str]) -> None:
    client.force_login(operator)
    asked = json.dumps({"model": str(model.id), **body})
    assert client.post("/api/v1/model-exports", asked, content_type="application/json").status_code == 400
    assert not ModelExport.objects.exists()


def test_clinicians_ask_for_no_file(client: Client, clinician: User) -> None:
    client.force_login(clinician)
    assert client.get("/api/v1/model-exports").status_code == 403


def test_the_command_writes_a_new_private_file_and_tells_the_ledger(
    model: ModelVersion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.npz"
    call_command("export_model", str(model.id), "--format=npz", f"--out={out}", "--reason=audit")
    assert out.stat().st_mode & 0o077 == 0 and bytes(model.weights_digest).hex() in capsys.readouterr().out
    assert AuditEntry.objects.get(event="model.exported").details["reason"] == "audit"
    with pytest.raises(CommandError, match="cannot write"):
        call_command("export_model", str(model.id), "--format=npz", f"--out={out}", "--reason=audit")
