"""System checks about custody: what a production process must not be able to read."""

import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

from keys.vault import GROUPS_OF_ROLE
from keys.vault_providers import FileProvider, Group


@register(Tags.security)
def check_foreign_key_files(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A process of one role must not be able to read the key file of a group that is not its own."""
    foreign = set(Group) - GROUPS_OF_ROLE[settings.ROLE]
    if settings.VAULT_PROVIDER == "env":
        found = [f"LATTICEWARD_KEK_{group.upper()}" for group in sorted(foreign)]
        readable = [name for name in found if os.environ.get(name)]
    else:
        paths = [FileProvider().path(group) for group in sorted(foreign)]
        readable = [str(path) for path in paths if os.access(path, os.R_OK)]
    return [
        Error(
            f"a process of role {settings.ROLE} can read {place}",
            hint="Mount only the key files of the process's own role; see docs/operations.md.",
            id="latticeward.E101",
        )
        for place in readable
    ]
