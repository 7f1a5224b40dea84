"""HTTP and websocket routing of one web process.

Order for HTTP: the device door takes its own addresses, the fast lane the status of certificates and what a device asks
of itself, Django gets the rest. The lifespan messages start the one subscription to the shared live channel when there
are several processes.
"""

import asyncio
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup(set_prefix=False)

# Django must be set up before anything that imports models.
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.management.base import SystemCheckError
from django.urls import path

from controlplane.fast_lane import UUID_PATTERN, FastLane
from controlplane.handler import SynchronousStack
from controlplane.live import listen
from controlplane.startup import require_sound_process
from devices.views import EnrolmentsView, FinishEnrolmentView, MeView
from frontend.consumers import LiveConsumer
from keys.views import ocsp, ocsp_by_address, trust
from latticeward.crypto.issuing import STATUS_PATH
from latticeward.errors import LatticewardError
from rounds.door import Door, bounded
from rounds.endpoints import ROUTES

_django = bounded(SynchronousStack(), settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
_lane = FastLane(
    {
        STATUS_PATH: ocsp,
        f"{STATUS_PATH}/(?P<question>.+)": ocsp_by_address,
        "/api/v1/me": MeView.as_view(),
        "/api/v1/trust": trust,
        "/api/v1/enrolments": EnrolmentsView.as_view(),
        f"/api/v1/enrolments/(?P<enrolment_id>{UUID_PATTERN})/finish": FinishEnrolmentView.as_view(),
    },
    otherwise=_django,
)
_routed = ProtocolTypeRouter(
    {
        "http": Door(ROUTES, otherwise=_lane),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([path("ws/live", LiveConsumer.as_asgi())]))
        ),
    }
)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI entry."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    else:
        await _routed(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    listener = asyncio.create_task(listen()) if settings.LIVE_URL else None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await asyncio.to_thread(require_sound_process)
            except (LatticewardError, SystemCheckError) as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            if listener:
                listener.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return
