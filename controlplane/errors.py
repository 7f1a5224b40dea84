"""How domain errors reach people and programs over HTTP: one table, one kind of answer (RFC 9457).

The public sentence says what happened and what to do; the private text of the exception goes to the log only, under
the id that the answer carries as ``instance``.
"""

import logging
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.defaults import bad_request as plain_bad_request
from django.views.defaults import page_not_found
from django.views.defaults import server_error as plain_server_error
from rest_framework import exceptions
from rest_framework.parsers import JSONParser
from rest_framework.response import Response

from latticeward import errors as domain

logger = logging.getLogger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"

# class → (HTTP status, public sentence). A test walks all classes and fails when one is missing.
PROBLEMS: Final[Mapping[type[domain.LatticewardError], tuple[int, str]]] = {
    domain.LatticewardError: (500, "Something went wrong on our side. The id below finds it in the log."),
    domain.ProtocolError: (400, "The message does not follow the protocol."),
    domain.MalformedMessageError: (400, "The message is malformed. See docs/protocol.md for its form."),
    domain.UnsupportedVersionError: (400, "This version of the message is not supported. Update the agent."),
    domain.UnsupportedSuiteError: (400, "The suite is not accepted here. Choose one that the federation accepts."),
    domain.MessageTooLargeError: (413, "The message is larger than the limit. Nothing was stored."),
    domain.SlowRequestError: (408, "The body of the request came too slowly. Send it again."),
    domain.VerificationError: (403, "The message could not be verified."),
    domain.InvalidSignatureError: (403, "A signature does not verify."),
    domain.UntrustedIssuerError: (403, "The signer is not trusted here."),
    domain.CertificateNotValidError: (403, "The certificate is not valid now. Renew it or enrol again."),
    domain.CertificateRevokedError: (403, "The device's certificate was revoked. Ask the operator."),
    domain.WrongContextError: (403, "The message was made for another round, device, plan or purpose."),
    domain.PlanChangedError: (
        409,
        "The stored plan of this training is no longer the one that was signed, so nothing is said by it. "
        "Look at who may write to the database.",
    ),
    domain.ReplayError: (409, "This message was seen before."),
    domain.ClockSkewError: (403, "The device's clock is too far from the server's."),
    domain.ClaimRefusedError: (403, "The claim code was not accepted. Ask for a new one."),
    domain.NotAuthenticatedError: (401, "The request is not signed by an enrolled device, and nobody is signed in."),
    domain.NotPermittedError: (403, "You may not do this."),
    domain.SecondPersonError: (403, "Two people decide this: another person than the one who proposed it."),
    domain.TooManyRequestsError: (429, "Too many of these are open already. Wait for one to end."),
    domain.ThrottledError: (429, "Too many requests in this time. Wait as long as Retry-After says, then repeat."),
    domain.RecomputationError: (409, "The round does not follow from the updates that it says it counted."),
    domain.LedgerError: (409, "The ledger could not be verified."),
    domain.InclusionProofError: (409, "The inclusion proof does not verify."),
    domain.ConsistencyProofError: (409, "The consistency proof does not verify."),
    domain.CheckpointError: (409, "The checkpoint does not verify."),
    domain.DecryptionError: (403, "The message could not be opened."),
    domain.InvalidValueError: (422, "A value is out of its bounds."),
    domain.StateError: (409, "This is not possible in the present state."),
    domain.InvalidTransitionError: (409, "This is not possible in the present state."),
    domain.KeyUsageError: (409, "The key may not be used for this."),
    domain.ModelUnusableError: (409, "The model version is not in a state that allows this."),
    domain.RenewalConflictError: (
        409,
        "Another renewal of the same key exists, so somebody may have a copy of it. The device was suspended.",
    ),
    domain.StaleStateError: (409, "Somebody else changed this first. Look again and repeat."),
    domain.NotFoundError: (404, "There is no such thing here, or you may not see it."),
    domain.UnknownSiteError: (422, "The federation has no such hospital. Name one that it has."),
    domain.UnknownDeviceClassError: (422, "The federation has no such device class. Name one that it has."),
    domain.IdempotencyMismatchError: (422, "This idempotency key was used with other content."),
    domain.RequestInProgressError: (409, "The first request with this idempotency key is still at work. Ask again."),
    domain.ShownOnceError: (409, "This was done, and its secret is shown only once. See answer for what was made."),
    domain.RoundError: (422, "The round does not allow this."),
    domain.IncompatiblePlanError: (422, "The plan's parts do not fit each other."),
    domain.PlanBelowFloorError: (422, "The plan asks for less protection than the hospital's floor."),
    domain.QuorumNotMetError: (422, "Too few hospitals take part."),
    domain.KMinimumError: (422, "Too few hospitals or patients stand behind the result to hide each of them."),
    domain.CohortTooCloseError: (
        422,
        "Nearly the same hospitals gave to this model before: the difference would show a single one's update.",
    ),
    domain.UnmaskingError: (422, "The masked sum could not be opened."),
    domain.ContributionError: (422, "The update was refused."),
    domain.LayoutMismatchError: (422, "The update has another length or form than the plan says."),
    domain.NonFiniteUpdateError: (422, "The update holds values that are not finite."),
    domain.NormExceededError: (422, "The update holds values out of the plan's range."),
    domain.EmptyUpdateError: (
        422,
        "No examples are behind the update: it would count as a hospital and hide nobody. The site needs data first.",
    ),
    domain.PrivacyBudgetExceededError: (409, "The privacy budget is spent."),
    domain.CustodyError: (500, "A key could not be read. The operator must look at the vault."),
    domain.SelfTestError: (500, "A cryptographic self-test failed."),
    domain.TransportError: (502, "The other side could not be reached."),
    domain.TransientTransportError: (503, "The other side could not be reached. Try again."),
    domain.PermanentTransportError: (502, "The other side refused."),
}
# These carry a text written for the caller: it helps them and tells nothing that they do not know.
_SPEAKING: Final = (
    domain.ClockSkewError,
    domain.IncompatiblePlanError,
    domain.InvalidValueError,
    domain.ModelUnusableError,
    domain.UnknownSiteError,
    domain.UnknownDeviceClassError,
)


def problem(
    status: int, code: str, detail: str, *, instance: str | None = None, **members: Any
) -> tuple[int, dict[str, Any]]:
    """The body of a problem document; ``type`` is the stable code."""
    return status, {
        "type": code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": instance or f"urn:uuid:{uuid.uuid4()}",
        **members,
    }


def problem_of(error: domain.LatticewardError) -> tuple[int, dict[str, Any]]:
    """Status and body for a domain error; logs the private text beside the instance id."""
    status, sentence = PROBLEMS[type(error)]
    if isinstance(error, _SPEAKING) and str(error):
        sentence = str(error)
    told: dict[str, Any] = {"answer": error.answer} if isinstance(error, domain.ShownOnceError) else {}
    status, body = problem(status, error.code, sentence, retryable=error.retryable, **told)
    level = logging.ERROR if status >= 500 else logging.INFO
    logger.log(level, "%s refused with %s: %s", body["instance"], error.code, error)
    return status, body


def headers_of(error: domain.LatticewardError) -> dict[str, str]:
    """What an answer to this error says beside its body: when to come again."""
    seconds = getattr(error, "retry_after_seconds", None)
    return {} if seconds is None else {"Retry-After": str(seconds)}


def problem_response(error: domain.LatticewardError) -> HttpResponse:
    """A domain error as an answer of a plain Django view."""
    status, body = problem_of(error)
    return JsonResponse(body, status=status, content_type=PROBLEM_TYPE, headers=headers_of(error))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler of what it refuses before any view: a body past the limit, a host that is not ours."""
    if not request.path.startswith("/api/"):
        return plain_bad_request(request, exception)
    if isinstance(exception, RequestDataTooBig):
        return problem_response(domain.MessageTooLargeError(str(exception)))
    return problem_response(domain.ProtocolError(str(exception)))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler of unknown addresses: under ``/api/`` they are refused like everything else."""
    if not request.path.startswith("/api/"):
        return page_not_found(request, exception)
    return problem_response(domain.NotFoundError(f"no such address {request.path[:200]!r}"))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler of faults of ours; the traceback is in the log."""
    if not request.path.startswith("/api/"):
        return plain_server_error(request)
    return problem_response(domain.LatticewardError(f"{request.method} {request.path[:200]!r} failed"))


class BoundedJSONParser(JSONParser):
    """JSON that Python or the database cannot hold is a bad request like any other broken JSON.

    Python cannot hold what is nested too deep; no database takes U+0000 in a text, and UTF-8 has no form of half a
    surrogate pair. Fields refuse these by themselves; values that are kept as they came have none.
    """

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        try:
            parsed = super().parse(*args, **kwargs)
            if not all(map(_can_be_kept, _texts(parsed))):
                raise exceptions.ParseError("The JSON holds U+0000, or half of a surrogate pair.")
        except RecursionError as error:
            raise exceptions.ParseError("The JSON is nested too deep.") from error
        return parsed


def _texts(value: Any) -> Iterator[str]:
    """Every text in parsed JSON, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _can_be_kept(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def problem_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: domain errors and DRF's own become problem documents, the rest stays a crash."""
    headers: dict[str, str] = {}
    if isinstance(error, domain.LatticewardError):
        status, body = problem_of(error)
        headers = headers_of(error)
    elif isinstance(error, Http404):
        status, body = problem(404, "not_found", PROBLEMS[domain.NotFoundError][1])
    elif isinstance(error, exceptions.ValidationError):
        status, body = problem(400, "invalid_input", "Some fields are not right.", errors=error.detail)
    elif isinstance(error, exceptions.APIException):
        status, body = problem(error.status_code, str(error.default_code), str(error.detail))
        if getattr(error, "wait", None):
            headers["Retry-After"] = str(int(error.wait))  # type: ignore[attr-defined]
        if getattr(error, "auth_header", None):
            headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    else:
        return None
    return Response(body, status=status, headers=headers, content_type=PROBLEM_TYPE)
