"""Django's settings, derived from ``controlplane/environment.py`` in one pass, for every mode."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from csp.constants import NONCE

from controlplane.environment import Environment

ENVIRONMENT = Environment()

# --- mode ----------------------------------------------------------------------------------------------------------

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = ENVIRONMENT.var.absolute()
ROLE = ENVIRONMENT.role
PRODUCTION = ENVIRONMENT.mode == "production"
EMBEDDED = ENVIRONMENT.broker_url == "memory://"
DEBUG = False


def _kept_secret() -> str:
    """Read the secret that an earlier start made, or make it; readable by this user only."""
    path = VAR_DIR / "vault" / "django-secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(48))
        # Of two processes that start first together, one's secret stays and both read it.
        with suppress(FileExistsError):
            os.link(part, path)
        part.unlink()
    return path.read_text(encoding="utf-8")


SECRET_KEY = ENVIRONMENT.secret_key or _kept_secret()

# --- web -----------------------------------------------------------------------------------------------------------

PUBLIC_URL = ENVIRONMENT.public_url.rstrip("/")
ALLOWED_HOSTS = [host.strip() for host in ENVIRONMENT.allowed_hosts.split(",") if host.strip()]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
TRUSTED_PROXIES = ENVIRONMENT.trusted_proxies
ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "csp",
    "django_htmx",
    "controlplane",
    "controlplane.audit",
    "keys",
    "devices",
    "rounds",
    "frontend",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "sign-in"

LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
# Served from the source folders with a short cache in embedded mode; a front proxy serves STATIC_ROOT elsewhere.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
WHITENOISE_MAX_AGE = 3600

# --- database ------------------------------------------------------------------------------------------------------


def _database(url: str) -> dict[str, Any]:
    if not url:
        path = VAR_DIR / "db" / "latticeward.sqlite3"
        path.parent.mkdir(parents=True, exist_ok=True)
        return {
            "ENGINE": "controlplane.sqlite",
            "NAME": path,
            # Opening costs a millisecond of pragmas, and threads of this one process come back again and again.
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "timeout": 30,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16000;",
            },
        }
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"LATTICEWARD_DATABASE_URL must start with postgresql://, not {parts.scheme}://")
    return {
        "ENGINE": "controlplane.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {
            # Django under ASGI serves every request on a thread of its own, and a connection that stays with its
            # thread is opened for one request and never closed: a pool lends few to many.
            "pool": {"min_size": 1, "max_size": ENVIRONMENT.database_connections, "timeout": 10},
            # Values go beside a statement, not in it, and what a connection was asked twice it keeps planned.
            "server_side_binding": True,
            "prepare_threshold": 2,
            "application_name": f"latticeward-{ROLE}",
            # One hung process must not hold all others at a row's lock.
            "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
        },
    }


DATABASES = {"default": _database(ENVIRONMENT.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- live events and nonces ----------------------------------------------------------------------------------------

LIVE_URL = ENVIRONMENT.live_url
_LOCAL_CACHE: dict[str, Any] = {
    "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
    # A culled nonce could be replayed, so the store must hold every nonce of its window.
    "OPTIONS": {"MAX_ENTRIES": 1_000_000},
}
_SHARED_CACHE: dict[str, Any] = {"BACKEND": "controlplane.shared_cache.SharedCache", "LOCATION": LIVE_URL}
CACHES = {"default": _SHARED_CACHE if LIVE_URL else _LOCAL_CACHE}

# --- workers -------------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = ENVIRONMENT.broker_url
CELERY_WORKER_CONCURRENCY = ENVIRONMENT.worker_concurrency

# --- storage, vault, limits ----------------------------------------------------------------------------------------

BLOB_DIR = (ENVIRONMENT.blob_path or VAR_DIR / "blobs").absolute()
VAULT_PROVIDER = ENVIRONMENT.vault
VAULT_DIR = VAR_DIR / "vault"
MAX_UPDATE_BYTES = ENVIRONMENT.max_update_bytes
MAX_OPEN_UPLOAD_BYTES = ENVIRONMENT.max_open_upload_bytes
MAX_CONNECTIONS = ENVIRONMENT.max_connections
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
# Requests a minute by what is counted, see controlplane/throttles.py.
LIMITS = {name: getattr(ENVIRONMENT, name) for name in Environment.model_fields if name.startswith("limit_")}

# --- policy --------------------------------------------------------------------------------------------------------

FEDERATION_SLUG = ENVIRONMENT.federation
FEDERATION_NAME = ENVIRONMENT.federation_name
ACCEPTED_SUITES = tuple(name.strip() for name in ENVIRONMENT.suites.split(",") if name.strip())
SUITE_FLOOR = ENVIRONMENT.suite_floor
AUTHORITY_PROFILE = ENVIRONMENT.profile
CLAIM_HOURS = ENVIRONMENT.claim_hours

# --- API -----------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["controlplane.errors.BoundedJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "controlplane.schema.ApiSchema",
    "EXCEPTION_HANDLER": "controlplane.errors.problem_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Latticeward",
    "DESCRIPTION": "Quantum-safe federated learning: the API of the control plane, for people's tools and for devices.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATION_PARAMETERS": False,
    "POSTPROCESSING_HOOKS": ["controlplane.schema.add_security_schemes", "rounds.schema.add_described_routes"],
}

# --- security headers ----------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'", NONCE],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "font-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
_SECURE = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = _SECURE
CSRF_COOKIE_SECURE = _SECURE
SECURE_HSTS_SECONDS = 31_536_000 if _SECURE else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _SECURE else None

# --- logging -------------------------------------------------------------------------------------------------------

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": ENVIRONMENT.log_level},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "celery": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
    },
}
