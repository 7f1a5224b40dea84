"""What a federation holds when requests made from the schema come to it, so that some ask for what there is."""

import secrets
from dataclasses import dataclass

from devices import rotation
from devices.claims import create_claim
from devices.models import Device, DeviceClass
from keys.models import Certificate, Key
from keys.publication import keep_published
from keys.selectors import issuers_in_use
from rounds.models import Round
from rounds.services import aliases, differences, exports, uploads
from rounds.services.publication import open_model
from tests.devices.enciphering import Enciphering
from tests.devices.machine import Machine
from tests.devices.renewing import Renewing, ask
from tests.rounds.cohort import Cohort
from tests.rounds.line import digest_of

WHY = {"reason": "a test", "actor": "user:0"}


@dataclass(frozen=True, slots=True)
class Held:
    """Ids by the first noun of an address, and the machine that some of them belong to."""

    ids: dict[str, list[str]]
    machine: Machine


def hold(cohort: Cohort) -> Held:
    """Two versions of one training, a second training that collects, and one of everything else that has an id."""
    training = cohort.train(rounds=2, evaluate_last=False)
    first = cohort.whole_round(training)
    second = cohort.whole_round(training, cohort.weights(first))
    assert first.model is not None and second.model is not None
    open_model(second.model)
    collecting = cohort.collecting(cohort.train())
    submitted = cohort.hospitals[1].submit(collecting, cohort.hospitals[1].prepare(collecting))
    move = aliases.propose_move(model=second.model, name="production", **WHY)
    export = exports.request_export(model=first.model, form="safetensors", licence="none", **WHY)
    ready = exports.request_export(model=second.model, form="safetensors", licence="none", **WHY)
    exports.make_export(ready.id)
    difference = differences.request_difference(before=first.model, after=second.model, actor="user:0")
    differences.compute_difference(difference.id)
    machine = cohort.hospitals[0].machine
    claim, _ = create_claim(site=machine.site, device_class="workstation", actor="user:0")
    waiting = Machine.with_claim(machine.site)
    waiting.finish(waiting.begin())
    job = rotation.start_rotation(federation=cohort.federation, scope="fleet", actor="user:0")
    keep_published()
    ids = {
        "alias-moves": [move.id],
        "certificates": list(Certificate.objects.values_list("serial", flat=True)),
        "claims": [claim.id, machine.claim.id],
        "device-classes": list(DeviceClass.objects.values_list("id", flat=True)),
        "devices": list(Device.objects.values_list("id", flat=True)),
        "enrolments": [waiting.enrolment_id, machine.enrolment_id],
        "keys": list(Key.objects.values_list("id", flat=True)),
        "model-differences": [difference.id],
        "model-exports": [export.id, ready.id],
        "models": [first.model.id, second.model.id],
        "revocations": [issuer.fingerprint[:16] for issuer in issuers_in_use(job.created_at)],
        "rotations": [job.id],
        "rounds": [first.id, second.id, collecting.id],
        "sites": [machine.site.id],
        "submissions": [submitted.id],
        "suites": ["hybrid", "high"],
        "trainings": [training.id, collecting.training_id],
        **_of_machine(cohort, machine, collecting),
    }
    return Held({noun: sorted(map(str, found)) for noun, found in ids.items()}, machine)


def _of_machine(cohort: Cohort, machine: Machine, collecting: Round) -> dict[str, list[object]]:
    """A renewal, a request for a certificate and an upload that this machine has begun."""
    enciphering = Enciphering(machine)
    enciphering.begin()
    ask(machine)
    renewing = Renewing(machine)
    renewing.begin()
    hospital = cohort.hospitals[0]
    envelope = hospital.prepare(collecting)
    opened = uploads.open_upload(
        round_id=collecting.id,
        device=hospital.device,
        digest=digest_of(envelope),
        sha256=secrets.token_hex(32),
        size_bytes=len(envelope),
    )
    assert opened.upload is not None
    return {
        "encipherments": [enciphering.encipherment_id],
        "renewals": [renewing.renewal_id],
        "uploads": [opened.upload.id],
    }
