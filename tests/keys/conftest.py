"""The same authority that the tests of ``devices`` use."""

from tests.devices.conftest import federation, nothing_remembered, site

__all__ = ["federation", "nothing_remembered", "site"]
