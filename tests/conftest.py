"""The people of the tests: an operator, a clinician, a compliance officer and a stranger without a role."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group, User

from controlplane.permissions import Role
from keys.usage import forget_counts


@pytest.fixture(scope="session", autouse=True)
def _nothing_counted_at_exit() -> Iterator[None]:
    # What a process has counted goes to the database when it ends, and that of the tests is gone by then.
    yield
    forget_counts()


def _person(name: str, *roles: Role) -> User:
    user = User.objects.create_user(username=name, password="correct horse battery staple")
    for role in roles:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


@pytest.fixture
def operator(db: None) -> User:
    return _person("olive", Role.OPERATOR)


@pytest.fixture
def clinician(db: None) -> User:
    return _person("clara", Role.CLINICIAN)


@pytest.fixture
def compliance(db: None) -> User:
    return _person("conrad", Role.COMPLIANCE)


@pytest.fixture
def stranger(db: None) -> User:
    return _person("sam")
