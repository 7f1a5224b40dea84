"""Aggregation in memory: the shipped kernels against the machine's read bandwidth, one update's intake, a whole round.

No database, broker or disk: what is left is what the processors must do. The functions are those that the workers
call (``latticeward.opening``, ``latticeward.updates.ring``, ``latticeward.aggregation``, the envelope and the signed
messages); ``bench pipeline`` measures them inside their services.

The rows named ``bare`` are what no such system can do without: SHA-256 over the bytes, AES-256-GCM and the ring's
addition, and nothing else, on the same bytes in turn with the shipped code. They make figures of different processors
comparable.
"""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final
from uuid import uuid4

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.large_model import encoded_update, large_plan, sealed_update
from latticeward.aggregation import AGGREGATORS
from latticeward.crypto.envelope import EnvelopeHeader, PlannedBody, Recipient, make_stanza
from latticeward.crypto.keys import CompositeSigningKey, DecapsulationKey
from latticeward.crypto.signing import Purpose, sign_message
from latticeward.messages import ModelManifest
from latticeward.opening import RoundOpening
from latticeward.optimisers import next_weights
from latticeward.optimisers.state import OptimiserState
from latticeward.updates.ring import RingVector, accumulate
from latticeward.updates.tensors import initial_vector, weights_digest

PARAMETERS: Final = 1_000_000
DEVICES: Final = 20
THREADS: Final = 2
INTAKES: Final = 61
ROUNDS: Final = 15
Row = dict[str, Any]

# In a process of its own, since OpenBLAS reads the number of its threads once, and a dot product is the fastest reader
# that NumPy has: the yardstick must not be a slow one. Reader and kernel take turns, on one thread and then on as many
# as there are cores, each with its own share of the updates and its own sum, as workers have. Speeds are by the time
# that a thread had a processor, or a neighbour's use of the machine would be counted as slow memory.
_BANDWIDTH: Final = """
import json, os, threading, time
from statistics import median
import numpy as np
from latticeward.updates.ring import accumulate

SIZE, COUNT = 1_000_000, 100
updates = [np.random.default_rng(number).integers(0, 2**30, SIZE, np.uint32) for number in range(COUNT)]

def read(share, total):
    for update in share:
        floats = update.view(np.float32)
        np.dot(floats[: SIZE // 2], floats[SIZE // 2 :])

def add(share, total):
    accumulate(total, *share)

def gigabytes_per_second(work, threads):
    barrier, speeds = threading.Barrier(threads), []
    def run(share):
        total = np.ones(SIZE, np.uint32)
        barrier.wait()
        began = time.thread_time()
        work(share, total)
        speeds.append(len(share) * SIZE * 4 / (time.thread_time() - began) / 1e9)
    each = COUNT // threads
    workers = [threading.Thread(target=run, args=(updates[i * each : (i + 1) * each],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(speeds)

for threads in sorted({1, len(os.sched_getaffinity(0))}):
    pairs = [[gigabytes_per_second(work, threads) for work in (read, add)] for _ in range(27)][2:]
    print(json.dumps([threads, *(median(column) for column in zip(*((r, a, a / r) for r, a in pairs)))]))
"""


def run() -> Iterator[Row]:
    """Rows of about half a minute."""
    yield from _ring_sum()
    case = _Case()
    yield from case.intake()
    yield from case.whole_round()


def _ring_sum() -> Iterator[Row]:
    done = subprocess.run(
        [sys.executable, "-c", _BANDWIDTH],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        threads, read, added, share = json.loads(line)
        suffix = "" if threads > 1 or len(os.sched_getaffinity(0)) == 1 else "_one_thread"
        yield _row(f"read_bandwidth{suffix}_gbps", read, "GB/s")
        yield _row(f"ring_sum{suffix}_gbps", added, "GB/s")
        yield _row(f"ring_sum{suffix}_read_bandwidth_share", share, "x")


class _Case:
    """A round of twenty devices and what they have sent."""

    def __init__(self) -> None:
        self.plan = large_plan(parameters=PARAMETERS, devices=DEVICES)
        self.round_key = DecapsulationKey.generate()
        self.server = CompositeSigningKey.generate()
        self.devices = [(CompositeSigningKey.generate(), DecapsulationKey.generate()) for _ in range(DEVICES)]
        self.base = initial_vector(self.plan.layout, self.plan.initial)
        self.opening = RoundOpening(
            round_id=str(uuid4()),
            plan=self.plan,
            plan_digest=self.plan.digest,
            base_model_digest=weights_digest(self.base),
            decapsulation_key=self.round_key,
        )
        self.sent = [
            sealed_update(
                self.plan,
                encoded_update(self.plan, seed),
                round_id=self.opening.round_id,
                base_model_digest=self.opening.base_model_digest,
                recipient=self.round_key.encapsulation_key,
                signing_key=signer,
            )
            for seed, (signer, _) in enumerate(self.devices)
        ]
        self.cipher = AESGCM(secrets.token_bytes(32))
        self.bare = [self._sealed_bare(number) for number in range(DEVICES)]

    def _sealed_bare(self, number: int) -> tuple[bytes, bytes]:
        nonce = number.to_bytes(12, "big")
        return nonce, self.cipher.encrypt(nonce, secrets.token_bytes(self.opening.codec.length_bytes), None)

    def take_in(self, index: int, total: RingVector) -> dict[str, float]:
        """Verify, open, validate and accumulate one update; seconds by stage."""
        opened = self.opening.open(self.sent[index], lambda _: self.devices[index][0].verify_key)
        started = time.perf_counter()
        accumulate(total, opened.vector)
        return {**opened.seconds, "accumulate": time.perf_counter() - started}

    def take_in_bare(self, index: int, total: RingVector) -> dict[str, float]:
        """Hash, decrypt and add as many bytes, and believe nothing."""
        nonce, sealed = self.bare[index]
        hashlib.sha256(sealed).digest()
        opened = np.empty_like(total)
        self.cipher.decrypt_into(nonce, sealed, None, opened.data.cast("B"))
        accumulate(total, opened)
        return {}

    def intake(self) -> Iterator[Row]:
        """One update, on one thread; the shipped way and the bare one in turn."""
        total = self.opening.codec.empty_sum()
        wall: dict[str, list[float]] = {"intake_1m": [], "intake_1m_bare": []}
        processor: dict[str, list[float]] = {name: [] for name in wall}
        stages = []
        for number in range(INTAKES):
            for name, take_in in zip(wall, (self.take_in, self.take_in_bare), strict=True):
                started, began = time.perf_counter(), time.thread_time()
                seconds = take_in(number % DEVICES, total)
                wall[name].append(time.perf_counter() - started)
                processor[name].append(time.thread_time() - began)
                if seconds:
                    stages.append(seconds)
        for name in wall:
            yield _row(f"{name}_ms", 1000 * median(wall[name][1:]), "ms")
            yield _row(f"{name}_processor_ms", 1000 * median(processor[name][1:]), "ms")
        over = [whole / bare for whole, bare in zip(*processor.values(), strict=True)]
        yield _row("intake_1m_over_bare", median(over[1:]), "x")
        for stage in stages[0]:
            yield _row(f"intake_{stage}_ms", 1000 * median(row[stage] for row in stages[1:]), "ms")

    def whole_round(self) -> Iterator[Row]:
        """Twenty updates on two threads, then merge, seal and publish; the shipped way and the bare one in turn."""
        found: list[dict[str, float]] = []
        with ThreadPoolExecutor(THREADS) as threads:
            for _ in range(ROUNDS):
                row, bare = self._one_round(threads), self._one_bare_round(threads)
                found.append(row | bare | {"over_bare": row["all"] / bare["bare"]})
        for stage in found[0]:
            name = "round_20x1m" if stage == "all" else f"round_20x1m_{stage}"
            middle = median(row[stage] for row in found[1:])
            yield _row(name, middle, "x") if stage == "over_bare" else _row(f"{name}_ms", 1000 * middle, "ms")

    def _one_bare_round(self, threads: ThreadPoolExecutor) -> dict[str, float]:
        """The same bytes hashed, decrypted and added, and the sum encrypted and hashed."""
        started, began = time.perf_counter(), time.process_time()
        partials = list(self._partials(self.take_in_bare, threads))
        accumulate(partials[0], *partials[1:])
        hashlib.sha256(self.cipher.encrypt(bytes(12), partials[0].data.cast("B"), None)).digest()
        return {"bare": time.perf_counter() - started, "bare_processor": time.process_time() - began}

    def _one_round(self, threads: ThreadPoolExecutor) -> dict[str, float]:
        marks, began = [time.perf_counter()], time.process_time()
        partials = list(self._partials(self.take_in, threads))
        marks.append(time.perf_counter())

        accumulate(partials[0], *partials[1:])
        decoded = AGGREGATORS[self.plan.aggregator].aggregate_sum(partials[0], self.opening.codec)
        marks.append(time.perf_counter())

        weights = next_weights(self.base, decoded.mean, OptimiserState(), self.plan.server_optimiser)[0]
        header = EnvelopeHeader(
            suite=self.plan.suite,
            message_type="model",
            direction="to-device",
            federation_id=self.plan.federation_id,
            round_id=self.opening.round_id,
            plan_digest=self.opening.plan_digest,
            base_model_digest=self.opening.base_model_digest,
            sender_key_id=self.server.verify_key.key_id,
            plaintext_bytes=self.base.nbytes,
            body_bytes=0,
            created_at=self.plan.created_at,
            message_id=bytes(16),
        )
        planned = PlannedBody(header)
        # A worker makes the stanzas while its round collects; here they count, beside the two digests.
        digest, stanzas = threads.submit(weights_digest, weights), threads.submit(self._make_stanzas, planned)
        sealed = planned.seal(weights.view(np.uint8).data)
        stanzas.result()
        marks.append(time.perf_counter())

        manifest = ModelManifest(
            model_id=str(uuid4()),
            training_id=self.plan.training_id,
            round_id=self.opening.round_id,
            number=1,
            plan_digest=self.opening.plan_digest,
            base_model_digest=self.opening.base_model_digest,
            weights_digest=digest.result(),
            header=sealed.header_bytes,
            body_digest=sealed.body_digest,
            body_bytes=len(sealed.body),
            created_at=self.plan.created_at,
        )
        for purpose in (Purpose.MODEL_MANIFEST, Purpose.ROUND_RECORD):  # a record has about the manifest's length
            sign_message(manifest.to_bytes(), purpose=purpose, key=self.server)
        marks.append(time.perf_counter())
        stages = zip(("intake", "merge", "seal", "publish"), marks[:-1], marks[1:], strict=True)
        processor = time.process_time() - began
        found = {stage: end - begin for stage, begin, end in stages}
        return {"all": marks[-1] - marks[0], "processor": processor, **found}

    def _partials(self, take_in: Callable[[int, RingVector], Any], threads: ThreadPoolExecutor) -> Iterator[RingVector]:
        waiting = iter(range(DEVICES))  # one queue, as workers have: whoever is ready takes the next

        def partial_of_one(_: int) -> RingVector:
            total = self.opening.codec.empty_sum()
            for index in waiting:
                take_in(index, total)
            return total

        return threads.map(partial_of_one, range(THREADS))

    def _make_stanzas(self, planned: PlannedBody) -> None:
        for number, (_, key) in enumerate(self.devices):
            recipient = Recipient(key=key.encapsulation_key, role="device", subject_id=f"{number:036d}", epoch=1)
            make_stanza(content_key=planned.content_key, header_bytes=planned.header_bytes, recipient=recipient)


def _row(metric: str, value: float, unit: str) -> Row:
    return {"metric": metric, "value": round(value, 4), "unit": unit}
