"""What was measured on: the few speeds of a machine that the other benches' figures follow.

A processor's name says little where hosts are shared, and the clock that the system reports is often the nominal one.
So each speed is measured, on one thread, in processor time, and is the best of several short runs: a neighbour can only
make a machine look slower than it is.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_BODY_BYTES: Final = 4 * 1024 * 1024
_LOOP_STEPS: Final = 100_000
_CHAIN_STEPS: Final = 2_000_000
_CYCLES_PER_STEP: Final = 3
# Each product waits for the one before it, and a 64-bit multiplication has taken three cycles on every processor that
# this runs on for ten years, so that the time of the chain is the clock.
_CHAIN: Final = """
unsigned long chain(unsigned long steps, unsigned long x) {
    for (unsigned long step = 0; step < steps; step++) { x *= 0x9E3779B97F4A7C15ul; __asm__ volatile("" : "+r"(x)); }
    return x;
}
"""
# What /proc/cpuinfo calls them, on Intel and AMD and on ARM.
_FLAGS: Final = {"sha_ni": ("sha_ni", "sha2"), "aes_ni": ("aes",), "vaes": ("vaes",), "avx512": ("avx512f",)}


def run() -> Iterator[dict[str, Any]]:
    """Rows of about a second of measuring; ``clock_ghz`` is left out where there is no C compiler."""
    yield _row("cores", len(os.sched_getaffinity(0)), "processors")
    clock = _clock_ghz()
    if clock is not None:
        yield _row("clock_ghz", clock, "GHz")
    for name, present in _extensions().items():
        yield _row(name, present, "1 if present")
    body, cipher = bytes(_BODY_BYTES), AESGCM(bytes(32))
    yield _row("sha256_mbps", _BODY_BYTES / _best(lambda: sha256(body)) / 1e6, "MB/s")
    yield _row("aes_256_gcm_mbps", _BODY_BYTES / _best(lambda: cipher.encrypt(bytes(12), body, None)) / 1e6, "MB/s")
    key = mldsa.MLDSA65PrivateKey.generate()
    signature = key.sign(body[:64])
    yield _row("mldsa65_sign_ms", _mean_sign_ms(key, body[:64]), "ms")
    yield _row("mldsa65_verify_ms", _best(lambda: key.public_key().verify(signature, body[:64])) * 1000, "ms")
    yield _row("python_loop_msteps", _LOOP_STEPS / _best(_loop) / 1e6, "million steps/s")


def head_line() -> str:
    """One line that says what was measured on; figures without it mean nothing."""
    found = {row["metric"]: row["value"] for row in run()}
    clock = f"{found['clock_ghz']:.1f} GHz measured" if "clock_ghz" in found else "clock not measured (no C compiler)"
    names = {"sha_ni": "SHA-NI", "aes_ni": "AES-NI", "vaes": "VAES", "avx512": "AVX-512"}
    extensions = [name if found[metric] else f"no {name}" for metric, name in names.items()]
    speeds = [
        f"SHA-256 {found['sha256_mbps']:.0f} MB/s",
        f"AES-256-GCM {found['aes_256_gcm_mbps']:.0f} MB/s",
        f"ML-DSA-65 sign {found['mldsa65_sign_ms']:.2f} ms, verify {found['mldsa65_verify_ms']:.2f} ms",
        f"Python {platform.python_version()}, {found['python_loop_msteps']:.0f} million steps/s",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join([_processor(), f"{found['cores']:.0f} cores", clock, *extensions, *speeds])


def _processor() -> str:
    return _cpuinfo("model name") or f"unknown {platform.machine()} processor"


def _extensions() -> dict[str, bool]:
    listed = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return {name: not listed.isdisjoint(spellings) for name, spellings in _FLAGS.items()}


def _cpuinfo(field: str) -> str:
    """The first processor's value of a field, empty where this system has none."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _clock_ghz() -> float | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as folder:
        source, library = Path(folder) / "chain.c", Path(folder) / "chain.so"
        source.write_text(_CHAIN, encoding="utf-8")
        command = [compiler, "-O2", "-fPIC", "-shared", "-o", str(library), str(source)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        chain = ctypes.CDLL(str(library)).chain
    chain.argtypes, chain.restype = [ctypes.c_ulong, ctypes.c_ulong], ctypes.c_ulong
    return _CYCLES_PER_STEP * _CHAIN_STEPS / _best(lambda: chain(_CHAIN_STEPS, 3)) / 1e9


def _mean_sign_ms(key: mldsa.MLDSA65PrivateKey, message: bytes) -> float:
    # A mean over many and no best: how often ML-DSA starts again is chance, and the luckiest signature says nothing.
    def sign_many() -> None:
        for _ in range(50):
            key.sign(message)

    return _best(sign_many, times=4) / 50 * 1000


def _loop() -> int:
    total = 0
    for step in range(_LOOP_STEPS):
        total += step & 7
    return total


def _best(candidate: Callable[[], object], *, times: int = 15) -> float:
    """Processor seconds of the quickest run."""
    seconds = []
    for _ in range(times):
        started = time.thread_time()
        candidate()
        seconds.append(time.thread_time() - started)
    return min(seconds)


def _row(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"metric": metric, "value": round(float(value), 3), "unit": unit}
