"""What an enrolled device can ask and tell: one function a route, each a few lines over a service or selector."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from controlplane.audit.selectors import inclusion_proof_of
from controlplane.live import Event, hub
from devices import encipherment, renewal
from devices import tasks as device_tasks
from devices.authentication import Admit
from devices.encipherment_issuing import collect_encipherment
from devices.services import collect, collect_renewal
from keys.selectors import epoch_of
from latticeward import canonical
from latticeward.base64url import decode_base64url, encode_base64url
from latticeward.crypto.httpsig import verify_body_digest
from latticeward.enrolment import FinishProofs
from latticeward.errors import (
    IdempotencyMismatchError,
    LatticewardError,
    MalformedMessageError,
)
from latticeward.renewal import RenewalProofs
from rounds import ingress, selectors, tasks
from rounds.door import Call, Entry, Reply, in_thread, missing, path, small_json
from rounds.few import BODIES, QUESTIONS
from rounds.models import Submission
from rounds.services.coordination import join_round
from rounds.services.intake import envelope_limit, refuse_at_door, require_submitter
from rounds.storage import BlobWriter, read_blob
from rounds.upload_endpoints import UPLOAD_ROUTES

_HEX_DIGEST_CHARS: Final = 64
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}")
# What changes the work of a device that is not named in the event.
_NEWS_FOR_ALL: Final = frozenset(
    {"round.recruiting", "round.collecting", "round.published", "round.failed", "round.aborted"}
)
# What changes it for the device that is named; its own steps are no news to it.
_NEWS_FOR_ONE: Final = frozenset(
    {"device.asked_to_renew", "update.refused", "update.rejected", "update.excluded", "participant.dropped"}
)


async def work(call: Call) -> Reply:
    """What there is to do for this device; waits for news when the device has seen the present answer."""
    device = str(call.device.id)
    seen = call.query.get("after", [""])[0]
    return await _long_poll(
        call,
        lambda: selectors.work_for(call.device),
        is_news=lambda answer: answer["token"] != seen,
        wakes=lambda event: (
            event["type"] in _NEWS_FOR_ALL or (event["type"] in _NEWS_FOR_ONE and event["data"].get("device") == device)
        ),
    )


async def certificate(call: Call) -> Reply:
    """Certificate and key statement, once the authority has made them."""
    return await _long_poll(
        call,
        lambda: collect(enrolment_id=UUID(call.id), device=call.device),
        is_news=lambda answer: answer["state"] not in ("pending", "approved"),
        wakes=lambda event: event["subject"]["id"] == str(call.device.id),
        waiting_status=202,
    )


async def begin_renewal(call: Call) -> Reply:
    """The first message of a device that wants new keys, signed with those that it has."""
    body = await small_json(call)
    epoch = await in_thread(epoch_of, call.request.key_id)
    begun = await in_thread(
        renewal.begin_renewal, device=call.device, epoch=epoch, transcript=_binary(body, "transcript")
    )
    return Reply.json({"renewal": str(begun.renewal_id), "answer": encode_base64url(begun.answer)}, 201)


async def finish_renewal(call: Call) -> Reply:
    """The proofs of the new keys, and of the present signing key."""
    body = await small_json(call)
    signatures = body.get("signatures")
    if not isinstance(signatures, dict):
        raise MalformedMessageError("a renewal's proofs have signatures")
    proofs = RenewalProofs(
        finish=FinishProofs(
            challenge_mac=_binary(body, "challenge_mac"),
            authentication=_binary(signatures, "authentication"),
            classical=_binary(signatures, "classical"),
            signing=_binary(signatures, "signing"),
        ),
        continuity=_binary(body, "continuity"),
    )
    finished = await in_thread(renewal.finish_renewal, device=call.device, renewal_id=UUID(call.id), proofs=proofs)
    await in_thread(device_tasks.issue_renewals.delay)
    return Reply.json({"renewal": str(finished.id), "state": finished.state}, 202)


async def renewal_certificate(call: Call) -> Reply:
    """Certificate and key statement of the new keys, once the authority has made them."""
    return await _long_poll(
        call,
        lambda: collect_renewal(renewal_id=UUID(call.id), device=call.device),
        is_news=lambda answer: answer["state"] not in ("begun", "proven"),
        wakes=lambda event: event["subject"]["id"] == call.id,
        waiting_status=202,
    )


async def begin_encipherment(call: Call) -> Reply:
    """The first message of a device that wants a certificate which standard tools encrypt to."""
    body = await small_json(call)
    epoch = await in_thread(epoch_of, call.request.key_id)
    begun = await in_thread(
        encipherment.begin_encipherment, device=call.device, epoch=epoch, request=_binary(body, "request")
    )
    return Reply.json({"encipherment": str(begun.encipherment_id), "answer": encode_base64url(begun.answer)}, 201)


async def finish_encipherment(call: Call) -> Reply:
    """The proof of its key."""
    body = await small_json(call)
    finished = await in_thread(
        encipherment.finish_encipherment, device=call.device, encipherment_id=UUID(call.id), mac=_binary(body, "mac")
    )
    await in_thread(device_tasks.issue_encipherments.delay)
    return Reply.json({"encipherment": str(finished.id), "state": finished.state}, 202)


async def encipherment_certificate(call: Call) -> Reply:
    """The certificate, once the authority has made it."""
    return await _long_poll(
        call,
        lambda: collect_encipherment(encipherment_id=UUID(call.id), device=call.device),
        is_news=lambda answer: answer["state"] not in ("begun", "proven"),
        wakes=lambda event: event["subject"]["id"] == call.id,
        waiting_status=202,
    )


async def _long_poll(
    call: Call,
    look: Callable[[], dict[str, Any]],
    *,
    is_news: Callable[[dict[str, Any]], bool],
    wakes: Callable[[Event], bool],
    waiting_status: int = 200,
) -> Reply:
    # Subscribe before looking: what happens in between wakes us instead of being missed.
    deadline = asyncio.get_running_loop().time() + call.wait_seconds()
    with QUESTIONS.one_more(call.device.id), hub.subscribe(wakes) as subscription:
        while True:
            subscription.drain()
            answer = await in_thread(look)
            if is_news(answer):
                return Reply.json(answer)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or await subscription.next(left) is None:
                # Look once more: the answer tells the server's time, and that is now, not before the wait.
                answer = await in_thread(look)
                return Reply.json(answer, 200 if is_news(answer) else waiting_status)


async def assignment(call: Call) -> Reply:
    found = await in_thread(selectors.assignment_for, UUID(call.id), call.device)
    if found is None:
        raise missing("round")
    return Reply.cbor(canonical.encode({"plan": found[0], "assignment": found[1]}))


async def join(call: Call) -> Reply:
    await small_json(call)
    participant = await in_thread(join_round, round_id=UUID(call.id), device=call.device)
    await in_thread(tasks.advance_round.delay, call.id)
    return Reply.json({"participant": participant.state, "round_state": participant.round.state})


async def submit(call: Call) -> Reply:
    """Take an envelope: refuse early, store while hashing, record, promise, hand on."""
    try:
        return await _submit(call)
    except LatticewardError as error:
        await in_thread(refuse_at_door, round_id=UUID(call.id), device=call.device, error=error)
        raise


async def _submit(call: Call) -> Reply:
    declared = call.facts.header("idempotency-key") or ""
    if len(declared) != _HEX_DIGEST_CHARS or set(declared) - set("0123456789abcdef"):
        raise MalformedMessageError("Idempotency-Key must be the hex digest of the envelope's signed part")
    call.body.require_declared_within(settings.MAX_UPDATE_BYTES)
    limit, earlier = await in_thread(_admit, call, declared)
    started = time.perf_counter()
    with BODIES.one_more(call.device.id), BlobWriter() as writer:
        async for piece in call.body.chunks(limit):
            writer.write(piece)
        verify_body_digest(call.request, writer.digest)
        if earlier is not None:
            if writer.digest.hex() != earlier.blob:
                raise IdempotencyMismatchError(f"submission {earlier.id} was made of other bytes")
            return Reply.cbor(bytes(earlier.receipt))
        submission = await in_thread(_accept, call, writer, declared, time.perf_counter() - started)
    return Reply.cbor(bytes(submission.receipt), 201)


def _admit(call: Call, declared: str) -> tuple[int, Submission | None]:
    """How many bytes the envelope may have, and the earlier submission of the same bytes if there is one."""
    round_id = UUID(call.id)
    limit = min(settings.MAX_UPDATE_BYTES, envelope_limit(round_id, call.device))
    call.body.require_declared_within(limit)
    return limit, require_submitter(round_id=round_id, device=call.device, digest=declared)


def _accept(call: Call, writer: BlobWriter, declared: str, seconds: float) -> Submission:
    """Record what was written, and hand it on."""
    submission = ingress.accept(
        round_id=UUID(call.id),
        device=call.device,
        writer=writer,
        declared_digest=declared,
        via="http",
        seconds=seconds,
    )
    tasks.process_update.delay(str(submission.id))
    return submission


async def outcome(call: Call) -> Reply:
    device = str(call.device.id)
    return await _long_poll(
        call,
        lambda: selectors.outcome_of(UUID(call.id), call.device),
        is_news=lambda answer: answer["state"] != "received",
        wakes=lambda event: event["data"].get("submission") == call.id or event["data"].get("device") == device,
    )


async def proof(call: Call) -> Reply:
    since = call.query.get("since", ["0"])[0]
    if _SIZE.fullmatch(since) is None:
        raise MalformedMessageError("since is a number of leaves")
    entry_id = await in_thread(selectors.receipt_entry_of, UUID(call.id), call.device)
    if entry_id is None:
        raise missing("submission")
    found = await in_thread(inclusion_proof_of, entry_id, since=int(since))
    return Reply.json(found) if found else Reply.json({"state": "waiting"}, 202)


async def manifest(call: Call) -> Reply:
    found = await in_thread(selectors.manifest_for, UUID(call.id), call.device)
    if found is None:
        raise missing("model")
    return Reply.cbor(canonical.encode({"manifest": found[0], "stanza": found[1]}))


async def model_body(call: Call) -> Reply:
    blob = await in_thread(selectors.model_blob_for, UUID(call.id), call.device)
    if blob is None:
        raise missing("model")
    return Reply(200, await in_thread(read_blob, blob), "application/octet-stream")


async def aliases(call: Call) -> Reply:
    """What people call which version; told, not signed: a device believes weights by their manifest alone."""
    return Reply.json({"aliases": await in_thread(selectors.aliases_for, call.device)})


async def record(call: Call) -> Reply:
    raw = await in_thread(selectors.record_for, UUID(call.id), call.device)
    if raw is None:
        raise missing("round record")
    return Reply.cbor(raw)


def _binary(body: dict[str, Any], name: str) -> bytes:
    value = body.get(name)
    if not isinstance(value, str):
        raise MalformedMessageError(f"the body has no text {name!r}")
    return decode_base64url(value)


ROUTES: Final[list[Entry]] = [
    path("GET", "/api/v1/work", work),
    path("GET", "/api/v1/enrolments/<id>/certificate", certificate, admit=Admit.COLLECTING),
    path("POST", "/api/v1/renewals", begin_renewal, admit=Admit.RENEWING),
    path("POST", "/api/v1/renewals/<id>/finish", finish_renewal),
    path("GET", "/api/v1/renewals/<id>/certificate", renewal_certificate, admit=Admit.COLLECTING),
    path("POST", "/api/v1/encipherments", begin_encipherment),
    path("POST", "/api/v1/encipherments/<id>/finish", finish_encipherment),
    path("GET", "/api/v1/encipherments/<id>/certificate", encipherment_certificate),
    path("GET", "/api/v1/rounds/<id>/assignment", assignment),
    path("POST", "/api/v1/rounds/<id>/join", join),
    path("POST", "/api/v1/rounds/<id>/submissions", submit),
    *UPLOAD_ROUTES,
    path("GET", "/api/v1/rounds/<id>/record", record),
    path("GET", "/api/v1/submissions/<id>", outcome),
    path("GET", "/api/v1/submissions/<id>/proof", proof),
    path("GET", "/api/v1/work/aliases", aliases),
    path("GET", "/api/v1/models/<id>/manifest", manifest),
    path("GET", "/api/v1/models/<id>/body", model_body),
]
