"""The body of the ``constrained`` suite: layout, lengths, tampering, and the piecewise form."""

import hashlib
import hmac
import random

import pytest

from latticeward.crypto import ascon_chunks, ascon_stream
from latticeward.crypto.ascon import Form, available_forms, get_core
from latticeward.crypto.ascon_core import CHUNK_BYTES, SEALED_CHUNK_BYTES, Core
from latticeward.crypto.ascon_stream import StreamOpener, StreamSealer, body_length, open_stream, seal_stream
from latticeward.errors import DecryptionError, KeyUsageError, MessageTooLargeError

KEY, HEADER = bytes(range(32)), b"header"
LENGTHS = [0, 1, 15, 16, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 20 * CHUNK_BYTES + 777]


@pytest.fixture(params=[form for form in available_forms() if form is not Form.REFERENCE])
def core(request: pytest.FixtureRequest) -> Core:
    return get_core(request.param)


def opened(body: bytes, plaintext_bytes: int, *, key: bytes = KEY, header: bytes = HEADER) -> bytes:
    return open_stream(body, key=key, header=header, plaintext_bytes=plaintext_bytes)


def in_pieces(body: bytes, plaintext_bytes: int, rng: random.Random) -> bytes:
    opener = StreamOpener(key=KEY, header=HEADER, plaintext_bytes=plaintext_bytes)
    return b"".join(opener.update(piece) for piece in cut(body, rng)) + opener.finalize()


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    pieces = []
    at = 0
    while at < len(data):
        size = rng.choice([1, 40, 1000, CHUNK_BYTES, SEALED_CHUNK_BYTES, 100_000])
        pieces.append(data[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("length", LENGTHS)
def test_round_trip(core: Core, length: int) -> None:
    plaintext = random.Random(length).randbytes(length)
    body = seal_stream(plaintext, key=KEY, header=HEADER, core=core)
    assert len(body) == body_length(length) == 56 + length + 16 * (length // CHUNK_BYTES + 1)
    result = open_stream(body, key=KEY, header=HEADER, plaintext_bytes=length, core=core)
    assert isinstance(result, bytes) and result == plaintext


def test_the_body_is_what_the_text_says() -> None:
    plaintext = random.Random(1).randbytes(CHUNK_BYTES + 5)
    body = seal_stream(plaintext, key=KEY, header=HEADER)
    salt, commitment = body[:24], body[24:56]
    info = b"latticeward/stream/v1+ascon-aead128\x00" + salt + hashlib.sha512(HEADER).digest()
    derived = hmac.new(KEY, info + b"\x01", hashlib.sha512).digest()
    assert commitment == derived[32:]
    reference = get_core(Form.REFERENCE)
    first = int.from_bytes(derived[16:32], "big")
    last = first ^ (1 << 120 | 1)
    chunks = [(first, plaintext[:CHUNK_BYTES]), (last, plaintext[CHUNK_BYTES:])]
    assert body[56:] == b"".join(
        reference.seal(key=derived[:16], nonce=nonce.to_bytes(16, "big"), associated_data=b"", plaintext=chunk)
        for nonce, chunk in chunks
    )


def test_every_write_has_its_own_salt() -> None:
    assert len({seal_stream(b"", key=KEY, header=HEADER)[:24] for _ in range(20)}) == 20


@pytest.mark.parametrize("length", [0, 20, CHUNK_BYTES, 18 * CHUNK_BYTES + 3])
def test_altered_bits_are_refused(core: Core, length: int) -> None:
    rng = random.Random(length)
    body = bytearray(seal_stream(bytes(length), key=KEY, header=HEADER, core=core))
    for at in (0, 23, 24, 55, 56, len(body) - 1, *(rng.randrange(len(body)) for _ in range(4))):
        body[at] ^= 1 << rng.randrange(8)
        with pytest.raises(DecryptionError):
            open_stream(bytes(body), key=KEY, header=HEADER, plaintext_bytes=length, core=core)
        body = bytearray(seal_stream(bytes(length), key=KEY, header=HEADER, core=core))


def test_other_key_header_or_length_is_refused() -> None:
    body = seal_stream(b"plaintext", key=KEY, header=HEADER)
    with pytest.raises(DecryptionError):
        opened(body, 9, key=KEY[::-1])
    with pytest.raises(DecryptionError):
        opened(body, 9, header=b"Header")
    for length in (-1, 0, 8, 10):
        with pytest.raises(DecryptionError):
            opened(body, length)
    for call in (lambda: seal_stream(b"", key=KEY[1:], header=HEADER), lambda: opened(body, 9, key=KEY + b"\0")):
        with pytest.raises(KeyUsageError):
            call()


def test_cut_extended_and_reordered_bodies_are_refused() -> None:
    length = 3 * CHUNK_BYTES + 100
    plaintext = random.Random(3).randbytes(length)
    body = seal_stream(plaintext, key=KEY, header=HEADER)
    prefix, rest = body[:56], body[56:]
    chunks = [rest[i * SEALED_CHUNK_BYTES : (i + 1) * SEALED_CHUNK_BYTES] for i in range(4)]
    swapped = prefix + chunks[1] + chunks[0] + chunks[2] + chunks[3]
    repeated = prefix + chunks[0] + chunks[0] + chunks[2] + chunks[3]
    with pytest.raises(DecryptionError):
        opened(swapped, length)
    with pytest.raises(DecryptionError):
        opened(repeated, length)
    # Cut at a chunk's end, with a length declared to fit: the last chunk left does not say that it is the last.
    shorter = 2 * CHUNK_BYTES
    with pytest.raises(DecryptionError):
        opened(prefix + chunks[0] + chunks[1] + chunks[2][-16:], shorter)
    with pytest.raises(DecryptionError):
        opened(prefix + chunks[0] + chunks[1], shorter)
    for damaged in (body[:-1], body + b"\0", body[:56], b"", prefix + b"".join(chunks[:3])):
        with pytest.raises(DecryptionError):
            opened(damaged, length)
        with pytest.raises(DecryptionError):
            in_pieces(damaged, length, random.Random(4))
    for damaged in (swapped, repeated):
        with pytest.raises(DecryptionError):
            in_pieces(damaged, length, random.Random(5))


def test_the_last_chunk_cannot_pass_for_another_one() -> None:
    body = seal_stream(b"", key=KEY, header=HEADER)
    moved = body[:56] + body[56:] + body[56:]
    with pytest.raises(DecryptionError):
        opened(moved, 16)


@pytest.mark.parametrize("length", LENGTHS)
def test_pieces_give_the_same_as_the_whole(length: int) -> None:
    rng = random.Random(length)
    plaintext = rng.randbytes(length)
    sealer = StreamSealer(key=KEY, header=HEADER)
    body = b"".join(sealer.update(piece) for piece in cut(plaintext, rng)) + sealer.finalize()
    assert opened(body, length) == plaintext
    assert in_pieces(seal_stream(plaintext, key=KEY, header=HEADER), length, rng) == plaintext


def test_full_chunks_leave_at_once_and_pieces_stay_small() -> None:
    sealer = StreamSealer(key=KEY, header=HEADER)
    assert len(sealer.update(bytes(3 * CHUNK_BYTES + 5))) == 56 + 3 * SEALED_CHUNK_BYTES
    assert sealer.update(b"") == b""
    assert len(sealer.finalize()) == 5 + 16


def test_an_opener_gives_nothing_after_a_failure() -> None:
    body = bytearray(seal_stream(bytes(3 * CHUNK_BYTES), key=KEY, header=HEADER))
    body[56] ^= 1
    opener = StreamOpener(key=KEY, header=HEADER, plaintext_bytes=3 * CHUNK_BYTES)
    with pytest.raises(DecryptionError):
        opener.update(bytes(body[: 56 + SEALED_CHUNK_BYTES]))
    with pytest.raises(KeyUsageError):
        opener.update(bytes(body[56 + SEALED_CHUNK_BYTES :]))
    with pytest.raises(KeyUsageError):
        opener.finalize()


def test_stream_objects_serve_once() -> None:
    sealer = StreamSealer(key=KEY, header=HEADER)
    body = sealer.finalize()
    with pytest.raises(KeyUsageError):
        sealer.update(b"more")
    with pytest.raises(KeyUsageError):
        sealer.finalize()
    opener = StreamOpener(key=KEY, header=HEADER, plaintext_bytes=0)
    assert opener.update(body) + opener.finalize() == b""
    with pytest.raises(KeyUsageError):
        opener.finalize()
    with pytest.raises(KeyUsageError):
        StreamSealer(key=b"short", header=HEADER)
    with pytest.raises(KeyUsageError):
        StreamOpener(key=b"short", header=HEADER, plaintext_bytes=0)


def test_the_counter_of_chunks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascon_chunks, "MAX_CHUNKS", 2)
    assert ascon_stream.seal_stream(bytes(CHUNK_BYTES), key=KEY, header=HEADER)
    with pytest.raises(MessageTooLargeError):
        seal_stream(bytes(2 * CHUNK_BYTES), key=KEY, header=HEADER)
    sealer = StreamSealer(key=KEY, header=HEADER)
    with pytest.raises(MessageTooLargeError):
        sealer.update(bytes(3 * CHUNK_BYTES))
