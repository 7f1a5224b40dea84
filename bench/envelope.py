"""Envelopes against the bare minimum: SHA-256 and AES-256-GCM of the same bytes, in one run, candidates in turn.

Signing and sealing a key are no part of that minimum, and cost the same whatever the machine's hashing does. So there
is a second yardstick, ``native``: the minimum and the library's own calls for both signatures and for the key.
Overheads in bytes count the envelope (header, stanza, tags, signature) against the same payload with one AES-GCM tag.
The 1 GiB stream runs in a process of its own, whose resident memory is compared with what it had before.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.native_calls import NativeCalls, encapsulate_bare
from latticeward.crypto.envelope import (
    EnvelopeHeader,
    Recipient,
    make_stanza,
    open_envelope,
    parse_envelope,
    seal_body,
    seal_envelope,
    verify_envelope,
)
from latticeward.crypto.keys import CompositeSigningKey, DecapsulationKey, EncapsulationKey
from latticeward.crypto.signing import Purpose

Row = dict[str, str | float]

BODY_BYTES: Final = 4 * 1024 * 1024
ROUNDS: Final = 61
RECIPIENTS: Final = 1_000
RECIPIENT_ROUNDS: Final = 5
STREAM_BYTES: Final = 1 << 30
_ROUND: Final = "6f2b8a4e-1f07-4f0e-9d5a-000000000002"

_STREAM: Final = """
import sys
from pathlib import Path
from bench.envelope import header_for
from latticeward.crypto.envelope import Recipient
from latticeward.crypto.envelope_file import open_file, seal_file, verify_file
from latticeward.crypto.keys import CompositeSigningKey, DecapsulationKey
from latticeward.crypto.signing import Purpose

def status(name):
    # Not getrusage: its high-water mark survives exec and may be the parent's.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

folder, size = Path(sys.argv[1]), int(sys.argv[2])
plain, sealed = folder / "plain", folder / "sealed"
with plain.open("wb") as file:
    file.truncate(size)
signer, round_key = CompositeSigningKey.generate(), DecapsulationKey.generate()
who = {"role": "round", "subject_id": "r", "epoch": 1}
before = status("VmRSS")
seal_file(plain, sealed, header=header_for(size, signer), signing_key=signer, purpose=Purpose.UPDATE,
          recipients=[Recipient(key=round_key.encapsulation_key, **who)])
verified = verify_file(sealed, purpose=Purpose.UPDATE, verify_key=signer.verify_key, limit_bytes=2 * size)
open_file(verified, plain, decapsulation_key=round_key, **who)
print((status("VmHWM") - before) / 1024)
"""


def run() -> Iterator[Row]:
    """Yields every ``envelope`` figure."""
    yield from _against_bare()
    yield from _recipients()
    yield from _bytes()
    yield _stream()


def header_for(plaintext_bytes: int, signer: CompositeSigningKey) -> EnvelopeHeader:
    """A header of the usual lengths, in the suite ``hybrid``."""
    return EnvelopeHeader(
        suite="hybrid",
        message_type="update",
        direction="to-server",
        federation_id="6f2b8a4e-1f07-4f0e-9d5a-000000000001",
        round_id=_ROUND,
        plan_digest=bytes(32),
        base_model_digest=bytes(32),
        sender_key_id=signer.verify_key.key_id,
        plaintext_bytes=plaintext_bytes,
        created_at=1_795_000_000_000,
        message_id=os.urandom(16),
    )


class _Case:
    """One sender, one round, one payload."""

    def __init__(self, size: int) -> None:
        self.signer, self.round_key = CompositeSigningKey.generate(), DecapsulationKey.generate()
        self.plaintext = os.urandom(size)
        self.sealed = self.seal()

    def seal(self) -> bytes:
        return seal_envelope(
            self.plaintext,
            header=header_for(len(self.plaintext), self.signer),
            recipients=[Recipient(key=self.round_key.encapsulation_key, role="round", subject_id=_ROUND, epoch=1)],
            signing_key=self.signer,
            purpose=Purpose.UPDATE,
        )

    def open(self) -> bytes:
        parsed = parse_envelope(self.sealed, limit_bytes=len(self.sealed))
        verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=self.signer.verify_key)
        opened = open_envelope(verified, role="round", subject_id=_ROUND, epoch=1, decapsulation_key=self.round_key)
        return opened.plaintext


def _against_bare() -> Iterator[Row]:
    case, cipher, nonce = _Case(BODY_BYTES), AESGCM(os.urandom(32)), bytes(12)
    bare = cipher.encrypt(nonce, case.plaintext, None)

    def seal_bare() -> bytes:
        sealed = cipher.encrypt(nonce, case.plaintext, None)
        hashlib.sha256(sealed).digest()
        return sealed

    def open_bare() -> bytes:
        hashlib.sha256(bare).digest()
        return cipher.decrypt(nonce, bare, None)

    native = NativeCalls()

    def seal_native() -> None:
        seal_bare()
        native.sign()
        native.encapsulate()

    def open_native() -> None:
        open_bare()
        native.verify()
        native.decapsulate()

    times = _in_turn(
        {
            "seal_bare": seal_bare,
            "seal_native": seal_native,
            "seal": case.seal,
            "open_bare": open_bare,
            "open_native": open_native,
            "open": case.open,
        }
    )
    for metric, ours, theirs in (
        ("seal_sign_over_bare", "seal", "seal_bare"),
        ("seal_sign_over_native", "seal", "seal_native"),
        ("verify_open_over_bare", "open", "open_bare"),
        ("verify_open_over_native", "open", "open_native"),
    ):
        yield _row(metric, times[ours] / times[theirs], "x")
    for name, seconds in times.items():
        yield _row(f"{name}_4mib_ms", seconds * 1000, "ms")


def _in_turn(candidates: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each, run one after the other in every round, so that all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            started = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def _recipients() -> Iterator[Row]:
    signer = CompositeSigningKey.generate()
    sealed = seal_body(bytes(100), header=header_for(100, signer))
    raw_keys = [DecapsulationKey.generate().encapsulation_key.raw for _ in range(RECIPIENTS)]

    def wrap() -> None:
        # Loading the public keys counts: a server has them as bytes.
        for number, raw in enumerate(raw_keys):
            key = EncapsulationKey.from_raw(raw, "mlkem768-x25519")
            recipient = Recipient(key=key, role="device", subject_id=f"{number:036d}", epoch=1)
            make_stanza(content_key=sealed.content_key, header_bytes=sealed.header_bytes, recipient=recipient)

    def wrap_bare() -> None:
        for raw in raw_keys:
            encapsulate_bare(raw)

    times = _in_turn({"recipients_1000": wrap, "recipients_1000_bare": wrap_bare}, rounds=RECIPIENT_ROUNDS)
    for name, seconds in times.items():
        yield _row(f"{name}_ms", seconds * 1000, "ms")


def _bytes() -> Iterator[Row]:
    for name, size in (("4mb", 4_000_000), ("400kb", 400_000)):
        bare = size + 16
        added = len(_Case(size).sealed) - bare
        yield _row(f"pq_overhead_{name}_percent", 100 * added / bare, "%")


def _stream() -> Row:
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as folder:
        run = subprocess.run(
            [sys.executable, "-c", _STREAM, folder, str(STREAM_BYTES)], capture_output=True, text=True, check=True
        )
    return _row("stream_1gib_extra_rss_mib", float(run.stdout), "MiB")


def _row(metric: str, value: float, unit: str) -> Row:
    return {"bench": "envelope", "metric": metric, "value": round(value, 4), "unit": unit}
