"""The overview: what needs a person, what is running, how the hospitals are."""

from django.contrib.auth.models import User
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from controlplane.audit.models import AuditEntry, AuditFeed
from controlplane.permissions import roles_of
from devices.models import Federation
from frontend import board, fleet, ledger, registry
from frontend.key_rows import ending_rows
from frontend.views.access import EVERY_ROLE, KEY_READERS, for_roles
from keys.endings import endings
from latticeward.lifecycle import DeviceState, TrainingState
from rounds.models import Training
from rounds.registry import selectors

_RECENT_ENTRIES = 8
_ENDINGS = 5
# Devices that never took part or never will again stand on the fleet's page only.
_GONE = (DeviceState.DECLINED, DeviceState.REVOKED)


@require_safe
@for_roles(*EVERY_ROLE)
def overview(request: HttpRequest) -> HttpResponse:
    """The whole page, or (``?part=now``) the part of it that moves."""
    sees_keys = bool(roles_of(request.user) & set(KEY_READERS))
    now = timezone.now()
    federation = Federation.objects.order_by("created_at").first()
    # The newest ones are enough to say what is running; all of them are on the trainings page.
    trainings = list(Training.objects.defer("plan", "signed_plan")[:5])
    running = [row for row in trainings if row.state in (TrainingState.SIGNING, TrainingState.RUNNING)]
    followed = running or trainings[:1]
    topics = board.topics_of([federation.feed] if federation else [], [row.id for row in followed])
    rows = fleet.read_fleet(now=now, fingerprints_of=(DeviceState.PENDING,) if sees_keys else ())
    boards = [board.read_training(row, now=now, with_metrics=False) for row in followed[:2]]
    members = [row for row in rows if row.device.state not in _GONE]
    context = {
        "federation": federation,
        "topics": topics,
        "pending": [row for row in rows if row.is_pending] if sees_keys else [],
        "proposals": _proposals(request, federation) if sees_keys else (),
        "failed_rounds": fleet.failed_rounds(),
        "endings": ending_rows(endings(now=now, limit=_ENDINGS), now=now) if sees_keys else [],
        "boards": boards,
        "has_trainings": bool(trainings),
        "sites": fleet.by_site(federation, members),
        "counters": _counters(rows, boards),
        "entries": _entries(rows) if sees_keys else [],
        "sees_keys": sees_keys,
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_overview_now.html" if part else "frontend/overview.html", context)


def _proposals(request: HttpRequest, federation: Federation | None) -> tuple[registry.Proposal, ...]:
    if federation is None or not isinstance(request.user, User):
        return ()
    return registry.proposals(selectors.moves(federation=federation, waiting=True), viewer=request.user)


def _entries(rows: list[fleet.DeviceRow]) -> list[ledger.LedgerRow]:
    names = {str(row.device.id): f"{row.device.name}, {row.device.site.name}" for row in rows}
    return ledger.read_rows(list(AuditEntry.objects.order_by("-recorded_at")[:_RECENT_ENTRIES]), devices=names)


def _counters(rows: list[fleet.DeviceRow], boards: list[board.TrainingBoard]) -> list[tuple[str, str, str]]:
    """Name, value and what it counts."""
    active = [row for row in rows if row.device.state == DeviceState.ACTIVE]
    online = sum(row.connection.text == "online" for row in active)
    newest = boards[0] if boards else None
    # The numbers of a feed have no gaps, so their last ones add up to all entries without counting rows.
    entries = AuditFeed.objects.aggregate(total=Sum("last_seq"))["total"] or 0
    return [
        ("Devices online", f"{online} of {len(active)}", "active devices that called lately"),
        ("Hospitals", str(len({row.device.site_id for row in active})), "with at least one active device"),
        (
            "Rounds published",
            f"{newest.published} of {newest.training.rounds_max}" if newest else "0",
            "in the newest training" if newest else "no training yet",
        ),
        ("Ledger entries", f"{entries:,}", "recorded so far"),
    ]
