"""Signed tree heads of the ledger, as C2SP tlog-checkpoint writes them::

    federation.example/ledger
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — federation.example/ledger <base64 of key hint (4 bytes) ‖ signature>

The text up to and including the newline after the root is what is signed, with the composite checkpoint key. The note
format knows no composite signatures, so the line is of its type 0xff with a name of our own; programs that do not know
it pass over it, as the note format asks. Lines of other signers (witnesses) may follow and are passed over here.
Extension lines are refused: they would be signed and audited by nobody. What a tree is lives in ``merkle.py``.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.signing import Purpose, sign, verify
from latticeward.errors import CheckpointError, InvalidSignatureError
from latticeward.ledger.merkle import HASH_BYTES

# A composite line has about 4.6 KB, so a hundred witnesses fit.
LIMIT_BYTES: Final = 1_048_576
MAX_SIGNATURES: Final = 128
MAX_SIZE: Final = 2**63 - 1
_HINT_BYTES: Final = 4
_SIGNATURE_TYPE: Final = b"\xfflatticeward/checkpoint/v1/"
_DASH: Final = "\N{EM DASH}"
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head that was signed by the key it was checked with.

    Attributes:
        origin: the ledger's name.
        size: leaves of the tree.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: who, which of their keys (4 bytes, no proof of anything), and the signature."""

    name: str
    hint: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedCheckpoint:
    """A checkpoint that was read and not yet believed; ``signed_text`` is what its signatures cover."""

    origin: str
    size: int
    root: bytes
    signed_text: bytes
    signatures: tuple[NoteSignature, ...]


def sign_checkpoint(*, origin: str, size: int, root: bytes, key: CompositeSigningKey) -> str:
    """A checkpoint with one signature line. That the tree extends the one signed before is for the caller to know.

    Args:
        origin: the ledger's name: not empty, no spaces, plus signs or control characters.
        size: leaves of the tree, 0 to 2^63 - 1.
        root: 32 bytes.
        key: the checkpoint key.

    Raises:
        CheckpointError: one of them is not so.
    """
    _require_name(origin)
    if not 0 <= size <= MAX_SIZE or len(root) != HASH_BYTES:
        raise CheckpointError("a checkpoint's size or root is out of range")
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    signature = sign(text.encode(), purpose=Purpose.CHECKPOINT, key=key)
    line = base64.b64encode(key_hint(origin, key.verify_key) + signature).decode()
    return f"{text}\n{_DASH} {origin} {line}\n"


def parse_checkpoint(text: str) -> UnverifiedCheckpoint:
    """Read a checkpoint; nothing in it may be believed yet.

    Raises:
        CheckpointError: it is not one, or too long.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError("a checkpoint is not Unicode text") from error
    if len(raw) > LIMIT_BYTES:
        raise CheckpointError("a checkpoint is too long")
    body, separator, rest = text.partition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) != 3 or not rest.endswith("\n"):
        raise CheckpointError("a checkpoint has three lines, an empty one and signature lines")
    origin, size, root = lines
    _require_name(origin)
    if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
        raise CheckpointError("a checkpoint's size is not a plain number")
    decoded = _from_base64(root)
    if len(decoded) != HASH_BYTES:
        raise CheckpointError("a checkpoint's root has not 32 bytes")
    signature_lines = rest[:-1].split("\n")
    if len(signature_lines) > MAX_SIGNATURES:
        raise CheckpointError("a checkpoint has too many signatures")
    return UnverifiedCheckpoint(
        origin=origin,
        size=int(size),
        root=decoded,
        signed_text=f"{body}\n".encode(),
        signatures=tuple(map(_parse_signature, signature_lines)),
    )


def verify_checkpoint(text: str, *, origin: str, key: CompositeVerifyKey) -> Checkpoint:
    """Check that a checkpoint is of this ledger and signed by its key.

    1. It reads as a checkpoint. 2. It is of the ledger that was asked for. 3. At least one line is by this key.
    4. Every line by this key holds.

    Args:
        text: the signed note.
        origin: the ledger's name.
        key: of the ledger's checkpoints, from the trust statement.

    Raises:
        CheckpointError: one of them is not so.
    """
    # 1.
    checkpoint = parse_checkpoint(text)
    # 2.
    if checkpoint.origin != origin:
        raise CheckpointError(f"the checkpoint is of {checkpoint.origin}, not of {origin}")
    # 3.
    hint = key_hint(origin, key)
    ours = [line for line in checkpoint.signatures if (line.name, line.hint) == (origin, hint)]
    if not ours:
        raise CheckpointError("the checkpoint carries no signature by the ledger's key")
    # 4. A broken line beside a good one is not passed over: nobody honest makes such a note.
    for line in ours:
        try:
            verify(line.signature, checkpoint.signed_text, purpose=Purpose.CHECKPOINT, key=key)
        except InvalidSignatureError as error:
            raise CheckpointError(f"the signature of the checkpoint of size {checkpoint.size} does not hold") from error
    return Checkpoint(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root)


def key_hint(name: str, key: CompositeVerifyKey) -> bytes:
    """The four bytes that tell a note's readers which key of ``name`` to try: part of a hash, not an identity."""
    kind = _SIGNATURE_TYPE + key.algorithm.encode() + b"\x00"
    return hashlib.sha256(name.encode() + b"\n" + kind + key.raw).digest()[:_HINT_BYTES]


def _parse_signature(line: str) -> NoteSignature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH:
        raise CheckpointError("a signature line is not a dash, a name and a signature")
    _require_name(parts[1])
    decoded = _from_base64(parts[2])
    if len(decoded) <= _HINT_BYTES:
        raise CheckpointError("a signature line holds no signature")
    return NoteSignature(name=parts[1], hint=decoded[:_HINT_BYTES], signature=decoded[_HINT_BYTES:])


def _require_name(name: str) -> None:
    if not name or "+" in name or not name.isprintable() or any(character.isspace() for character in name):
        raise CheckpointError("a ledger's or signer's name is empty or holds a space, a plus or a control character")


def _from_base64(text: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointError("a checkpoint holds broken base64") from error
    # Python lets unused bits through; one checkpoint must not have several spellings.
    if base64.b64encode(decoded).decode() != text:
        raise CheckpointError("a checkpoint holds base64 that is not the shortest")
    return decoded
