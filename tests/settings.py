"""The product's settings with what tests need: a throw-away folder, plain SQLite, quick hashes."""

import os
import tempfile

os.environ.setdefault("LATTICEWARD_VAR", tempfile.mkdtemp(prefix="latticeward-tests-"))

from controlplane.settings import *  # noqa: F403

if not ENVIRONMENT.database_url:  # noqa: F405
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING["root"]["level"] = "WARNING"  # type: ignore[index]  # noqa: F405
