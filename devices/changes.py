"""What people change of a hospital or a device class: the columns that differ, and no others."""

from collections.abc import Mapping
from typing import Any

from django.db.models import Model


def save_changed(row: Model, *, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Save the attributes of a locked row whose values differ; the caller records them.

    Returns:
        The new values by attribute; empty when nothing differs.
    """
    changed = {name: value for name, value in after.items() if value != before[name]}
    for name, value in changed.items():
        setattr(row, name, value)
    if changed:
        row.save(update_fields=[*changed])
    return changed
