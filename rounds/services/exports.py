"""A model version as a file, for one person, once.

The web tier can open no model, and a file that lies about for a download would be one. So each export has a key pair
of its own: the web tier makes it and keeps the private half in its vault group, the aggregation worker writes the file
and seals it to the public half, and when the person fetches it, key and file are destroyed (ADR 0026).
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from keys import vault
from latticeward import canonical
from latticeward.crypto.hpke import hpke_open, hpke_seal
from latticeward.crypto.keys import DecapsulationKey, EncapsulationKey
from latticeward.crypto.suites import KemAlgorithm
from latticeward.crypto.wrapping import new_key, unwrap_secret, wrap_secret
from latticeward.errors import (
    InvalidValueError,
    LatticewardError,
    ModelUnusableError,
    NotFoundError,
    NotPermittedError,
    StaleStateError,
    TooManyRequestsError,
    WrongContextError,
)
from latticeward.lifecycle import MODEL_EXPORT, ModelExportState, ModelState, next_state
from latticeward.model_files import MODEL_FORMATS, ModelFormat, read_vector
from latticeward.updates.tensors import weights_digest
from rounds.models import ModelExport, ModelVersion
from rounds.services.publication import open_model
from rounds.storage import delete_blob, read_blob, write_blob

MAKE_WITHIN: Final = timedelta(minutes=10)
FETCH_WITHIN: Final = timedelta(minutes=15)
# Each is a model of work for the worker that also ends rounds, and a model's bytes on the disk.
UNDER_WAY_AT_MOST: Final = 16
_PURPOSE: Final = "model-download"
_KEM: Final = KemAlgorithm.MLKEM768_X25519


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The plain bytes of a file, what to call it, and what it is."""

    name: str
    media_type: str
    content: bytes

    def __repr__(self) -> str:
        return f"<ModelFile {self.name}, {len(self.content)} bytes, not shown>"


def format_of(name: str) -> ModelFormat:
    """The row of a format.

    Raises:
        InvalidValueError: there is no such format.
    """
    if name not in MODEL_FORMATS:
        raise InvalidValueError(f"There is no format {name[:40]!r}; there are {', '.join(sorted(MODEL_FORMATS))}.")
    return MODEL_FORMATS[name]


def request_export(*, model: ModelVersion, form: str, licence: str, reason: str, actor: str) -> ModelExport:
    """Keep a person's wish for a file; the aggregation worker makes it.

    Raises:
        InvalidValueError: there is no such format.
        ModelUnusableError: the version is not published, or was revoked.
        TooManyRequestsError: as many files as may be under way at once are asked for or wait to be fetched.
    """
    row = format_of(form)
    _require_exportable(model)
    key = DecapsulationKey.generate(_KEM)
    now = timezone.now()
    export = ModelExport(
        model=model,
        format=row.name,
        licence=licence,
        reason=reason,
        state_due_at=now + MAKE_WITHIN,
        requested_by=actor,
        requested_at=now,
        recipient_key=key.encapsulation_key.raw,
    )
    export.wrapped_seed = vault.wrap(key.export_seed(), purpose=_PURPOSE, row_id=str(export.id))
    with transaction.atomic():
        export.save(force_insert=True)
        under_way = ModelExport.objects.filter(state__in=(ModelExportState.REQUESTED, ModelExportState.READY)).count()
        if under_way > UNDER_WAY_AT_MOST:
            raise TooManyRequestsError(f"{UNDER_WAY_AT_MOST} exports are asked for or wait to be fetched")
        record(
            "model_export.requested",
            actor=actor,
            feed=model.training.federation.feed,
            subject=(MODEL_EXPORT.name, export.id),
            details={**_details(export), "licence": licence, "reason": reason},
        )
    return export


def write_model_file(model: ModelVersion, form: ModelFormat, *, licence: str) -> ModelFile:
    """Aggregation worker: open a version and write it as a file, read back and held against the signed digest.

    Raises:
        ModelUnusableError: the version is not published, or was revoked.
        WrongContextError: body or file are not the weights that the manifest names.
        NotFoundError, DecryptionError, CustodyError, MalformedMessageError
    """
    _require_exportable(model)
    layout = model.training.round_plan.layout
    raw = form.write(layout, open_model(model), _metadata(model, licence))
    if weights_digest(read_vector(form, raw, layout=layout)) != bytes(model.weights_digest):
        raise WrongContextError(f"model {model.id}: the file does not hold the weights that the manifest names")
    return _named(model, form, raw)


def make_export(export_id: UUID) -> None:
    """Aggregation worker: write the file and seal it; or say why it cannot be."""
    export = _export(export_id)
    if export.state != ModelExportState.REQUESTED:
        return
    feed = export.model.training.federation.feed
    try:
        file = write_model_file(export.model, format_of(export.format), licence=export.licence)
    except LatticewardError as error:
        apply_transition(
            export,
            MODEL_EXPORT,
            "fail",
            actor="worker:aggregate",
            feed=feed,
            details={**_details(export), "code": error.code},
            failure_code=error.code,
            wrapped_seed=None,
            state_due_at=None,
        )
        return
    content_key, digest = new_key(), hashlib.sha256(file.content).hexdigest()
    recipient = EncapsulationKey.from_raw(bytes(export.recipient_key), _KEM)
    blob = write_blob(wrap_secret(file.content, key=content_key, associated_data=export.id.bytes))
    with suppress(StaleStateError):  # a second worker made it first, or it expired: this blob is swept
        apply_transition(
            export,
            MODEL_EXPORT,
            "make",
            actor="worker:aggregate",
            feed=feed,
            details={**_details(export), "file_digest": digest, "bytes": len(file.content)},
            sealed_key=hpke_seal(content_key, key=recipient, info=_info(export, digest)),
            blob=blob,
            file_bytes=len(file.content),
            file_digest=digest,
            state_due_at=timezone.now() + FETCH_WITHIN,
        )


def take_export(*, export_id: UUID, actor: str) -> ModelFile:
    """Hand the file to the person who asked for it, and destroy it here.

    1. It is this person's.
    2. It is made, not yet taken and not overdue.
    3. The version was not revoked in the meantime.
    4. It opens with the export's key, and is the file that was written.

    Raises:
        NotFoundError: there is no such export.
        NotPermittedError: another person asked for it.
        InvalidTransitionError: not made yet, taken, expired or failed.
        ModelUnusableError
    """
    export = _export(export_id)
    # 1
    if export.requested_by != actor:
        raise NotPermittedError(f"export {export_id} was asked for by {export.requested_by}")
    # 2
    if _is_overdue(export):
        _expire(export)
    next_state(MODEL_EXPORT, export.state, "take")
    # 3
    _require_exportable(export.model)
    # 4
    content = _open(export)
    with transaction.atomic():
        blob = export.blob
        apply_transition(
            export,
            MODEL_EXPORT,
            "take",
            actor=actor,
            feed=export.model.training.federation.feed,
            details={**_details(export), "file_digest": export.file_digest},
            **_destroyed(),
        )
        transaction.on_commit(partial(delete_blob, blob))
    return _named(export.model, format_of(export.format), content)


def expire_exports() -> int:
    """Destroy the files that nobody fetched in time, and give up on those that nobody made; returns how many."""
    overdue = ModelExport.objects.filter(
        state__in=(ModelExportState.REQUESTED, ModelExportState.READY), state_due_at__lte=timezone.now()
    )
    ended = 0
    for export in overdue.select_related("model__training__federation"):
        with suppress(StaleStateError):  # taken in this very moment
            _expire(export)
            ended += 1
    return ended


def record_written(model: ModelVersion, form: ModelFormat, file: ModelFile, *, reason: str) -> None:
    """The ledger's entry for a file that an administrator wrote on a worker's machine."""
    with transaction.atomic():
        record(
            "model.exported",
            actor="system",
            feed=model.training.federation.feed,
            subject=("model", model.id),
            details={
                "number": model.number,
                "format": form.name,
                "file_digest": hashlib.sha256(file.content).hexdigest(),
                "reason": reason,
            },
        )


def _open(export: ModelExport) -> bytes:
    seed = vault.unwrap(bytes(export.wrapped_seed or b""), purpose=_PURPOSE, row_id=str(export.id))
    key = DecapsulationKey.from_seed(seed, _KEM)
    content_key = hpke_open(bytes(export.sealed_key or b""), key=key, info=_info(export, export.file_digest))
    return unwrap_secret(read_blob(export.blob), key=content_key, associated_data=export.id.bytes)


def _expire(export: ModelExport) -> None:
    with transaction.atomic():
        blob = export.blob
        apply_transition(
            export,
            MODEL_EXPORT,
            "expire",
            actor="system",
            feed=export.model.training.federation.feed,
            details=_details(export),
            **_destroyed(),
        )
        if blob:
            transaction.on_commit(partial(delete_blob, blob))


def _destroyed() -> dict[str, str | None]:
    return {"wrapped_seed": None, "sealed_key": None, "blob": "", "state_due_at": None}


def _require_exportable(model: ModelVersion) -> None:
    if model.signed_manifest is None:
        raise ModelUnusableError("The model version is not published yet.")
    if model.state == ModelState.REVOKED:
        raise ModelUnusableError("The model version is revoked.")


def _metadata(model: ModelVersion, licence: str) -> dict[str, str]:
    training = model.training
    return {
        "title": training.title,
        "job": training.job,
        "licence": licence or "not stated",
        "model_id": str(model.id),
        "number": str(model.number),
        "training_id": str(training.id),
        "round_id": str(model.round.id),
        "plan_digest": bytes(training.plan_digest).hex(),
        "weights_digest": bytes(model.weights_digest).hex(),
        "base_model_digest": bytes(model.base_model_digest).hex(),
        "manifest_digest": hashlib.sha256(bytes(model.signed_manifest or b"")).hexdigest(),
    }


def _named(model: ModelVersion, form: ModelFormat, content: bytes) -> ModelFile:
    digest = bytes(model.weights_digest).hex()
    return ModelFile(f"{model.training.job}-{model.number}-{digest[:12]}{form.suffix}", form.media_type, content)


def _details(export: ModelExport) -> dict[str, str | int]:
    return {"model": str(export.model_id), "number": export.model.number, "format": export.format}


def _info(export: ModelExport, file_digest: str) -> bytes:
    return canonical.encode(["latticeward/model-download/v1", str(export.id), str(export.model_id), file_digest])


def _is_overdue(export: ModelExport) -> bool:
    waits = export.state in (ModelExportState.REQUESTED, ModelExportState.READY)
    return waits and export.state_due_at is not None and timezone.now() >= export.state_due_at


def _export(export_id: UUID) -> ModelExport:
    rows = ModelExport.objects.select_related("model__training__federation", "model__round")
    if (export := rows.filter(pk=export_id).first()) is None:
        raise NotFoundError(f"export {export_id}")
    return export
