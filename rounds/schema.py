"""What the schema says of addresses that Django's REST framework does not serve: one row an address.

The device door (``rounds/endpoints.py``) is beside Django, and the signed documents that anybody may fetch
(``keys/views.py``) are plain views. A route without a row stops the schema, and a test; so both sides are in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.schema import SIGNATURES, operation_id, problems, tag_of
from latticeward.lifecycle import DeviceState, EnciphermentState, ParticipantState, RoundState
from rounds.endpoints import ROUTES

Schema = Mapping[str, Any]

CBOR: Final = "application/cbor"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
_BINARY: Final[Schema] = {"type": "string", "format": "binary"}
_TEXT: Final[Schema] = {"type": "string"}
_UUID: Final[Schema] = {"type": "string", "format": "uuid"}
_INSTANT: Final[Schema] = {"type": "string", "format": "date-time"}
_BASE64URL: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_-]*$"}
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_DIGEST: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NOTHING: Final[Schema] = {"type": "object", "additionalProperties": True}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _header(name: str, schema: Schema, words: str) -> Schema:
    return {"name": name, "in": "header", "required": True, "schema": schema, "description": words}


def _query(name: str, schema: Schema, words: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": words}


_WAIT: Final = _query("wait", {"type": "number"}, "seconds to wait for news; 25 at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation.

    Attributes:
        answers: status → (content type, schema, words).
        body: content type and schema of what is sent.
        refusals: statuses of its problem documents.
        signed: whether a device must sign it.
    """

    words: str
    answers: Mapping[int, tuple[str, Schema, str]]
    body: tuple[str, Schema] | None = None
    parameters: tuple[Schema, ...] = ()
    refusals: tuple[int, ...] = ()
    signed: bool = True
    examples: Mapping[int, Any] = field(default_factory=dict)


_UPLOAD: Final = _object(
    upload=_maybe(_UUID),
    chunk_bytes=_NUMBER,
    missing=_list(_NUMBER),
    expires_at=_maybe(_INSTANT),
    receipt=_maybe(_TEXT),
)
_ROUND: Final = _object(
    round=_UUID,
    training=_UUID,
    number=_NUMBER,
    kind={"enum": ["training", "evaluation"]},
    state={"enum": sorted(RoundState)},
    participant={"enum": sorted(ParticipantState)},
    base_model=_maybe(_UUID),
    code=_maybe(_TEXT),
)
_WORK: Final = _object(
    token=_TEXT,
    server_time=_INSTANT,
    rounds=_list(_ROUND),
    models=_list(_object(model=_UUID, training=_UUID, number=_NUMBER, weights_digest=_DIGEST)),
)
_CERTIFICATE: Final[Schema] = {
    "type": "object",
    "required": ["state"],
    "properties": {
        "state": {"enum": sorted(DeviceState)},
        "certificate_chain": _list({**_TEXT, "description": "DER, base64; leaf first"}),
        "statement": {**_TEXT, "description": "base64url"},
    },
}
_RENEWED: Final[Schema] = {
    **_CERTIFICATE,
    "properties": {**_CERTIFICATE["properties"], "state": {**_TEXT, "description": "of the renewal"}},
}
_ENCIPHERMENT: Final[Schema] = {
    "type": "object",
    "required": ["state"],
    "properties": {
        "state": {"enum": sorted(EnciphermentState)},
        "certificate_chain": _list({**_TEXT, "description": "DER, base64; leaf first"}),
        "code": {**_TEXT, "description": "why it ended without a certificate"},
    },
}
_ALIAS: Final = _object(
    alias=_TEXT, job=_TEXT, model=_UUID, number=_NUMBER, weights_digest=_DIGEST, moved_at=_maybe(_INSTANT)
)
_PROOF: Final[Schema] = {
    "type": "object",
    "required": ["entry", "index", "checkpoint", "proof"],
    "properties": {"entry": _TEXT, "index": _NUMBER, "checkpoint": _TEXT, "proof": _list(_DIGEST)},
}
_KEY: Final = _header("Idempotency-Key", _DIGEST, "digest of the envelope's signed part")

DESCRIBED: Final[Mapping[tuple[str, str], Row]] = {
    ("GET", "/api/v1/work"): Row(
        words="What there is to do for this device",
        answers={200: (JSON, _WORK, "Rounds and models; waits for news if `after` is the present token.")},
        parameters=(_WAIT, _query("after", _TEXT, "token of the answer that the device has seen")),
        examples={
            200: {"token": "5d1f…", "server_time": "2026-11-21T09:12:03.120000Z", "rounds": [], "models": []},
        },
    ),
    ("GET", "/api/v1/work/aliases"): Row(
        words="What people call which version; told, not signed",
        answers={200: (JSON, _object(aliases=_list(_ALIAS)), "The aliases that point at a version.")},
        examples={200: {"aliases": []}},
    ),
    ("GET", "/api/v1/enrolments/{id}/certificate"): Row(
        words="Certificate and key statement, once the authority has made them",
        answers={
            200: (JSON, _CERTIFICATE, "Decided; with the certificate if the device is active."),
            202: (JSON, _CERTIFICATE, "Not decided yet."),
        },
        parameters=(_WAIT,),
        examples={202: {"state": "pending"}},
    ),
    ("POST", "/api/v1/renewals"): Row(
        words="Begin to renew a device's four keys; the same transcript gets the stored answer",
        body=(JSON, _object(transcript=_BASE64URL)),
        answers={201: (JSON, _object(renewal=_UUID, answer=_BASE64URL), "The answer to the transcript.")},
    ),
    ("POST", "/api/v1/renewals/{id}/finish"): Row(
        words="Prove the new keys",
        body=(
            JSON,
            _object(
                challenge_mac=_BASE64URL,
                continuity=_BASE64URL,
                signatures=_object(authentication=_BASE64URL, classical=_BASE64URL, signing=_BASE64URL),
            ),
        ),
        answers={202: (JSON, _object(renewal=_UUID, state=_TEXT), "Proven; the certificate is in the making.")},
    ),
    ("GET", "/api/v1/renewals/{id}/certificate"): Row(
        words="The renewed certificate and key statement, once the authority has made them",
        answers={200: (JSON, _RENEWED, "Made."), 202: (JSON, _RENEWED, "Not made yet.")},
        parameters=(_WAIT,),
    ),
    ("POST", "/api/v1/encipherments"): Row(
        words="Ask for a certificate that standard tools encrypt to; the same request gets the stored answer",
        body=(JSON, _object(request=_BASE64URL)),
        answers={201: (JSON, _object(encipherment=_UUID, answer=_BASE64URL), "The answer to the request.")},
    ),
    ("POST", "/api/v1/encipherments/{id}/finish"): Row(
        words="Prove the key that the certificate is to be for",
        body=(JSON, _object(mac=_BASE64URL)),
        answers={202: (JSON, _object(encipherment=_UUID, state=_TEXT), "Proven; the certificate is in the making.")},
    ),
    ("GET", "/api/v1/encipherments/{id}/certificate"): Row(
        words="The encipherment certificate, once the authority has made it",
        answers={200: (JSON, _ENCIPHERMENT, "Settled."), 202: (JSON, _ENCIPHERMENT, "Not made yet.")},
        parameters=(_WAIT,),
    ),
    ("GET", "/api/v1/rounds/{id}/assignment"): Row(
        words="The signed plan and the signed assignment of a round",
        answers={200: (CBOR, _BINARY, "`{plan, assignment}`.")},
    ),
    ("POST", "/api/v1/rounds/{id}/join"): Row(
        words="Take part in a round; repeating it changes nothing",
        body=(JSON, _NOTHING),
        answers={
            200: (
                JSON,
                _object(participant={"enum": sorted(ParticipantState)}, round_state={"enum": sorted(RoundState)}),
                "Joined.",
            )
        },
        examples={200: {"participant": "joined", "round_state": "recruiting"}},
    ),
    ("POST", "/api/v1/rounds/{id}/submissions"): Row(
        words="Hand over a sealed update",
        body=(BYTES, _BINARY),
        parameters=(_KEY,),
        answers={
            201: (CBOR, _BINARY, "The signed receipt."),
            200: (CBOR, _BINARY, "The same receipt again: the submission was here already."),
        },
    ),
    ("POST", "/api/v1/rounds/{id}/uploads"): Row(
        words="Make room for a submission in chunks, or say what is missing of it",
        body=(JSON, {**_object(digest=_DIGEST, sha256=_DIGEST, size_bytes=_NUMBER), "additionalProperties": False}),
        answers={201: (JSON, _UPLOAD, "Opened."), 200: (JSON, _UPLOAD, "Open already, or submitted.")},
        refusals=(503,),
    ),
    ("GET", "/api/v1/uploads/{id}"): Row(
        words="What is missing of an upload", answers={200: (JSON, _UPLOAD, "Offsets of the missing chunks.")}
    ),
    ("PUT", "/api/v1/uploads/{id}"): Row(
        words="Send one chunk",
        body=(BYTES, _BINARY),
        parameters=(
            _header("Idempotency-Key", _DIGEST, "SHA-256 of the chunk"),
            _header("Upload-Offset", {"type": "integer", "minimum": 0}, "where the chunk begins"),
            _header("Upload-Length", {"type": "integer", "minimum": 0}, "bytes of the whole"),
        ),
        answers={200: (JSON, _UPLOAD, "What is missing now.")},
        refusals=(503,),
    ),
    ("POST", "/api/v1/uploads/{id}/submission"): Row(
        words="Make the submission of a whole upload",
        body=(JSON, _NOTHING),
        answers={201: (JSON, _UPLOAD, "With the receipt."), 200: (JSON, _UPLOAD, "Done before, or not whole yet.")},
    ),
    ("GET", "/api/v1/rounds/{id}/record"): Row(
        words="The signed account of a round", answers={200: (CBOR, _BINARY, "The round record.")}
    ),
    ("GET", "/api/v1/submissions/{id}"): Row(
        words="What became of a submission",
        answers={
            200: (JSON, {"type": "object", "required": ["state"], "properties": {"state": _TEXT}}, "State and code.")
        },
        parameters=(_WAIT,),
        examples={200: {"submission": "8d0c0f3e-5a31-4b43-9b0a-0c2f5f9a7d11", "state": "accepted", "code": None}},
    ),
    ("GET", "/api/v1/submissions/{id}/proof"): Row(
        words="The ledger's proof that a receipt was logged",
        answers={
            200: (JSON, _PROOF, "Entry, place, signed head and path."),
            202: (JSON, _object(state={"const": "waiting"}), "Not numbered yet."),
        },
        parameters=(_query("since", {"type": "integer", "minimum": 0}, "leaves of the head that the device has seen"),),
        examples={202: {"state": "waiting"}},
    ),
    ("GET", "/api/v1/models/{id}/manifest"): Row(
        words="The signed manifest of a version and this device's stanza",
        answers={200: (CBOR, _BINARY, "`{manifest, stanza}`.")},
    ),
    ("GET", "/api/v1/models/{id}/body"): Row(
        words="The sealed body of a version", answers={200: (BYTES, _BINARY, "Sealed to this device by its stanza.")}
    ),
    ("GET", "/api/v1/trust"): Row(
        words="Anchor, trust statement and server keys; signed, for anybody",
        answers={200: (CBOR, _BINARY, "The trust document.")},
        signed=False,
    ),
    ("GET", "/api/v1/revocations.crl"): Row(
        words="The newest revocation list",
        answers={200: ("application/pkix-crl", _BINARY, "DER.")},
        signed=False,
    ),
    ("GET", "/api/v1/revocations/{issuer}.crl"): Row(
        words="The newest revocation list of one issuing authority",
        answers={200: ("application/pkix-crl", _BINARY, "DER.")},
        signed=False,
    ),
    ("POST", "/api/v1/ocsp"): Row(
        words="The status of a certificate (RFC 6960), signed ahead of the question",
        body=("application/ocsp-request", _BINARY),
        answers={200: ("application/ocsp-response", _BINARY, "DER; refusals are in it.")},
        signed=False,
    ),
    ("GET", "/api/v1/ocsp/{question}"): Row(
        words="The status of a certificate, with the question in the address, base64",
        answers={200: ("application/ocsp-response", _BINARY, "DER; refusals are in it.")},
        signed=False,
    ),
}


def door_addresses() -> list[tuple[str, str]]:
    """Method and address of every route of the device door."""
    return [(entry.method, entry.template.replace("<id>", "{id}")) for entry in ROUTES]


def add_described_routes(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Spectacular's hook: add the operations of this file.

    Raises:
        RuntimeError: a route of the device door has no row.
    """
    if missing := set(door_addresses()) - set(DESCRIBED):
        raise RuntimeError(f"rounds/schema.py does not describe {sorted(missing)}")
    for (method, path), row in DESCRIBED.items():
        result["paths"].setdefault(path, {})[method.lower()] = _operation(method, path, row)
    result["paths"] = dict(sorted(result["paths"].items()))
    return result


def _operation(method: str, path: str, row: Row) -> dict[str, Any]:
    refusals = {429, *row.refusals}
    parameters = list(row.parameters)
    if "{" in path:
        name = path.partition("{")[2].partition("}")[0]
        schema = _UUID if name == "id" else {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
        parameters.insert(0, {"name": name, "in": "path", "required": True, "schema": schema})
    if row.signed:
        refusals |= {400, 401, 403, 409}
        if "{" in path:
            refusals |= {404}
        if row.body:
            refusals |= {408, 413, 422}
    else:
        refusals |= {404, 409} if not row.body else {408, 413}
    answers: dict[str, Any] = {}
    for status, (kind, schema, words) in row.answers.items():
        media: dict[str, Any] = {"schema": dict(schema)}
        if status in row.examples:
            media["example"] = row.examples[status]
        answers[str(status)] = {"description": words, "content": {kind: media}}
    operation: dict[str, Any] = {
        "operationId": operation_id(method, path),
        "summary": row.words,
        "tags": [tag_of(path)],
        "parameters": [dict(parameter) for parameter in parameters],
        "responses": answers | problems(refusals),
        "security": [{SIGNATURES: []}] if row.signed else [],
    }
    if row.body:
        operation["requestBody"] = {"required": True, "content": {row.body[0]: {"schema": dict(row.body[1])}}}
    return operation
