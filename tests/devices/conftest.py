"""A federation with one hospital, and nothing remembered from the test before."""

import pytest
from django.core.cache import cache

from devices import authentication, nonces, services, sites
from devices.models import Federation, Site
from keys.services import forget_loaded_keys
from keys.usage import forget_counts


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests' process "started" long before its requests.
    monkeypatch.setattr(nonces, "_REMEMBERS_SINCE", 0)
    authentication._seen.clear()
    cache.clear()
    forget_loaded_keys()
    forget_counts()


@pytest.fixture
def federation(db: None) -> Federation:
    return services.found_federation(slug="heart", name="Heart federation")


@pytest.fixture
def site(federation: Federation) -> Site:
    return sites.create_site(federation=federation, slug="cleveland", name="Cleveland Clinic", actor="user:1")
