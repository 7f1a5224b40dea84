"""What is published about certificates: how fast a long revocation list is made, and status answers are handed out."""

import secrets
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from bench.installation import Installation
from bench.processes import DemoError
from bench.signed_requests import send_all
from latticeward.agent.identity import Identity
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.certificate_path import load_certificate
from latticeward.crypto.issuing import make_issuing, make_root
from latticeward.crypto.revocation import RevokedCertificate, make_revocation_list

REVOKED: Final = 10_000
CONNECTIONS: Final = 8
QUESTIONS: Final = 400
ANSWER_SECONDS: Final = 30


def revocation_list() -> float:
    """Median milliseconds to build and sign a list of ``REVOKED`` entries, reasons and times included."""
    root_key, issuing_key = CertificateSigningKey.generate("ml-dsa-87"), CertificateSigningKey.generate("ml-dsa-65")
    now = datetime.now(UTC)
    root = make_root(root_key, name="bench", now=now)
    issuing = make_issuing(
        issuing_key.public_raw,
        algorithm=issuing_key.algorithm,
        federation="bench",
        root=root,
        root_key=root_key,
        now=now,
    )
    entries = [
        RevokedCertificate(serial=secrets.token_hex(16), reason="key_compromise", revoked_at=now, invalid_from=now)
        for _ in range(REVOKED)
    ]
    taken = []
    for number in range(1, 8):
        started = time.perf_counter()
        make_revocation_list(
            entries, number=number, issuing=issuing, issuing_key=issuing_key, now=now, next_at=now + timedelta(days=1)
        )
        taken.append(time.perf_counter() - started)
    return 1000 * median(taken)


def status_answers(server: Installation, devices: list[Identity]) -> float:
    """OCSP answers a second over HTTP, questions by POST about the certificates of several devices."""
    authority = urlsplit(server.address).netloc
    questions = [_question(device) for device in devices]
    requests = [
        f"POST /api/v1/ocsp HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/ocsp-request\r\n"
        f"Content-Length: {len(question)}\r\n\r\n".encode("ascii")
        + question
        for question in questions
    ]
    deadline = time.monotonic() + ANSWER_SECONDS
    while not all(_is_answered(server, question) for question in questions):
        if time.monotonic() > deadline:  # they are signed ahead of the questions, every few seconds
            raise DemoError(f"no signed status of a new certificate within {ANSWER_SECONDS} s")
        time.sleep(0.2)
    each = [[requests[(place + number) % len(requests)] for number in range(QUESTIONS)] for place in range(CONNECTIONS)]
    return send_all(server.address, each, expected=200)


def _question(device: Identity) -> bytes:
    certificate, issuer = (load_certificate(der) for der in device.certificate_chain[:2])
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA256()).build()
    return request.public_bytes(serialization.Encoding.DER)


def _is_answered(server: Installation, question: bytes) -> bool:
    request = urllib.request.Request(
        f"{server.address}/api/v1/ocsp", data=question, headers={"Content-Type": "application/ocsp-request"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        status = ocsp.load_der_ocsp_response(answer.read()).response_status
    return status == ocsp.OCSPResponseStatus.SUCCESSFUL
