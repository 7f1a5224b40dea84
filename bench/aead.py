"""The ``constrained`` suite's body: Ascon-AEAD128 of this machine, of every lesser form, and of the PyPI package.

Figures are medians of whole calls, key derivation, allocation and tags included. The PyPI package implements Ascon
v1.2 and not the standard, so it is a yardstick of speed only; its 128a variant is the nearest and the quickest.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import ascon as pypi_ascon

from latticeward.crypto.ascon import Form, available_forms, default_core, get_core
from latticeward.crypto.ascon_core import CHUNK_BYTES, Core
from latticeward.crypto.ascon_stream import open_stream, seal_stream

_MESSAGE_BYTES: Final = 16 * 2**20
_BASELINE_BYTES: Final = 2**20
_HEADER: Final = b"bench"


def run() -> Iterator[dict[str, Any]]:
    """Rows of about ten seconds of measuring, most of them the PyPI package's."""
    key, message = os.urandom(32), os.urandom(_MESSAGE_BYTES)
    core = default_core()
    body = seal_stream(message, key=key, header=_HEADER)
    yield _row("ascon_seal_gbps", _gbps(lambda: _seal(message, key, core)), "GB/s")
    yield _row("ascon_open_gbps", _gbps(lambda: _open(body, key, core)), "GB/s")
    yield _row("ascon_two_thread_speedup", _two_thread_speedup(message, key, core), "x")
    for form in available_forms():
        if form not in (Form.NUMPY, Form.REFERENCE):
            forced = get_core(form)
            yield _row(f"ascon_{form}_seal_gbps", _gbps(partial(_seal, message, key, forced)), "GB/s")
            yield _row(f"ascon_{form}_open_gbps", _gbps(partial(_open, body, key, forced)), "GB/s")
    numpy_seconds = _median_seconds(lambda: _seal(message, key, get_core(Form.NUMPY)), times=5)
    yield _row("ascon_nocompiler_mbps", _MESSAGE_BYTES / numpy_seconds / 1e6, "MB/s")
    short = message[:_BASELINE_BYTES]
    own_seconds = _median_seconds(lambda: _seal(short, key, core), times=200)
    baseline_seconds = _median_seconds(lambda: _seal_with_pypi(short, key), times=3)
    yield _row("pypi_ascon_seal_mbps", _BASELINE_BYTES / baseline_seconds / 1e6, "MB/s")
    yield _row("ascon_vs_pypi_ascon", baseline_seconds / own_seconds, "x")


def _row(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"bench": "aead", "metric": metric, "value": value, "unit": unit}


def _seal(message: bytes, key: bytes, core: Core) -> None:
    seal_stream(message, key=key, header=_HEADER, core=core)


def _open(body: bytes, key: bytes, core: Core) -> None:
    open_stream(body, key=key, header=_HEADER, plaintext_bytes=_MESSAGE_BYTES, core=core)


def _seal_with_pypi(message: bytes, key: bytes) -> None:
    for at in range(0, len(message), CHUNK_BYTES):
        nonce = at.to_bytes(16, "big")
        pypi_ascon.encrypt(key[:16], nonce, b"", message[at : at + CHUNK_BYTES], variant="Ascon-128a")


def _gbps(call: Callable[[], None]) -> float:
    return _MESSAGE_BYTES / _median_seconds(call, times=25) / 1e9


def _median_seconds(call: Callable[[], None], *, times: int) -> float:
    call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _two_thread_speedup(message: bytes, key: bytes, core: Core, *, messages_each: int = 20) -> float:
    """Throughput of two threads with a message each against that of one; one when the second gained nothing."""

    def seal_all() -> None:
        for _ in range(messages_each):
            _seal(message, key, core)

    def on_threads(count: int) -> float:
        threads = [threading.Thread(target=seal_all) for _ in range(count)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    # In turn, so that a slow moment of the machine meets both alike.
    return statistics.median(2 * on_threads(1) / on_threads(2) for _ in range(7))
