"""The models on the agent's disk: fetched, opened, checked, and kept as plain arrays that anybody can evaluate.

The newest one is ``model.npz`` with the arrays ``vector`` (float32, shape (d,)), ``number``, ``model_id`` and
``training_id``; earlier versions stay under ``models/``. Arrays only: nothing here is ever unpickled.
"""

import io
from pathlib import Path
from typing import Final
from uuid import UUID
from zipfile import BadZipFile

import numpy as np

from latticeward.agent.files import write_atomically
from latticeward.crypto.envelope import EnvelopeHeader, open_body, open_stanza
from latticeward.crypto.keys import DecapsulationKey
from latticeward.errors import CustodyError, MalformedMessageError, MessageTooLargeError, WrongContextError
from latticeward.messages import ModelManifest
from latticeward.updates.tensors import FloatVector, vector_from_bytes, weights_digest

NEWEST_FILE: Final = "model.npz"
DEVICE_ROLE: Final = "device"


def open_model(
    manifest: ModelManifest,
    *,
    stanza: bytes,
    body: bytes,
    size: int,
    device_id: str,
    epoch: int,
    federation_id: str,
    decapsulation_key: DecapsulationKey,
) -> FloatVector:
    """Open a sealed model whose manifest has been verified.

    1. The header that the manifest signs is of this model, federation, plan and direction.
    2. The body has the length that was promised, and its tags hold under the content key of our stanza.
    3. The weights have the promised digest.

    The body's own digest adds nothing to 2 and 3: the content key is bound to the signed header, the weights to the
    signed manifest.

    Args:
        manifest: verified.
        stanza: of this device.
        body: as fetched.
        size: d, numbers of the model.

    Returns:
        float32, shape (d,).

    Raises:
        WrongContextError: another model than the manifest promises.
        DecryptionError, LayoutMismatchError, NonFiniteUpdateError, MalformedMessageError
    """
    # 1
    header = EnvelopeHeader.from_bytes(manifest.header)
    found = (header.message_type, header.direction, header.federation_id, header.round_id, header.plan_digest)
    if found != ("model", "to-device", federation_id, manifest.round_id, manifest.plan_digest):
        raise WrongContextError(f"model {manifest.model_id}: the sealed body's header is of something else")
    # 2
    if len(body) != manifest.body_bytes or header.plaintext_bytes != 4 * size:
        raise WrongContextError(f"model {manifest.model_id}: the body has another length than promised")
    content_key = open_stanza(
        stanza,
        header_bytes=manifest.header,
        role=DEVICE_ROLE,
        subject_id=device_id,
        epoch=epoch,
        decapsulation_key=decapsulation_key,
    )
    vector = vector_from_bytes(open_body(header_bytes=manifest.header, body=body, content_key=content_key), size=size)
    # 3
    if weights_digest(vector) != manifest.weights_digest:
        raise WrongContextError(f"model {manifest.model_id}: the weights have another digest than promised")
    return vector


def require_size(manifest: ModelManifest, *, limit_bytes: int) -> None:
    """Refuse a model that is too large for this machine before a byte of it is fetched.

    Raises:
        MessageTooLargeError
    """
    if manifest.body_bytes > limit_bytes:
        raise MessageTooLargeError(
            f"model {manifest.model_id} has {manifest.body_bytes} bytes, and this machine takes {limit_bytes}"
        )


def keep_model(home: Path, vector: FloatVector, manifest: ModelManifest, *, earlier_kept: int) -> None:
    """Write a model as the newest, and under its number; drop versions beyond ``earlier_kept``."""
    try:
        name = f"{manifest.number:06d}-{UUID(manifest.model_id)}.npz"
    except ValueError as exc:
        raise MalformedMessageError("a model's id is not a UUID") from exc
    stream = io.BytesIO()
    np.savez(
        stream,
        vector=vector,
        number=np.int64(manifest.number),
        model_id=np.str_(manifest.model_id),
        training_id=np.str_(manifest.training_id),
    )
    write_atomically(home / "models" / name, stream.getvalue())
    write_atomically(home / NEWEST_FILE, stream.getvalue())
    kept = sorted((home / "models").glob("*.npz"), key=lambda path: path.stat().st_mtime)
    for path in kept[: -(earlier_kept + 1)]:
        path.unlink()


def load_newest(home: Path) -> FloatVector:
    """The vector of ``model.npz``: float32, shape (d,).

    Raises:
        CustodyError: it is not there or damaged.
    """
    try:
        with np.load(home / NEWEST_FILE, allow_pickle=False) as arrays:
            vector: FloatVector = arrays["vector"]
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as exc:
        raise CustodyError(f"{home / NEWEST_FILE} cannot be read") from exc
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise CustodyError(f"{home / NEWEST_FILE} does not hold a float32 vector")
    return vector
