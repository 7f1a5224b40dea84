"""Who may open which page, what it shows, what it shows when there is nothing, and how many queries it takes."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from devices.models import Device, DeviceClass, Site
from rounds.models import Training
from rounds.services.differences import request_difference
from tests.frontend import scene

pytestmark = pytest.mark.django_db

EVERYBODY = ("operator", "clinician", "compliance")
KEY_READERS = ("operator", "compliance")
PAGES = {
    "overview": EVERYBODY,
    "trainings": EVERYBODY,
    "training": EVERYBODY,
    "round": EVERYBODY,
    "round-record": KEY_READERS,
    "models": EVERYBODY,
    "model": EVERYBODY,
    "model-manifest": KEY_READERS,
    "model-difference": EVERYBODY,
    "devices": KEY_READERS,
    "claims": KEY_READERS,
    "sites": KEY_READERS,
    "site": KEY_READERS,
    "device-classes": KEY_READERS,
    "device-class": ("operator",),
    "rotations": KEY_READERS,
    "rotation": KEY_READERS,
    "keys": KEY_READERS,
    "ledger": KEY_READERS,
}
# The whole page of a signed-in operator, session and person included.
QUERIES = {
    "overview": 17,
    "trainings": 4,
    "training": 9,
    "round": 7,
    "round-record": 4,
    "devices": 8,
    "ledger": 10,
    "keys": 9,
    "models": 10,
    "model": 18,
    "model-manifest": 6,
    "model-difference": 18,
}
QUERIES |= {"rotations": 11, "rotation": 7}
QUERIES |= {"claims": 9, "sites": 6, "site": 6, "device-classes": 6, "device-class": 5}
MOVING = ("overview", "training", "round", "models", "model", "devices", "keys", "ledger")

Address = Callable[[str], str]


@pytest.fixture
def training(db: None) -> Training:
    federation = scene.make_federation()
    made = scene.make_training(federation)
    scene.run_round(made, 0.5)
    scene.run_round(made, 0.71)
    return made


@pytest.fixture
def address(training: Training) -> Address:
    last = training.rounds.order_by("-number").first()
    assert last is not None
    first, second = training.models.order_by("number")
    difference = request_difference(before=first, after=second, actor="system")
    arguments: dict[str, list[UUID]] = {
        "training": [training.id],
        "round": [last.id],
        "round-record": [last.id],
        "model": [first.id],
        "model-manifest": [first.id],
        "model-difference": [difference.id],
    }
    arguments |= {"site": [Site.objects.earliest("name").id], "device-class": [DeviceClass.objects.earliest("name").id]}
    arguments |= {"rotation": [scene.start_rotation(training.federation).id]}
    return lambda page: reverse(page, args=arguments.get(page, []))


@pytest.fixture
def person(request: pytest.FixtureRequest) -> User:
    user: User = request.getfixturevalue(request.param)
    return user


@pytest.mark.parametrize("page", PAGES)
def test_anonymous_people_are_sent_to_the_sign_in_page_and_back(client: Client, address: Address, page: str) -> None:
    answer = client.get(address(page))
    assert answer.status_code == 302
    assert answer["Location"] == f"/sign-in/?next={address(page)}"


def test_a_fragment_sends_the_whole_page_to_sign_in(client: Client, address: Address) -> None:
    answer = client.get(address("overview") + "?part=now", headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer["HX-Redirect"].startswith("/sign-in/")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("person", [*EVERYBODY, "stranger"], indirect=True)
def test_only_the_roles_of_a_page_may_open_it(
    client: Client, address: Address, person: User, page: str, request: pytest.FixtureRequest
) -> None:
    client.force_login(person)
    answer = client.get(address(page))
    role = request.node.callspec.params["person"]
    assert answer.status_code == (200 if role in PAGES[page] else 403)
    if answer.status_code == 200:
        assert answer["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize("page", PAGES)
def test_query_counts_stay_small(
    client: Client, operator: User, address: Address, page: str, django_assert_max_num_queries: Callable[..., object]
) -> None:
    client.force_login(operator)
    with django_assert_max_num_queries(QUERIES[page]):  # type: ignore[attr-defined]
        client.get(address(page))


@pytest.mark.parametrize("page", MOVING)
def test_the_moving_part_is_the_same_address_without_the_frame(
    client: Client, operator: User, address: Address, page: str
) -> None:
    client.force_login(operator)
    whole = client.get(address(page)).content.decode()
    part = client.get(address(page) + "?part=now", headers={"HX-Request": "true"}).content.decode()
    assert "<html" in whole and "data-live-topics" in whole
    assert "<html" not in part and "data-live-topics" in part


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("overview", "No training yet"),
        ("trainings", "No training yet"),
        ("models", "No model yet"),
        ("devices", "No device yet"),
        ("ledger", "The ledger is empty"),
    ],
)
def test_empty_pages_say_what_they_are_for(client: Client, operator: User, page: str, sentence: str) -> None:
    client.force_login(operator)
    answer = client.get(reverse(page))
    assert answer.status_code == 200
    assert sentence in answer.content.decode()


@pytest.mark.parametrize("page", ["training", "round", "model", "model-difference"])
def test_unknown_ids_are_not_found(client: Client, operator: User, page: str) -> None:
    client.force_login(operator)
    assert client.get(reverse(page, args=[uuid4()])).status_code == 404


def test_every_script_carries_the_nonce_or_comes_from_here(client: Client, operator: User, address: Address) -> None:
    client.force_login(operator)
    answer = client.get(address("training"))
    policy = answer["Content-Security-Policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    text = answer.content.decode()
    inline = [tag for tag in text.split("<script")[1:] if "src=" not in tag.split(">")[0]]
    assert len(inline) == 1 and f'nonce="{nonce}"' in inline[0] and "importmap" in inline[0]
    assert "style=" not in text and "<style" not in text
    assert "default-src 'none'" in policy


def test_the_overview_names_who_waits_and_what_failed(client: Client, operator: User, training: Training) -> None:
    scene.ask_to_enrol(Site.objects.get(name="Hungary"), "edge-new")
    failed = scene.open_round(training)
    scene.join_all(failed)
    scene.move(failed, "fail", failure_code="quorum_not_met")
    client.force_login(operator)
    text = client.get(reverse("overview")).content.decode()
    assert "edge-new</strong> of Hungary asks to be enrolled" in text
    assert "Too few hospitals&#x27; updates arrived in time." in text
    assert "Nothing waits for a person" not in text


def test_clinicians_see_no_key_material_and_no_approvals(client: Client, clinician: User, training: Training) -> None:
    device = scene.ask_to_enrol(Site.objects.get(name="Hungary"), "edge-new")
    client.force_login(clinician)
    for page in (reverse("overview"), reverse("training", args=[training.id])):
        text = client.get(page).content.decode()
        assert "ingerprint" not in text
        assert str(device.id) not in text
        assert "/record/" not in text


def test_the_live_page_says_the_round_in_one_sentence(client: Client, clinician: User, training: Training) -> None:
    current = scene.open_round(training)
    scene.join_all(current)
    for hospital in ("Cleveland", "Hungary", "VA Long Beach"):
        scene.count_update(current, hospital)
    refused = current.participants.select_related("device__site").get(device__site__name="Switzerland")
    scene.step(refused, "submit")
    scene.step(refused, "reject", code="norm_exceeded")
    client.force_login(clinician)
    text = client.get(reverse("training", args=[training.id])).content.decode()
    assert "Round 3: 3 of 4 updates, quorum 3 reached" in text
    assert "3 of 4 updates counted; the quorum is 3" in text
    assert "The update holds values out of the plan&#x27;s range. <code>norm_exceeded</code>" in text
    assert "mlkem768-x25519" in text


def test_a_finished_training_shows_its_comparison_with_the_warning(client: Client, clinician: User) -> None:
    training = scene.make_training(scene.make_federation(), rounds_max=1, comparison=scene.COMPARISON)
    scene.run_round(training, 0.5)
    scene.run_round(training, 0.886, kind="evaluation")
    scene.complete(training)
    client.force_login(clinician)
    text = client.get(reverse("training", args=[training.id])).content.decode()
    assert "Completed: 1 of 1 rounds published, pooled AUC 0.886" in text
    assert "the best hospital alone, Cleveland, 0.862" in text
    assert "Small sample: fewer than ten held-out patients in one class" in text


def test_filters_of_the_fleet_live_in_the_address(client: Client, operator: User, training: Training) -> None:
    client.force_login(operator)
    Device.objects.filter(name="edge-hungary").update(last_seen_at=None)
    text = client.get(reverse("devices") + "?connection=unknown").content.decode()
    assert "1 of 4 devices" in text and "edge-cleveland" not in text
    assert "No device fits these filters" in client.get(reverse("devices") + "?credential=revoked").content.decode()


def test_the_ledger_says_events_in_words_and_can_be_narrowed(
    client: Client, compliance: User, address: Address
) -> None:
    client.force_login(compliance)
    assert "The round&#x27;s result was signed and published" in client.get(address("ledger")).content.decode()
    assert "signed and published" not in client.get(address("ledger") + "?kind=training").content.decode()


def test_the_record_is_the_signed_bytes(client: Client, compliance: User, address: Address) -> None:
    client.force_login(compliance)
    answer = client.get(address("round-record"))
    assert answer.content == b"signed record"
    assert answer["Content-Type"] == "application/cbor"
