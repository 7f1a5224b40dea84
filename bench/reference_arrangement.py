"""What a plain arrangement of the same job costs: one after the other, Ascon in Python, a loop over tensors.

Three updates are decapsulated, verified over their whole body, decrypted, loaded and averaged key by key; then the
model is encrypted, signed and encapsulated anew for each of the three. Keys and signatures are native; Ascon is the
plain Python form of this repository, which is some 2.5 times as fast as the PyPI package. Its time grows with the
length and with nothing else, so it is measured on a part and scaled; everything else is measured whole.
"""

import importlib
import importlib.util
import io
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Final

import numpy as np

from latticeward.crypto.ascon_reference import ReferenceCore
from latticeward.crypto.hpke import hpke_open, hpke_seal
from latticeward.crypto.keys import AuthenticationSigningKey, DecapsulationKey

DEVICES: Final = 3
REPEATS: Final = 5
PART_BYTES: Final = 32 * 1024
TENSORS: Final = 10


def reference_seconds(parameters: int) -> float:
    """Seconds from three received updates of so many float32 numbers to the model encrypted for three devices."""
    body = os.urandom(4 * parameters)
    signer, receiver = AuthenticationSigningKey.generate(), DecapsulationKey.generate()
    signature, stanza = signer.sign(body), hpke_seal(bytes(32), key=receiver.encapsulation_key, info=b"")
    saved = io.BytesIO()
    np.savez(saved, *_tensors(parameters))
    core, part = ReferenceCore(), body[:PART_BYTES]
    sealed = core.seal(key=bytes(16), nonce=bytes(16), associated_data=b"", plaintext=part)
    steps: list[tuple[float, Callable[[], object]]] = [
        (1, lambda: hpke_open(stanza, key=receiver, info=b"")),
        (1, lambda: signer.verify_key.verify(signature, body)),
        (
            len(body) / PART_BYTES,
            lambda: core.open(key=bytes(16), nonce=bytes(16), associated_data=b"", sealed=sealed),
        ),
        (1, lambda: dict(np.load(io.BytesIO(saved.getvalue())))),
        (1, lambda: hpke_seal(bytes(32), key=receiver.encapsulation_key, info=b"")),
        (
            len(body) / PART_BYTES,
            lambda: core.seal(key=bytes(16), nonce=bytes(16), associated_data=b"", plaintext=part),
        ),
        (1, lambda: signer.sign(body)),
    ]
    return DEVICES * sum(times * _seconds(step) for times, step in steps) + _seconds(_averaging(parameters))


def averages_with_torch() -> bool:
    """Whether the loop over tensors is PyTorch's; NumPy's otherwise, which is as quick here."""
    return importlib.util.find_spec("torch") is not None


def _averaging(parameters: int) -> Callable[[], object]:
    updates = [_tensors(parameters) for _ in range(DEVICES)]
    if not averages_with_torch():
        return lambda: [sum(tensors) / DEVICES for tensors in zip(*updates, strict=True)]
    torch = importlib.import_module("torch")
    tensors_of = [[torch.from_numpy(tensor) for tensor in update] for update in updates]
    return lambda: [torch.stack(tensors).mean(0) for tensors in zip(*tensors_of, strict=True)]


def _tensors(parameters: int) -> list[np.ndarray]:
    return np.array_split(np.random.default_rng(1).standard_normal(parameters, dtype=np.float32), TENSORS)


def _seconds(step: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return median(seconds)
