"""What of a model is made while its round collects: nobody gets more by it, and nobody less."""

import numpy as np
import pytest

from devices.services import revoke_device
from keys.models import Key, Reason
from keys.rotation import rotate_server_key
from keys.selectors import server_verify_key
from latticeward.agent.models import open_model
from latticeward.crypto import stanza as stanzas
from latticeward.crypto.signing import Purpose
from latticeward.messages import ModelManifest
from rounds import selectors, tasks
from rounds.models import ModelStanza, Round
from rounds.services import coordination, intake, publication
from rounds.storage import read_blob
from tests.devices.machine import enrolled
from tests.devices.test_renewal import renewed
from tests.rounds.cohort import Cohort, Hospital

pytestmark = pytest.mark.django_db


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that a content key was sealed to since it was cleared, one by one."""
    devices: list[str] = []
    make = publication.make_stanza

    def making(*, recipient: stanzas.Recipient, **others: bytes) -> bytes:
        devices.append(recipient.subject_id)
        return make(recipient=recipient, **others)

    monkeypatch.setattr(publication, "make_stanza", making)
    return devices


def ready(cohort: Cohort, **plan: int) -> Round:
    """A collecting round whose stanzas are made."""
    current = cohort.collecting(cohort.train(**plan))
    tasks.advance_round(str(current.id))
    return current


def ids(hospitals: list[Hospital]) -> list[str]:
    return sorted(str(hospital.device.id) for hospital in hospitals)


def require_opens(hospital: Hospital, published: Round, cohort: Cohort) -> None:
    found = selectors.manifest_for(published.model.id, hospital.device)
    assert found is not None
    weights = open_model(
        ModelManifest.verify(bytes(published.model.signed_manifest), key=server_verify_key(Purpose.MODEL_MANIFEST)),
        stanza=found[1],
        body=read_blob(published.model.body_blob),
        size=published.training.round_plan.layout.size,
        device_id=str(hospital.device.id),
        epoch=hospital.device.key_epoch,
        federation_id=str(published.training.federation_id),
        decapsulation_key=hospital.machine.keys.decapsulation,
    )
    assert np.array_equal(weights, cohort.weights(published))


def test_what_is_ready_is_not_made_again_after_the_last_update(cohort: Cohort, sealed: list[str]) -> None:
    current = ready(cohort)
    assert sorted(sealed) == ids(cohort.hospitals)
    tasks.advance_round(str(current.id))
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    published = cohort.publish(current)
    assert len(sealed) == len(cohort.hospitals)
    for hospital in cohort.hospitals:
        require_opens(hospital, published, cohort)


def test_a_device_revoked_meanwhile_gets_nothing_and_one_with_new_keys_another_stanza(
    cohort: Cohort, sealed: list[str]
) -> None:
    current = ready(cohort, quorum=3)
    for hospital in cohort.hospitals[:3]:
        hospital.contribute(current)
    sealed.clear()
    gone, other = cohort.hospitals[3], cohort.hospitals[2]
    revoke_device(device_id=gone.device.id, reason=Reason.KEY_COMPROMISE, actor="user:1")
    other.machine = renewed(other.machine)
    published = cohort.publish(current)
    assert sealed == ids([other])
    assert not ModelStanza.objects.filter(model=published.model, device=gone.device).exists()
    for hospital in cohort.hospitals[:3]:
        require_opens(hospital, published, cohort)


def test_a_device_that_came_meanwhile_gets_its_stanza_with_the_others(cohort: Cohort, sealed: list[str]) -> None:
    current = ready(cohort)
    newcomer = enrolled(cohort.hospitals[0].device.site)
    assert newcomer.device is not None
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    sealed.clear()
    published = cohort.publish(current)
    assert sealed == [str(newcomer.device.id)]
    assert published.model.stanzas.count() == len(cohort.hospitals) + 1


def test_a_server_key_that_was_replaced_meanwhile_is_not_named_by_the_model(cohort: Cohort, sealed: list[str]) -> None:
    current = ready(cohort)
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    sealed.clear()
    rotate_server_key(purpose=Purpose.MODEL_MANIFEST, actor="user:1")
    published = cohort.publish(current)
    assert sorted(sealed) == ids(cohort.hospitals)  # under another header, so with another content key
    for hospital in cohort.hospitals:
        require_opens(hospital, published, cohort)


def test_a_worker_that_has_made_nothing_ahead_publishes_as_well(cohort: Cohort, sealed: list[str]) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        intake.process_update(hospital.submit(current, hospital.prepare(current)).id)
    assert sealed == []
    published = cohort.publish(current)
    assert sorted(sealed) == ids(cohort.hospitals)
    require_opens(cohort.hospitals[0], published, cohort)


def test_a_key_that_cannot_be_read_keeps_nobody_else_from_the_model(cohort: Cohort) -> None:
    broken = cohort.hospitals[1].device
    Key.objects.filter(subject_id=str(broken.id), purpose="encapsulation").update(public_key=b"no key")
    current = ready(cohort)
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    published = cohort.publish(current)
    assert published.model.stanzas.count() == len(cohort.hospitals) - 1
    assert not published.model.stanzas.filter(device=broken).exists()


def test_only_the_newest_rounds_are_kept_ready(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "_READY_ROUNDS", 2)
    publication._ready.clear()
    first, second, third = (ready(cohort) for _ in range(3))
    assert list(publication._ready) == [second.id, third.id]
    for hospital in cohort.hospitals:
        hospital.contribute(first)
    assert coordination.advance_round(first.id) == "begin_aggregating"
