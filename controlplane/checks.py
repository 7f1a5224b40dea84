"""System checks that refuse a production set-up which cannot keep its promises.

Development and embedded mode change defaults only; what they allow is listed here, because it is refused elsewhere.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from latticeward.crypto.providers import suite_is_slow
from latticeward.crypto.suites import SUITES


@register()
def production_is_safe(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Refuse production with what only one machine for trying out may do."""
    problems: list[CheckMessage] = []
    for suite in settings.ACCEPTED_SUITES:
        if suite not in SUITES:
            problems.append(Error(f"The accepted suite {suite!r} is not known.", id="latticeward.E001"))
        elif settings.AUTHORITY_PROFILE == "cnsa2" and SUITES[suite].nist_category < 5:
            problems.append(
                Error(
                    f"The profile cnsa2 does not go with the suite {suite}.",
                    hint="Leave LATTICEWARD_SUITES and LATTICEWARD_SUITE_FLOOR away, or set both to high.",
                    id="latticeward.E007",
                )
            )
    if not settings.PRODUCTION:
        return problems
    if not settings.ENVIRONMENT.secret_key:
        problems.append(
            Error(
                "Production needs a secret key of its own.",
                hint="Set LATTICEWARD_SECRET_KEY or LATTICEWARD_SECRET_KEY_FILE.",
                id="latticeward.E002",
            )
        )
    if settings.ROLE == "all":
        problems.append(
            Error(
                "In production one process must not read every private key.",
                hint="Run web, intake, aggregate and authority apart, with LATTICEWARD_ROLE set to each.",
                id="latticeward.E003",
            )
        )
    if settings.EMBEDDED or not settings.LIVE_URL:
        problems.append(
            Error(
                "Production needs a broker and a shared live channel.",
                hint="Set LATTICEWARD_BROKER_URL (amqp://…) and LATTICEWARD_LIVE_URL (redis://…).",
                id="latticeward.E004",
            )
        )
    if not settings.ENVIRONMENT.database_url:
        problems.append(
            Error("Production needs PostgreSQL.", hint="Set LATTICEWARD_DATABASE_URL.", id="latticeward.E005")
        )
    if not settings.PUBLIC_URL.startswith("https://"):
        problems.append(
            Error(
                "Production needs an https:// address.",
                hint="Set LATTICEWARD_PUBLIC_URL to the address of the TLS front.",
                id="latticeward.E006",
            )
        )
    problems += [
        Warning(
            f"The accepted suite {suite} is slow here, since its cipher is not compiled.",
            hint="Run python -m latticeward.build_kernels with a C compiler, or leave it out of LATTICEWARD_SUITES.",
            id="latticeward.W003",
        )
        for suite in settings.ACCEPTED_SUITES
        if suite in SUITES and suite_is_slow(SUITES[suite])
    ]
    if "*" in settings.ALLOWED_HOSTS:
        problems.append(Warning("Any host name is accepted.", id="latticeward.W001"))
    if settings.PUBLIC_URL.startswith("https://") and not settings.TRUSTED_PROXIES:
        problems.append(
            Warning(
                "No proxy is trusted, so limits by address count the TLS front for everybody.",
                hint="Set LATTICEWARD_TRUSTED_PROXIES to the number of proxies that write X-Forwarded-For.",
                id="latticeward.W002",
            )
        )
    return problems
