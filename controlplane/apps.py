"""The floor of the control plane as a Django application."""

from django.apps import AppConfig


class ControlPlaneConfig(AppConfig):
    name = "controlplane"
    label = "controlplane"

    def ready(self) -> None:
        # Tasks are bound to the application that is current when they are first sent.
        from controlplane import (
            celery,  # noqa: F401
            checks,  # noqa: F401
        )
