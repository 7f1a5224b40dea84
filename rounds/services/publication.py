"""Making a model version: the server optimiser's step, one sealed body for all, one stanza a device.

Header, content key and stanzas need no weights, so ``get_ready`` makes them while the round collects; after the last
update only what has changed since is made: a device that lost its trust gets none, one with new keys another. They are
in the memory of one worker and nowhere else; a worker that has none makes all of it when the round closes.

The body's content key rests wrapped in the vault, so that devices which join later get their stanza and the next
round's worker can open its base model; the web tier has neither.
"""

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Final
from uuid import UUID, uuid4

import numpy as np
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.prepared import insert_rows
from devices.selectors import HeldKey, encapsulation_keys
from devices.suites import accepted_suites, require_accepted
from keys import vault
from keys.selectors import server_verify_key
from keys.usage import count_use
from latticeward import optimisers
from latticeward.crypto.envelope import EnvelopeHeader, PlannedBody, Recipient, SealedBody, make_stanza, open_body
from latticeward.crypto.kem import EncapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import get_suite
from latticeward.crypto.wrapping import derive_key, unwrap_secret, wrap_secret
from latticeward.errors import LatticewardError
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import RoundState
from latticeward.messages import ModelManifest
from latticeward.optimisers.state import OptimiserState
from latticeward.plan import RoundPlan
from latticeward.updates.encoding import DecodedSum
from latticeward.updates.tensors import FloatVector, initial_vector, weights_digest
from rounds.models import ModelStanza, ModelVersion, Round
from rounds.storage import read_blob, write_blob

_OPTIMISER: Final = "latticeward/optimiser-state/v1"
# Of so many rounds at most, the newest; a stanza has 1.2 kB.
_READY_ROUNDS: Final = 16


class PlannedModel:
    """Header and content key of a round's model, and the stanzas that are made of them, by the key they are for."""

    def __init__(self, body: PlannedBody) -> None:
        self.body = body
        self.stanzas: dict[HeldKey, bytes] = {}

    def seal_to(self, keys: Iterable[HeldKey]) -> dict[HeldKey, bytes]:
        """The stanza of each key; those that are there already are not made again.

        A key that cannot be sealed to drops that device, never the publication.
        """
        found = {}
        for key in keys:
            with suppress(LatticewardError):
                found[key] = self.stanzas.get(key) or _stanza(key, self.body.content_key, self.body.header_bytes)
        return found


_ready: dict[UUID, PlannedModel] = {}


def open_model(model: ModelVersion) -> FloatVector:
    """The weights of a model version, float32 (d,), for the aggregation worker."""
    raw = open_body(
        header_bytes=bytes(model.header), body=read_blob(model.body_blob), content_key=content_key_of(model)
    )
    return np.frombuffer(raw, dtype="<f4")


def content_key_of(model: ModelVersion) -> bytes:
    """The key to a model's sealed body, out of the vault (32 bytes)."""
    return vault.unwrap(bytes(model.wrapped_content_key), purpose="model-content", row_id=str(model.id))


def base_weights(current: Round, plan: RoundPlan) -> FloatVector:
    """The weights that a round begins with, float32 (d,)."""
    return open_model(current.base_model) if current.base_model else initial_vector(plan.layout, plan.initial)


def next_weights(
    current: Round, plan: RoundPlan, base: FloatVector, decoded: DecodedSum
) -> tuple[FloatVector, OptimiserState]:
    """The server optimiser's step from the round's base weights: the same bits whenever it is taken.

    The optimiser's moments belong to the training that made them: in a round that begins with a version of another
    training it begins anew.

    Returns:
        float32 weights (d,) and the optimiser's state after the step.
    """
    state = _optimiser_state(current, plan.layout.size)
    return optimisers.next_weights(base, decoded.mean, state, plan.server_optimiser)


def get_ready(round_id: UUID) -> None:
    """Make what the model of a collecting round will need and no update changes; harmless to repeat."""
    if round_id in _ready:
        return
    rows = Round.objects.select_related("training__federation")
    current = rows.filter(pk=round_id, state=RoundState.COLLECTING, kind="training").first()
    if current is None or current.training.suite not in accepted_suites():
        return
    planned = PlannedModel(PlannedBody(_header(current, current.training.round_plan)))
    planned.stanzas = planned.seal_to(encapsulation_keys(current.training.federation).values())
    while len(_ready) >= _READY_ROUNDS:
        _ready.pop(next(iter(_ready)), None)
    _ready[round_id] = planned


class ModelInMaking:
    """The round's model version while its base is opened, and its weights are stepped, sealed and hashed, on threads.

    These need neither database nor, for most of it, the interpreter, and the caller has questions to ask meanwhile.

    Args:
        beside: two threads or more.

    Raises:
        UnsupportedSuiteError: the plan's suite was retired since: nothing new is sealed in it.
    """

    def __init__(self, current: Round, plan: RoundPlan, beside: ThreadPoolExecutor) -> None:
        require_accepted(plan.suite)
        self.model_id = uuid4()
        self._current = current
        self._plan = plan
        self._beside = beside
        self._base = beside.submit(base_weights, current, plan)
        self._planned = _plan_of(current, plan)

    def begin(self, decoded: DecodedSum) -> None:
        """Begin with the step, as soon as the mean update is known."""
        self._stepped = self._beside.submit(
            lambda: next_weights(self._current, self._plan, self._base.result(), decoded)
        )
        self._sealed = self._beside.submit(self._seal)
        self._digest = self._beside.submit(lambda: weights_digest(self._stepped.result()[0]))

    def _seal(self) -> tuple[SealedBody, str]:
        weights, _ = self._stepped.result()
        sealed = self._planned.body.seal(weights.view(np.uint8).data)
        return sealed, write_blob(sealed.body)

    def keep_stanzas(self) -> None:
        """Seal to every device; in the transaction that keeps the model, which may come after what refers to it."""
        stanzas = self._planned.seal_to(encapsulation_keys(self._current.training.federation).values())
        insert_rows([_stanza_row(self.model_id, key, stanza) for key, stanza in stanzas.items()])

    def finish(self) -> ModelVersion:
        """The version, which nobody keeps yet.

        Raises:
            ContributionError: the step gave what is no model.
        """
        current = self._current
        sealed, body_blob = self._sealed.result()
        manifest = ModelManifest(
            model_id=str(self.model_id),
            training_id=self._plan.training_id,
            round_id=str(current.id),
            number=current.number,
            plan_digest=bytes(current.training.plan_digest),
            base_model_digest=bytes(current.base_model_digest),
            weights_digest=self._digest.result(),
            header=sealed.header_bytes,
            body_digest=sealed.body_digest,
            body_bytes=len(sealed.body),
            created_at=to_unix_milliseconds(timezone.now()),
        )
        return ModelVersion(
            id=self.model_id,
            training=current.training,
            number=current.number,
            weights_digest=manifest.weights_digest,
            base_model_digest=bytes(current.base_model_digest),
            manifest=manifest.to_bytes(),
            header=sealed.header_bytes,
            body_blob=body_blob,
            body_bytes=len(sealed.body),
            wrapped_content_key=vault.wrap(sealed.content_key, purpose="model-content", row_id=str(self.model_id)),
            optimiser_blob=_keep_optimiser_state(self.model_id, sealed.content_key, self._stepped.result()[1]),
        )


def _plan_of(current: Round, plan: RoundPlan) -> PlannedModel:
    """What was made ahead, taken for good; made now if there is nothing, or if it is not what would be made now."""
    planned = _ready.pop(current.id, None)
    header = _header(current, plan)
    if planned is None or not _alike(planned.body.header, header):
        return PlannedModel(PlannedBody(header))
    return planned


def _header(current: Round, plan: RoundPlan) -> EnvelopeHeader:
    return EnvelopeHeader(
        suite=plan.suite,
        message_type="model",
        direction="to-device",
        federation_id=plan.federation_id,
        round_id=str(current.id),
        plan_digest=bytes(current.training.plan_digest),
        base_model_digest=bytes(current.base_model_digest),
        sender_key_id=server_verify_key(Purpose.MODEL_MANIFEST).key_id,
        plaintext_bytes=4 * plan.layout.size,
        body_bytes=0,
        created_at=to_unix_milliseconds(timezone.now()),
        message_id=secrets.token_bytes(16),
    )


def _alike(planned: EnvelopeHeader, present: EnvelopeHeader) -> bool:
    """Whether two headers are of one message: the server's key, for one, may have been replaced since."""
    return planned == replace(
        present, body_bytes=planned.body_bytes, created_at=planned.created_at, message_id=planned.message_id
    )


def _stanza(key: HeldKey, content_key: bytes, header_bytes: bytes) -> bytes:
    recipient = Recipient(
        key=EncapsulationKey.from_raw(key.raw, key.algorithm),
        role="device",
        subject_id=str(key.device_id),
        epoch=key.epoch,
    )
    made = make_stanza(content_key=content_key, header_bytes=header_bytes, recipient=recipient)
    count_use(key.key_id)
    return made


def _stanza_row(model_id: UUID, key: HeldKey, stanza: bytes) -> ModelStanza:
    return ModelStanza(model_id=model_id, device_id=key.device_id, key_id=key.key_id, stanza=stanza)


def seal_for_newcomers(model: ModelVersion) -> int:
    """Make the stanzas that devices lack which were activated, or have renewed their keys, since publication.

    A device whose new keys are of another suite keeps its stanza: it opens that one with the key that it had.

    Returns:
        How many were made.
    """
    if model.training.suite not in accepted_suites():
        return 0
    sealed_to = dict(model.stanzas.values_list("device_id", "key_id"))
    kem = get_suite(model.training.suite).kem
    missing = [
        key
        for key in encapsulation_keys(model.training.federation).values()
        if key.algorithm == kem and sealed_to.get(key.device_id) != key.key_id
    ]
    if not missing:
        return 0
    content_key, header_bytes, rows = content_key_of(model), bytes(model.header), []
    for key in missing:
        with suppress(LatticewardError):  # as in ``PlannedModel.seal_to``
            rows.append(_stanza_row(model.id, key, _stanza(key, content_key, header_bytes)))
    with transaction.atomic():
        model.stanzas.filter(device__in=[row.device_id for row in rows]).delete()
        made = ModelStanza.objects.bulk_create(rows)
    return len(made)


def keep_model(current: Round, model: ModelVersion) -> None:
    model.save(force_insert=True)
    record(
        "model.prepared",
        actor="worker:aggregate",
        feed=current.feed,
        subject=("model", model.id),
        details={"number": current.number, "weights_digest": bytes(model.weights_digest).hex()},
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
