"""A federation as the pages meet it, made of rows and real transitions; no cryptography, no worker."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from devices import rotation, rotation_asking
from devices.models import Device, Federation, Rotation, Site
from keys.models import Key, Owner
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import DEVICE, PARTICIPANT, ROUND, TRAINING, DeviceState
from latticeward.messages import RoundRecord
from latticeward.plan_parts import MetricRelease
from rounds.models import ModelVersion, Participant, Round, Training
from rounds.services.plans import plan_for
from tests.factories import make_class

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
COMPARISON = {
    "metric": "auc",
    "pooled": 0.886,
    "central": 0.891,
    "single": {"cleveland": 0.862, "hungary": 0.855, "switzerland": 0.641, "va-long-beach": 0.742},
    "by_site": {
        "cleveland": {"value": 0.903, "small_sample": False, "examples": 91},
        "hungary": {"value": 0.911, "small_sample": False, "examples": 88},
        "switzerland": {"value": 0.657, "small_sample": True, "examples": 37},
        "va-long-beach": {"value": 0.761, "small_sample": False, "examples": 60},
    },
}

DIFFERENCE = {
    "tensors": [
        {
            "name": "weight",
            "change": "changed",
            "before_shape": [35],
            "after_shape": [35],
            "l2": 0.25,
            "largest": 0.1,
            "relative": 0.125,
            "cosine": 0.9912,
        },
        {
            "name": "bias",
            "change": "changed",
            "before_shape": [1],
            "after_shape": [1],
            "l2": 0.01,
            "largest": 0.01,
            "relative": None,
            "cosine": None,
        },
        {
            "name": "scale",
            "change": "added",
            "before_shape": None,
            "after_shape": [],
            "l2": None,
            "largest": None,
            "relative": None,
            "cosine": None,
        },
    ],
    "total": None,
}


def make_federation(hospitals: tuple[str, ...] = HOSPITALS) -> Federation:
    """A federation whose hospitals have one active device each."""
    now = timezone.now()
    federation = Federation.objects.create(slug="heart", name="Heart disease, four hospitals", created_at=now)
    for name in hospitals:
        slug = name.lower().replace(" ", "-")
        site = Site.objects.create(federation=federation, slug=slug, name=name, created_at=now)
        make_device(site, f"edge-{site.slug}")
    return federation


def make_device(site: Site, name: str, *, state: str = DeviceState.ACTIVE, seen: bool = True) -> Device:
    """A device with its signing key."""
    now = timezone.now()
    device = Device.objects.create(
        id=uuid4(),
        site=site,
        name=name,
        device_class=make_class("edge-server", site.federation),
        state=state,
        suite="hybrid",
        requested_at=now - timedelta(minutes=4),
        activated_at=now if state == DeviceState.ACTIVE else None,
        last_seen_at=now if seen else None,
    )
    Key.objects.create(
        owner=Owner.DEVICE,
        subject_id=str(device.id),
        purpose="signing",
        algorithm="mldsa65-ed25519",
        key_id=hashlib.sha256(str(device.id).encode()).hexdigest(),
        public_key=b"public",
        created_at=now,
    )
    return device


def ask_to_enrol(site: Site, name: str) -> Device:
    """A device that waits for a person, with its ledger entry."""
    device = make_device(site, name, state=DEVICE.initial, seen=False)
    with transaction.atomic():
        record(
            "device.requested",
            actor=f"device:{device.id}",
            feed=site.federation.feed,
            subject=("device", device.id),
            details={"site": site.name},
        )
    return device


def make_training(
    federation: Federation, *, rounds_max: int = 15, comparison: dict[str, object] | None = None
) -> Training:
    """A running training."""
    plan = plan_for({"job": "heart", "title": "Heart disease", "rounds": rounds_max}, federation)
    training = Training.objects.create(
        id=UUID(plan.training_id),
        federation=federation,
        title=plan.title,
        job=plan.job,
        plan=plan.to_bytes(),
        plan_digest=plan.digest,
        suite=plan.suite,
        quorum=plan.quorum,
        metric="auc",
        rounds_max=rounds_max,
        comparison=comparison,
        created_by="system",
    )
    for event in ("submit", "start"):
        apply_transition(training, TRAINING, event, actor="worker:authority", feed=federation.feed)
    return training


def open_round(training: Training, *, kind: str = "training") -> Round:
    """The training's next round, recruiting."""
    last = training.rounds.order_by("-number").first()
    number = last.number + 1 if last else 1
    now = timezone.now()
    opened = Round.objects.create(
        training=training,
        number=number,
        kind=kind,
        quorum=training.quorum,
        base_model=training.models.order_by("-number").first(),
        base_model_digest=bytes(32),
        assignment=b"assignment",
        recipient_key=b"key",
        metric_name=training.metric,
        collecting_due_at=now + timedelta(seconds=180),
    )
    devices = Device.objects.filter(site__federation=training.federation, state=DeviceState.ACTIVE)
    Participant.objects.bulk_create([Participant(round=opened, device=device) for device in devices])
    details = {"training": str(training.id), "number": number, "kind": kind}
    move(opened, "open", details=details, opened_at=now)
    move(opened, "recruit", state_due_at=now + timedelta(seconds=60))
    return opened


def move(current: Round, event: str, *, details: dict[str, object] | None = None, **columns: object) -> None:
    """Apply one event of the round's machine."""
    merged = {"number": current.number, **(details or {})}
    apply_transition(current, ROUND, event, actor="worker:aggregate", feed=current.feed, details=merged, **columns)


def join_all(current: Round) -> None:
    """Every device joins; the round then collects."""
    for participant in current.participants.select_related("device__site"):
        step(participant, "join")
    move(current, "begin_collecting", state_due_at=current.collecting_due_at)


def step(participant: Participant, event: str, *, code: str = "") -> None:
    """Apply one event of the participant's machine."""
    details = {"device": str(participant.device_id), "site": participant.device.site.name}
    apply_transition(
        participant,
        PARTICIPANT,
        event,
        actor="worker:intake",
        feed=participant.round.feed,
        details=details | ({"code": code} if code else {}),
        code=code,
    )


def count_update(current: Round, site_name: str) -> None:
    """A hospital's update arrives and is counted."""
    participant = current.participants.select_related("device__site").get(device__site__name=site_name)
    step(participant, "submit")
    step(participant, "accept")
    Round.objects.filter(pk=current.pk).update(last_update_at=timezone.now())


def publish(current: Round, value: float) -> None:
    """The round's result, with the metric of the model that it began with."""
    move(current, "begin_aggregating", closed_at=timezone.now())
    model = None
    if current.kind == "training":
        model = ModelVersion.objects.create(
            training=current.training,
            number=current.number,
            weights_digest=hashlib.sha256(current.id.bytes).digest(),
            base_model_digest=bytes(32),
            manifest=b"manifest",
            signed_manifest=b"signed",
            header=b"header",
            body_blob="00",
            body_bytes=1,
            wrapped_content_key=b"key",
        )
    move(
        current,
        "publish",
        details={"training": str(current.training_id), "kind": current.kind},
        model=model,
        metric_value=value,
        metric_support={"hospitals": 4, "patients": 276},
        record=account_of(current, model, value).to_bytes(),
        signed_record=b"signed record",
        published_at=timezone.now(),
        state_due_at=None,
    )


def account_of(current: Round, model: ModelVersion | None, value: float) -> RoundRecord:
    """What the round's record says; nobody has signed it."""
    plan = current.training.round_plan
    rows = [
        {
            "device_id": str(participant.device_id),
            "site": participant.device.site.name,
            "outcome": participant.state,
            "code": participant.code or None,
            "submission_digest": participant.device_id.bytes * 2 if participant.state == "accepted" else None,
            "metric": None,
        }
        for participant in current.participants.select_related("device__site").order_by("device_id")
    ]
    accepted = sum(row["outcome"] == "accepted" for row in rows)
    return RoundRecord(
        round_id=str(current.id),
        training_id=plan.training_id,
        federation_id=plan.federation_id,
        number=current.number,
        kind=current.kind,
        plan_digest=plan.digest,
        base_model_digest=bytes(32),
        weights_digest=bytes(model.weights_digest) if model else None,
        model_id=str(model.id) if model else None,
        suite=plan.suite,
        protection=plan.protection,
        aggregator=plan.aggregator,
        participants=tuple(rows),
        accepted=accepted,
        quorum=current.quorum,
        partial_commitments=(),
        metric={"name": plan.metric, "value": value, "hospitals": accepted, "patients": 276},
        noise_multiplier=plan.noise_multiplier,
        epsilon_spent=None,
        delta=None,
        ledger=None,
        opened_at=to_unix_milliseconds(current.opened_at or current.created_at),
        closed_at=to_unix_milliseconds(current.closed_at or current.created_at),
    )


def run_round(training: Training, value: float, *, kind: str = "training") -> Round:
    """A whole round in which every hospital's update counts."""
    current = open_round(training, kind=kind)
    join_all(current)
    for participant in current.participants.select_related("device__site"):
        count_update(current, participant.device.site.name)
    publish(current, value)
    return current


def measure_hospitals(model: ModelVersion) -> None:
    """The hospitals' own values of a version, as a plan that releases them would have them kept."""
    plan = model.training.round_plan
    released = replace(plan, release=MetricRelease(hospital_metrics=True, patients_per_class=20))
    Training.objects.filter(pk=model.training_id).update(plan=released.to_bytes(), plan_digest=released.digest)
    measured = Participant.objects.filter(round__base_model=model).order_by("device__site__name")
    for participant, value in zip(measured, (0.874, 0.861, 0.702, 0.796), strict=True):
        Participant.objects.filter(pk=participant.pk).update(
            metric={"name": plan.metric, "value": value, "patients": 60}
        )


def complete(training: Training) -> None:
    """The training reaches its stop rule."""
    apply_transition(
        training, TRAINING, "complete", actor="worker:aggregate", feed=training.federation.feed, ended_at=timezone.now()
    )


def start_rotation(federation: Federation) -> Rotation:
    """A running job over the fleet, its first devices asked."""
    job = rotation.start_rotation(federation=federation, scope="fleet", actor="system", why="a drill")
    rotation_asking.advance_rotations()
    return job
