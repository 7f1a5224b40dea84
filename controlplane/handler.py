"""Django's ASGI handler with a stack that is synchronous from end to end.

All views and most middleware here are synchronous. Left to itself Django runs those middleware that could be either in
the event loop and the others in a thread, and changes sides four times for one request, each time for about as long as
the view takes. Loaded synchronously, the whole request is one visit to one thread.
"""

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase


class SynchronousStack(ASGIHandler):
    """Serves HTTP; one thread a request."""

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the chain as a WSGI server would, whatever the base class asks for."""
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """The answer of the synchronous chain."""
        return await sync_to_async(self.get_response, thread_sensitive=True)(request)
