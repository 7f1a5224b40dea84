"""Who may do what: three roles of people; devices prove themselves by signature and are no users.

Roles are Django groups of these names. An operator runs trainings and devices; a clinician reads rounds and models
and never sees key material; a compliance officer reads everything, revokes and exports.
"""

from enum import StrEnum
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from latticeward.errors import NotPermittedError


class Role(StrEnum):
    OPERATOR = "operator"
    CLINICIAN = "clinician"
    COMPLIANCE = "compliance"


def roles_of(user: Any) -> frozenset[Role]:
    """The roles of a signed-in person; none for anybody else. Kept on the user object for the request."""
    if not isinstance(user, AbstractBaseUser) or isinstance(user, AnonymousUser) or not user.is_active:
        return frozenset()
    kept: frozenset[Role] | None = getattr(user, "_latticeward_roles", None)
    if kept is None:
        names = set(user.groups.values_list("name", flat=True))  # type: ignore[attr-defined]
        kept = frozenset(role for role in Role if role in names)
        user._latticeward_roles = kept  # type: ignore[attr-defined]
    return kept


def require_role(user: Any, *allowed: Role) -> None:
    """Refuse unless the person has one of the roles.

    Raises:
        NotPermittedError: they have none of them.
    """
    if not roles_of(user) & set(allowed):
        raise NotPermittedError(f"needs one of {', '.join(allowed)}")


class AnyRole(BasePermission):
    """Everybody with a role, for questions that change nothing but need a worker to answer them."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(roles_of(request.user))


class ForDevices(BasePermission):
    """Enrolled devices, by their request signatures; no person."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.auth is not None


def is_for_devices(view: APIView) -> bool:
    """Whether a view is called by devices and not by people."""
    return ForDevices in view.permission_classes


class OperatorWrites(BasePermission):
    """Everybody with a role reads; operators write."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        roles = roles_of(request.user)
        return bool(roles) if request.method in SAFE_METHODS else Role.OPERATOR in roles


class KeyMaterialReaders(BasePermission):
    """Operators and compliance officers read; operators write; clinicians see nothing of keys."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        roles = roles_of(request.user)
        if request.method in SAFE_METHODS:
            return bool(roles & {Role.OPERATOR, Role.COMPLIANCE})
        return Role.OPERATOR in roles


class RevokersWrite(BasePermission):
    """Operators and compliance officers may take trust away."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(roles_of(request.user) & {Role.OPERATOR, Role.COMPLIANCE})
