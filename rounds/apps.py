"""``rounds`` as a Django application."""

from django.apps import AppConfig


class RoundsConfig(AppConfig):
    name = "rounds"
