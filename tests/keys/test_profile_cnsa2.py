"""The profile ``cnsa2``: category 5 at every place, for the authority and for what its devices get."""

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Error

from controlplane.checks import production_is_safe
from controlplane.environment import Environment
from devices import authentication, services, sites
from devices.models import Federation, Site
from keys.ceremony import init_authority
from keys.models import Authority, Certificate, Key
from keys.publication import keep_published
from keys.rotation import rotate_server_key
from keys.selectors import device_keys, trust_anchor, trust_document
from latticeward.agent.identity import load_or_make_secrets
from latticeward.crypto.certificate import PROFILES, DeviceNames, profile_of, verify_chain
from latticeward.crypto.httpsig import RequestFacts, sign_request
from latticeward.crypto.keys import AuthenticationSigningKey
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DeviceKeys
from latticeward.errors import (
    CertificateNotValidError,
    CustodyError,
    InvalidSignatureError,
    MalformedMessageError,
    StateError,
    UnsupportedSuiteError,
)
from latticeward.trust import TrustStore
from tests.devices.machine import Machine

pytestmark = pytest.mark.django_db


@pytest.fixture
def strict(settings: Any) -> None:
    settings.AUTHORITY_PROFILE, settings.ACCEPTED_SUITES, settings.SUITE_FLOOR = "cnsa2", ("high",), "high"


@pytest.fixture
def strict_site(strict: None) -> Site:
    federation = services.found_federation(slug="heart", name="Heart federation")
    return sites.create_site(federation=federation, slug="cleveland", name="Cleveland Clinic", actor="user:1")


class StrictMachine(Machine):
    """A machine that offers the suite ``high`` and nothing else."""

    def transcript(self, **changes: object) -> bytes:
        return super().transcript(**{"suites": ("high",), "floor": "high", **changes})


def strict_machine(site: Site, suite: str = "high") -> Machine:
    machine = StrictMachine.with_claim(site)
    machine.keys = DeviceKeys.generate(suite)
    return machine


def test_every_key_of_the_authority_is_of_category_five(strict_site: Site) -> None:
    keep_published()
    algorithms = dict(Key.objects.filter(owner="authority").values_list("purpose", "algorithm"))
    assert {algorithms.pop(name) for name in ("root", "issuing", "responder")} == {"ml-dsa-87"}
    assert set(algorithms.values()) == {"mldsa87-p384"}
    rotate_server_key(purpose=Purpose.PLAN, actor="user:1")
    assert set(Key.objects.filter(purpose="plan").values_list("algorithm", flat=True)) == {"mldsa87-p384"}


def test_a_device_gets_category_five_keys_and_a_certificate_that_verifies(strict_site: Site) -> None:
    machine = strict_machine(strict_site)
    device = machine.enrol()
    assert (device.state, device.suite) == ("active", "high")
    rows = device_keys(str(device.id), epoch=1)
    assert {role: row.algorithm for role, row in rows.items()} == {
        "authentication": "ml-dsa-87",
        "classical": "ed25519",
        "signing": "mldsa87-p384",
        "encapsulation": "mlkem1024-p384",
    }
    leaf = Certificate.objects.select_related("issuer").get(key=rows["authentication"])
    store = TrustStore.from_signed(
        trust_document(), anchor_fingerprint=trust_anchor().fingerprint, now=datetime.now(UTC)
    )
    assert leaf.issuer is not None
    found = verify_chain(
        [bytes(leaf.der), bytes(leaf.issuer.der)],
        root=store.root_certificate,
        now=store.now,
        names=DeviceNames(federation="heart", site="cleveland", device_id=str(device.id)),
        profile=profile_of(store.statement.certificates[0]),
    )
    assert found.algorithm == "ml-dsa-87"
    assert found.public_key == machine.keys.authentication.verify_key.raw
    with pytest.raises(CertificateNotValidError, match="another algorithm"):
        verify_chain(
            [bytes(leaf.der), bytes(leaf.issuer.der)],
            root=store.root_certificate,
            now=store.now,
            profile=PROFILES["standard"],
        )


def test_its_requests_are_signed_with_ml_dsa_87_and_stay_within_a_header_line(
    strict_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = strict_machine(strict_site)
    machine.enrol()
    facts = machine.facts()
    assert 'alg="ml-dsa-87"' in (facts.header("signature-input") or "")
    assert len(facts.header("signature") or "") < 8000
    assert authentication.authenticate(facts).device.id == machine.device.id  # type: ignore[union-attr]


def test_a_request_that_names_another_parameter_set_than_the_registered_key_is_refused(strict_site: Site) -> None:
    machine = strict_machine(strict_site)
    machine.enrol()
    host = machine.facts().authority
    smaller = AuthenticationSigningKey.generate()
    added = sign_request(
        "GET",
        host,
        "/api/v1/work",
        "",
        [],
        None,
        key_id=machine.keys.authentication.verify_key.key_id.hex(),
        mldsa=smaller,
        ed25519=machine.keys.classical,
        created_at=datetime.now(UTC),
        nonce=secrets.token_bytes(16),
    )
    facts = RequestFacts.make("GET", host, "/api/v1/work", "", [("host", host), *added.items()])
    with pytest.raises(InvalidSignatureError, match="registered key is ml-dsa-87"):
        authentication.authenticate(facts)


def test_weaker_suites_and_keys_are_refused_at_the_first_message(strict_site: Site) -> None:
    with pytest.raises(UnsupportedSuiteError):
        Machine.with_claim(strict_site).begin()  # the suite hybrid, with its own keys
    with pytest.raises(UnsupportedSuiteError, match="not made for any suite"):
        strict_machine(strict_site, "hybrid").begin()
    mixed = strict_machine(strict_site)
    mixed.keys = replace(mixed.keys, authentication=AuthenticationSigningKey.generate())
    with pytest.raises(UnsupportedSuiteError, match="not made for any suite"):
        mixed.begin()


def test_a_key_of_one_parameter_set_is_not_read_as_another() -> None:
    raw = AuthenticationSigningKey.generate("ml-dsa-87").verify_key.raw
    from latticeward.crypto.keys import AuthenticationVerifyKey

    assert AuthenticationVerifyKey.from_raw(raw, "ml-dsa-87").algorithm == "ml-dsa-87"
    with pytest.raises(MalformedMessageError):
        AuthenticationVerifyKey.from_raw(raw, "ml-dsa-65")
    with pytest.raises(UnsupportedSuiteError):
        AuthenticationVerifyKey.from_raw(raw, "ml-dsa-44")


def test_an_authority_does_not_change_its_profile(federation: Federation, settings: Any) -> None:
    assert Authority.objects.get().profile == "standard"
    settings.AUTHORITY_PROFILE = "cnsa2"
    with pytest.raises(StateError, match="LATTICEWARD_PROFILE=standard"):
        init_authority(federation_id=federation.id, federation="heart")


def test_the_profile_brings_its_suite_and_the_check_refuses_a_weaker_one(settings: Any) -> None:
    made = Environment(profile="cnsa2")
    assert (made.suites, made.suite_floor) == ("high", "high")
    settings.AUTHORITY_PROFILE, settings.ACCEPTED_SUITES = "cnsa2", ("hybrid", "high")
    found = [problem for problem in production_is_safe(None) if isinstance(problem, Error)]
    assert [problem.id for problem in found] == ["latticeward.E007"]


def test_an_agent_keeps_the_suite_of_its_keys(tmp_path: Path) -> None:
    made = load_or_make_secrets(tmp_path, suite="high")
    again = load_or_make_secrets(tmp_path, suite="high")
    assert made.keys.public.matches(again.keys.public)
    assert again.keys.public.encapsulation.algorithm == "mlkem1024-p384"
    with pytest.raises(CustodyError, match="of the suite high, not hybrid"):
        load_or_make_secrets(tmp_path)
