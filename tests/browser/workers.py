"""What a browser test can make happen inside its control plane: the part of the workers, and of a broken line."""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from controlplane.asgi import application
from controlplane.live import hub
from controlplane.sign_in import first_operator, make_sign_in_link
from devices import sites
from devices.claims import cancel_claim, create_claim
from devices.models import Federation, Site
from keys.ceremony import init_authority
from rounds.models import ModelDifference, Round, Training
from rounds.services import aliases
from rounds.services.differences import request_difference
from tests.frontend import scene

_refuses_sockets = threading.Event()


async def door(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application, except while the line is down."""
    if scope["type"] == "websocket" and _refuses_sockets.is_set():
        await receive()
        await send({"type": "websocket.close", "code": 1013})
        return
    await application(scope, receive, send)


def set_scene() -> dict[str, str]:
    """A federation with a training whose third round collects."""
    training = scene.make_training(scene.make_federation())
    for value in (0.5, 0.71):
        scene.run_round(training, value)
    current = scene.open_round(training)
    scene.join_all(current)
    return {"training": str(training.id), "round": str(current.id)}


def finish() -> dict[str, str]:
    """A training that has reached its stop rule, with its comparison."""
    training = scene.make_training(Training.objects.earliest("created_at").federation, comparison=scene.COMPARISON)
    scene.run_round(training, 0.5)
    measured = scene.run_round(training, 0.886, kind="evaluation")
    scene.complete(training)
    return {"training": str(training.id), "measured": str(measured.id)}


def fail() -> dict[str, str]:
    """A round without a result."""
    current = scene.open_round(scene.make_training(Training.objects.earliest("created_at").federation))
    scene.join_all(current)
    refused = current.participants.select_related("device__site").first()
    assert refused is not None
    scene.step(refused, "submit")
    scene.step(refused, "reject", code="norm_exceeded")
    scene.move(current, "fail", failure_code="quorum_not_met", closed_at=timezone.now())
    return {"round": str(current.id)}


def found_authority() -> dict[str, str]:
    """Keys for the federation, so that claim codes can be made; two codes lie there already."""
    federation = Federation.objects.get()
    init_authority(federation_id=federation.id, federation=federation.slug)
    site = Site.objects.get(name="Hungary")
    sites.change_site(
        site_id=site.id, changes={"time_zone": "Europe/Budapest", "contact_name": "Dr. Ada Byron"}, actor="user:1"
    )
    create_claim(site=site, device_class="gateway", actor="user:1", bound_to="ab01" * 8)
    claim, _ = create_claim(site=site, device_class="edge-server", actor="user:1", auto_approve=True)
    cancel_claim(claim_id=claim.id, actor="user:1")
    return {"site": str(site.id), "class": str(federation.device_classes.get(slug="gateway").id)}


def registry() -> dict[str, str]:
    """Versions of an ended training: one in production, one proposed by another person, compared with the first."""
    if (made := ModelDifference.objects.first()) is not None:
        return {"first": str(made.before_id), "second": str(made.after_id), "difference": str(made.id)}
    training = scene.make_training(Training.objects.earliest("created_at").federation)
    for value in (0.5, 0.83, 0.861):
        scene.run_round(training, value)
    scene.complete(training)
    first, second, third = training.models.select_related("training__federation").order_by("number")
    scene.measure_hospitals(second)
    other = User.objects.get_or_create(username="conrad")[0]
    aliases.confirm_move(
        move_id=aliases.propose_move(
            model=first, name="production", reason="first good one", actor=f"user:{other.pk}"
        ).id,
        actor=f"user:{first_operator().pk}",
    )
    aliases.propose_move(model=second, name="production", reason="better everywhere", actor=f"user:{other.pk}")
    aliases.propose_move(model=third, name="candidate", reason="to be tried out", actor=f"user:{first_operator().pk}")
    difference = request_difference(before=first, after=second, actor=f"user:{other.pk}")
    ModelDifference.objects.filter(pk=difference.pk).update(computed_at=timezone.now(), result=scene.DIFFERENCE)
    return {"first": str(first.id), "second": str(second.id), "difference": str(difference.id)}


def drop_line() -> dict[str, str]:
    """Close every websocket and let none in."""
    _refuses_sockets.set()
    for subscription in list(hub._subscriptions):
        subscription.overrun = True
        subscription.loop.call_soon_threadsafe(subscription._news.set)
    return {}


def mend_line() -> dict[str, str]:
    """Let websockets in again."""
    _refuses_sockets.clear()
    return {}


def _current(**names: str) -> Round:
    return Round.objects.select_related("training__federation").get(pk=names["round"])


COMMANDS: dict[str, Callable[..., object]] = {
    "link": lambda: {"token": make_sign_in_link(first_operator())},
    "scene": set_scene,
    "finish": finish,
    "fail": fail,
    "registry": registry,
    "count": lambda hospital, **names: scene.count_update(_current(**names), hospital),
    "publish": lambda value, **names: scene.publish(_current(**names), value),
    "open": lambda training: {
        "round": str(scene.open_round(Training.objects.select_related("federation").get(pk=training)).id)
    },
    "join": lambda **names: scene.join_all(_current(**names)),
    "ask": lambda site: {"device": str(scene.ask_to_enrol(Site.objects.get(name=site), "edge-new").id)},
    "authority": found_authority,
    "drop": drop_line,
    "mend": mend_line,
}


def obey() -> None:
    """Do what standard input says until it ends, which ends the process."""
    for line in sys.stdin:
        wanted = json.loads(line)
        answer = COMMANDS[wanted.pop("do")](**wanted)
        print(json.dumps(answer or {}), flush=True)
    os._exit(0)
