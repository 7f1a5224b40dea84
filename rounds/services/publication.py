"""Making a model version: the server optimiser's step, one sealed body for all, one stanza a device.

The body's content key rests wrapped in the vault, so that devices which join later get their stanza and the next
round's worker can open its base model; the web tier has neither.
"""

import secrets
from contextlib import suppress
from typing import Final
from uuid import UUID, uuid4

import numpy as np
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from devices.models import Device
from devices.selectors import active_devices, encapsulation_keys
from devices.suites import accepted_suites, require_accepted
from keys import vault
from keys.selectors import server_verify_key
from keys.usage import count_use
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, make_stanza, open_body, seal_body
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import get_suite
from latticeward.crypto.wrapping import derive_key, unwrap_secret, wrap_secret
from latticeward.errors import LatticewardError
from latticeward.instants import to_unix_milliseconds
from latticeward.messages import ModelManifest
from latticeward.optimisers import server_step
from latticeward.optimisers.state import OptimiserState
from latticeward.plan import RoundPlan
from latticeward.updates.encoding import DecodedSum
from latticeward.updates.tensors import FloatVector, initial_vector, weights_digest
from rounds.models import ModelStanza, ModelVersion, Round
from rounds.storage import read_blob, write_blob

_OPTIMISER: Final = "latticeward/optimiser-state/v1"


class PreparedModel:
    """A sealed model version that the database does not know yet."""

    def __init__(self, row: ModelVersion, stanzas: list[ModelStanza]) -> None:
        self.row = row
        self.stanzas = stanzas


def open_model(model: ModelVersion) -> FloatVector:
    """The weights of a model version, float32 (d,), for the aggregation worker."""
    raw = open_body(
        header_bytes=bytes(model.header), body=read_blob(model.body_blob), content_key=content_key_of(model)
    )
    return np.frombuffer(raw, dtype="<f4")


def content_key_of(model: ModelVersion) -> bytes:
    """The key to a model's sealed body, out of the vault (32 bytes)."""
    return vault.unwrap(bytes(model.wrapped_content_key), purpose="model-content", row_id=str(model.id))


def next_weights(current: Round, plan: RoundPlan, decoded: DecodedSum) -> tuple[FloatVector, OptimiserState]:
    """The server optimiser's step from the round's base model: the same bits whenever it is taken.

    The optimiser's moments belong to the training that made them: in a round that begins with a version of another
    training it begins anew.

    Returns:
        float32 weights (d,) and the optimiser's state after the step.
    """
    base = open_model(current.base_model) if current.base_model else initial_vector(plan.layout, plan.initial)
    state = _optimiser_state(current, plan.layout.size)
    moved, state = server_step(base.astype(np.float64), decoded.mean.astype(np.float64), state, plan.server_optimiser)
    return moved.astype("<f4"), state


def make_model(current: Round, plan: RoundPlan, decoded: DecodedSum) -> PreparedModel:
    """Step, seal and describe the round's model version; nothing is kept yet.

    Raises:
        UnsupportedSuiteError: the plan's suite was retired since: nothing new is sealed in it.
    """
    require_accepted(plan.suite)
    weights, state = next_weights(current, plan, decoded)
    model_id = uuid4()
    now = timezone.now()
    plaintext = weights.tobytes()
    header = EnvelopeHeader(
        suite=plan.suite,
        message_type="model",
        direction="to-device",
        federation_id=plan.federation_id,
        round_id=str(current.id),
        plan_digest=bytes(current.training.plan_digest),
        base_model_digest=bytes(current.base_model_digest),
        sender_key_id=server_verify_key(Purpose.MODEL_MANIFEST).key_id,
        plaintext_bytes=len(plaintext),
        body_bytes=0,
        created_at=to_unix_milliseconds(now),
        message_id=secrets.token_bytes(16),
    )
    sealed = seal_body(plaintext, header=header)
    manifest = ModelManifest(
        model_id=str(model_id),
        training_id=plan.training_id,
        round_id=str(current.id),
        number=current.number,
        plan_digest=bytes(current.training.plan_digest),
        base_model_digest=bytes(current.base_model_digest),
        weights_digest=weights_digest(weights),
        header=sealed.header_bytes,
        body_digest=sealed.body_digest,
        body_bytes=len(sealed.body),
        created_at=to_unix_milliseconds(now),
    )
    row = ModelVersion(
        id=model_id,
        training=current.training,
        number=current.number,
        weights_digest=manifest.weights_digest,
        base_model_digest=bytes(current.base_model_digest),
        manifest=manifest.to_bytes(),
        header=sealed.header_bytes,
        body_blob=write_blob(sealed.body),
        body_bytes=len(sealed.body),
        wrapped_content_key=vault.wrap(sealed.content_key, purpose="model-content", row_id=str(model_id)),
        optimiser_blob=_keep_optimiser_state(model_id, sealed.content_key, state),
    )
    return PreparedModel(row, make_stanzas(row, sealed.content_key, active_devices(current.training.federation)))


def make_stanzas(model: ModelVersion, content_key: bytes, devices: list[Device]) -> list[ModelStanza]:
    """Seal a content key to devices. A key that cannot be sealed to drops that device, never the publication."""
    keys = encapsulation_keys(devices)
    stanzas = []
    for device in devices:
        if (key := keys.get(device.id)) is None:
            continue
        recipient = Recipient(key=key, role="device", subject_id=str(device.id), epoch=device.key_epoch)
        with suppress(LatticewardError):
            stanza = make_stanza(content_key=content_key, header_bytes=bytes(model.header), recipient=recipient)
            count_use(key.key_id.hex())
            stanzas.append(ModelStanza(model=model, device=device, key_id=key.key_id.hex(), stanza=stanza))
    return stanzas


def seal_for_newcomers(model: ModelVersion) -> int:
    """Make the stanzas that devices lack which were activated, or have renewed their keys, since publication.

    A device whose new keys are of another suite keeps its stanza: it opens that one with the key that it had.

    Returns:
        How many were made.
    """
    if model.training.suite not in accepted_suites():
        return 0
    devices = active_devices(model.training.federation)
    sealed_to = dict(model.stanzas.values_list("device_id", "key_id"))
    kem = get_suite(model.training.suite).kem
    keys = {device: key for device, key in encapsulation_keys(devices).items() if key.algorithm == kem}
    missing = [
        device for device in devices if device.id in keys and sealed_to.get(device.id) != keys[device.id].key_id.hex()
    ]
    if not missing:
        return 0
    with transaction.atomic():
        model.stanzas.filter(device__in=missing).delete()
        made = ModelStanza.objects.bulk_create(make_stanzas(model, content_key_of(model), missing))
    return len(made)


def keep_model(current: Round, model: PreparedModel) -> None:
    model.row.save(force_insert=True)
    ModelStanza.objects.bulk_create(model.stanzas)
    record(
        "model.prepared",
        actor="worker:aggregate",
        feed=current.feed,
        subject=("model", model.row.id),
        details={"number": current.number, "weights_digest": bytes(model.row.weights_digest).hex()},
    )


def _optimiser_state(current: Round, size: int) -> OptimiserState:
    base = current.base_model
    if base is None or base.training_id != current.training_id or not base.optimiser_blob:
        return OptimiserState()
    key = derive_key(content_key_of(base), label=_OPTIMISER)
    raw = unwrap_secret(read_blob(base.optimiser_blob), key=key, associated_data=base.id.bytes)
    return OptimiserState.from_bytes(raw, size=size)


def _keep_optimiser_state(model_id: UUID, content_key: bytes, state: OptimiserState) -> str:
    if not state.moments:
        return ""
    key = derive_key(content_key, label=_OPTIMISER)
    return write_blob(wrap_secret(state.to_bytes(), key=key, associated_data=model_id.bytes))
