"""Signed device requests: RFC 9421 message signatures, twice, over the same components.

Every request after enrolment carries two signatures, ``pq`` (ml-dsa-65, or ml-dsa-87 for devices of the suite
``high``) and ``cl`` (ed25519); both must hold, so a forger has to break a lattice *and* a curve. This is a profile of
RFC 9421, narrower than the RFC on purpose: the order of components and of parameters is fixed, and the verifier
computes which components a request must cover instead of believing the list that the sender gives. A list that is
longer, shorter, in another order or holds a component twice is therefore refused without a rule for each case.

Covered are ``@method``, ``@authority``, ``@path``, ``@query`` and every header of ``STEERING_HEADERS`` that the request
carries; a request with a body must carry ``content-digest`` (RFC 9530, sha-256). Both signatures share created,
expires, nonce, keyid and tag; only ``alg`` differs, and it is compared with the registered key's, never used to
choose one.

The authentication keys sign with the empty context (C2SP httpsig-pq forbids any other), and the ML-DSA key also signs
certificate requests, TLS handshakes and one enrolment proof. These can never be taken for each other, since their
first bytes differ: a signature base starts with ``"@method"`` (0x22), a CSR with a DER SEQUENCE (0x30), a TLS 1.3
handshake signature with 64 spaces (0x20), an enrolment proof with ``latticeward/`` (0x6c).

What does not live here: the nonce memory, the lookup of keys, and the comparison of ``content_digest`` with the body
that really came, which a door can do only after the last byte (``verify_body_digest``).
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from latticeward.crypto.authentication import ED25519, ML_DSA_65, ML_DSA_87
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    AuthenticationVerifyKey,
    ClassicalSigningKey,
    ClassicalVerifyKey,
)
from latticeward.crypto.signature_fields import (
    SignatureParameters,
    decode_signature,
    encode_signature,
    join_labels,
    signature_base,
    split_labels,
)
from latticeward.errors import (
    ClockSkewError,
    InvalidSignatureError,
    MalformedMessageError,
    NotAuthenticatedError,
    WrongContextError,
)

TAG: Final = "latticeward-request-v1"

WINDOW_SECONDS: Final = 60
# How far a clock may be off, judged by ``created`` alone; that a request counts once is the nonce's work.
SKEW_SECONDS: Final = 300
# A nonce must be remembered for as long as any clock within the skew may still show the request as fresh.
NONCE_LIFETIME_SECONDS: Final = WINDOW_SECONDS + 2 * SKEW_SECONDS
NONCE_BYTES: Final = 16

# Headers that steer a decision of the server. One that is present must be signed, one that is absent cannot be added.
STEERING_HEADERS: Final = (
    "content-digest",
    "content-encoding",
    "content-type",
    "idempotency-key",
    "upload-id",
    "upload-length",
    "upload-offset",
)
_DERIVED: Final = ("@method", "@authority", "@path", "@query")
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})

_MAX_HEADER_CHARS: Final = 8_000  # common proxies stop at 8 kB a line; ours are about 4.7 kB
_DIGEST: Final = re.compile(r"sha-256=:(?P<value>[A-Za-z0-9+/]{43}=):")
# Paths of this API need no percent-encoding. Refusing it makes the raw path and the decoded one the same string,
# so no framework between the wire and the verifier can make them differ.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*")
_QUERY: Final = re.compile(r"[\x21\x22\x24-\x7e]*")
_AUTHORITY: Final = re.compile(r"[a-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-f:.]+\](?::[0-9]{1,5})?")
_PRINTABLE: Final = bytes(range(0x20, 0x7F))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """The parts of a request that a signature can cover.

    Attributes:
        method: upper case, for example ``GET``.
        authority: the Host header as received, ``host`` or ``host:port``; compared in lower case. The verifier's
            caller has already refused a Host that is not its own.
        path: the path as on the wire, for example ``/api/v1/work``.
        query: the raw query string without the question mark; empty if there is none.
        headers: every header line, in any order, repeated lines repeated.
    """

    method: str
    authority: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def make(
        cls, method: str, authority: str, path: str, query: str, headers: Iterable[tuple[str, str]]
    ) -> "RequestFacts":
        """Normalise and check the parts.

        Raises:
            MalformedMessageError: a part holds characters that this profile does not allow.
        """
        facts = cls(
            method=method.upper(),
            authority=authority.lower(),
            path=path or "/",
            query=query,
            headers=tuple((name.lower(), value.strip(" \t")) for name, value in headers),
        )
        if not facts.method.isascii() or not facts.method.isalpha():
            raise MalformedMessageError("the request's method is not a word")
        if _AUTHORITY.fullmatch(facts.authority) is None:
            raise MalformedMessageError("the request's authority is not host or host:port")
        if _PATH.fullmatch(facts.path) is None:
            raise MalformedMessageError("the request's path holds characters outside this API's set")
        if _QUERY.fullmatch(facts.query) is None:
            raise MalformedMessageError("the request's query holds characters that must be encoded")
        return facts

    def header(self, name: str) -> str | None:
        """The value of a header that may occur once.

        Raises:
            MalformedMessageError: it occurs twice (two readers could then choose differently) or holds other
                characters than visible ASCII and inner spaces.
        """
        values = [value for header, value in self.headers if header == name]
        if not values:
            return None
        if len(values) > 1:
            raise MalformedMessageError(f"the header {name} occurs {len(values)} times")
        if len(values[0]) > _MAX_HEADER_CHARS or not _is_plain(values[0]):
            raise MalformedMessageError(f"the header {name} is empty, too long or not plain ASCII")
        return values[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRequest:
    """Proof that both signatures of a request hold. Made only by ``verify_request``.

    Attributes:
        key_id: hex key id of the ML-DSA authentication key, 64 characters.
        nonce: 22 characters base64url; the caller refuses one that it has seen from this key within
            ``NONCE_LIFETIME_SECONDS``.
        created_at: the signer's clock, aware UTC, whole seconds.
        content_digest: SHA-256 that the sender promises for the body, 32 bytes; None if there is no body.
    """

    key_id: str
    nonce: str
    created_at: datetime
    content_digest: bytes | None


def content_digest_header(body_digest: bytes) -> str:
    """The Content-Digest value (RFC 9530) for a SHA-256 of 32 bytes."""
    return f"sha-256=:{base64.b64encode(body_digest).decode('ascii')}:"


def sign_request(
    method: str,
    url_authority: str,
    path: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    body_digest: bytes | None,
    *,
    key_id: str,
    mldsa: AuthenticationSigningKey,
    ed25519: ClassicalSigningKey,
    created_at: datetime,
    nonce: bytes,
) -> dict[str, str]:
    """Make the headers that authenticate one request.

    Args:
        url_authority: host or host:port as it will stand in the Host header.
        path: without query.
        query: raw, without the question mark.
        headers: the headers the request will be sent with; those of ``STEERING_HEADERS`` get signed.
        body_digest: SHA-256 of the body, 32 bytes; None for a request without a body.
        key_id: hex key id of the ML-DSA authentication key.
        mldsa: signs under the label ``pq``.
        ed25519: signs under the label ``cl``.
        created_at: aware time; cut to whole seconds.
        nonce: 16 random bytes, never used before.

    Returns:
        Headers to add: Signature-Input, Signature and, with a body, Content-Digest.

    Raises:
        MalformedMessageError: a part cannot be signed under this profile.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    lines = list(headers)
    added: dict[str, str] = {}
    if body_digest is not None:
        added["Content-Digest"] = content_digest_header(body_digest)
        lines.append(("content-digest", added["Content-Digest"]))
    facts = RequestFacts.make(method, url_authority, path, query, lines)
    components = _required_components(facts)
    created = int(created_at.timestamp())
    nonce_text = base64.urlsafe_b64encode(nonce).decode("ascii").rstrip("=")

    def parameters(algorithm: str) -> str:
        return str(
            SignatureParameters(
                components=tuple(identifier for identifier, _ in components),
                created=created,
                expires=created + WINDOW_SECONDS,
                nonce=nonce_text,
                key_id=key_id,
                algorithm=algorithm,
                tag=TAG,
            )
        )

    pq, cl = parameters(mldsa.algorithm), parameters(ED25519)
    added["Signature-Input"] = join_labels(pq, cl)
    added["Signature"] = join_labels(
        encode_signature(mldsa.sign(signature_base(components, pq))),
        encode_signature(ed25519.sign(signature_base(components, cl))),
    )
    return added


def verify_request(
    facts: RequestFacts,
    *,
    resolve: Callable[[str], tuple[AuthenticationVerifyKey, ClassicalVerifyKey]],
    now: datetime,
) -> VerifiedRequest:
    """Believe a request, or refuse it. Made with ``RequestFacts.make``.

    1. Both signatures and their parameters are there, in this profile's form.
    2. The list of covered components is exactly what this request must cover.
    3. Both labels agree on everything but the algorithm, and each names its own.
    4. The window is no longer than allowed, and the signer's clock is within the skew of ours.
    5. The key id belongs to a device (``resolve``; it raises NotAuthenticatedError for a stranger), and its key is of
       the algorithm that the request names.
    6. Both signatures hold. Both are checked before the verdict.

    Left to the caller: the nonce's novelty, the device's state, and the body's digest.

    Args:
        resolve: hex key id to the two verify keys of one device.
        now: aware UTC.

    Raises:
        NotAuthenticatedError: no signatures, or a key that nobody has.
        MalformedMessageError: not this profile.
        ClockSkewError: created too far from ``now``; the message says by how much.
        InvalidSignatureError: one of the signatures is wrong.
    """
    # 1
    input_header, signature_header = facts.header("signature-input"), facts.header("signature")
    if input_header is None or signature_header is None:
        raise NotAuthenticatedError("the request carries no signature")
    pq_text, cl_text = split_labels(input_header)
    pq = SignatureParameters.parse(pq_text)
    pq_signature, cl_signature = (decode_signature(item) for item in split_labels(signature_header))

    # 2
    components = _required_components(facts)
    if pq.components != tuple(identifier for identifier, _ in components):
        raise MalformedMessageError("the signatures do not cover exactly what this request must cover")

    # 3
    if pq.algorithm not in (ML_DSA_65, ML_DSA_87):
        raise MalformedMessageError("the label pq is ml-dsa-65 or ml-dsa-87")
    # Every value has one spelling, so the text of one label follows from the other's.
    if cl_text != pq_text.replace(f';alg="{pq.algorithm}";', f';alg="{ED25519}";'):
        raise MalformedMessageError("the label cl is ed25519, and shares every other parameter with pq")
    if pq.tag != TAG:
        raise MalformedMessageError("the signatures were made for another application")

    # 4
    if not 0 < pq.expires - pq.created <= WINDOW_SECONDS:
        raise MalformedMessageError(f"a signature may live up to {WINDOW_SECONDS} s")
    present = now.timestamp()
    ahead = pq.created - present
    if abs(ahead) > SKEW_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        raise ClockSkewError(
            f"This device's clock is {abs(ahead):.0f} s {side} the server's; {SKEW_SECONDS} s are allowed. "
            "Set the clock, then send the request again."
        )

    # 5
    mldsa, ed25519 = resolve(pq.key_id)
    if mldsa.algorithm != pq.algorithm:
        raise InvalidSignatureError(f"the registered key is {mldsa.algorithm}, the request names {pq.algorithm}")

    # 6
    failed = False
    try:
        mldsa.verify(pq_signature, signature_base(components, pq_text))
    except InvalidSignatureError:
        failed = True
    try:
        ed25519.verify(cl_signature, signature_base(components, cl_text))
    except InvalidSignatureError:
        failed = True
    if failed:
        raise InvalidSignatureError("the request's signatures do not both hold")

    return VerifiedRequest(
        key_id=pq.key_id,
        nonce=pq.nonce,
        created_at=datetime.fromtimestamp(pq.created, UTC),
        content_digest=_content_digest(components),
    )


def verify_body_digest(request: VerifiedRequest, body_digest: bytes) -> None:
    """Check the digest of the body that really came against the signed one.

    Args:
        body_digest: SHA-256 of the whole body, 32 bytes.

    Raises:
        WrongContextError: they differ, or the request announced no body.
    """
    if request.content_digest is None or not hmac.compare_digest(request.content_digest, body_digest):
        raise WrongContextError("the body is not the one that the request's signature covers")


def _is_plain(value: str) -> bool:
    """Whether a value is visible ASCII, with spaces only between."""
    if not value or value != value.strip(" ") or not value.isascii():
        return False
    # What is left without the printable ones; on the 4.5 kB of two signatures half the work of a pattern.
    return not value.encode("ascii").translate(None, _PRINTABLE)


def _required_components(facts: RequestFacts) -> list[tuple[str, str]]:
    values = (facts.method, facts.authority, facts.path, f"?{facts.query}")
    components = list(zip(_DERIVED, values, strict=True))
    carried = {name for name, _ in facts.headers}
    for name in STEERING_HEADERS:
        if name in carried and (value := facts.header(name)) is not None:
            components.append((name, value))
    if facts.method in _BODY_METHODS and "content-digest" not in carried:
        raise MalformedMessageError("a request with a body must carry a Content-Digest")
    _content_digest(components)
    return components


def _content_digest(components: Iterable[tuple[str, str]]) -> bytes | None:
    value = dict(components).get("content-digest")
    if value is None:
        return None
    match = _DIGEST.fullmatch(value)
    if match is None:
        raise MalformedMessageError("Content-Digest must be one sha-256 value")
    return base64.b64decode(match["value"])
