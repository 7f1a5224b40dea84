"""Checkpoints: what they look like, who may have signed them, and every way in which they may be bent."""

import base64

import pytest

from latticeward.crypto.composite import CompositeSigningKey
from latticeward.crypto.signing import Purpose, sign
from latticeward.errors import CheckpointError
from latticeward.ledger.checkpoint import (
    Checkpoint,
    key_hint,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)

ORIGIN = "federation.example/ledger"
KEY = CompositeSigningKey.from_seed(bytes(range(64)))
ROOT = bytes(range(32))
NOTE = sign_checkpoint(origin=ORIGIN, size=4711, root=ROOT, key=KEY)
BODY, SIGNATURES = NOTE.split("\n\n")


def refused(text: str, *, origin: str = ORIGIN) -> None:
    with pytest.raises(CheckpointError):
        verify_checkpoint(text, origin=origin, key=KEY.verify_key)


def test_it_reads_as_it_was_written() -> None:
    assert BODY.split("\n") == [ORIGIN, "4711", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
    assert SIGNATURES.startswith(f"— {ORIGIN} ")
    expected = Checkpoint(origin=ORIGIN, size=4711, root=ROOT)
    assert verify_checkpoint(NOTE, origin=ORIGIN, key=KEY.verify_key) == expected
    empty = sign_checkpoint(origin=ORIGIN, size=0, root=ROOT, key=KEY)
    assert verify_checkpoint(empty, origin=ORIGIN, key=KEY.verify_key).size == 0


def test_another_ledger_key_or_purpose_is_refused() -> None:
    refused(NOTE, origin="other.example/ledger")
    stranger = CompositeSigningKey.generate()
    with pytest.raises(CheckpointError):
        verify_checkpoint(NOTE, origin=ORIGIN, key=stranger.verify_key)
    text = f"{BODY}\n".encode()
    for purpose, key in ((Purpose.EXPORT, KEY), (Purpose.CHECKPOINT, stranger)):
        signature = key_hint(ORIGIN, KEY.verify_key) + sign(text, purpose=purpose, key=key)
        refused(f"{BODY}\n\n— {ORIGIN} {base64.b64encode(signature).decode()}\n")


def test_lines_of_witnesses_are_passed_over_and_broken_ones_of_ours_are_not() -> None:
    witness = f"— hospital.example/witness {base64.b64encode(b'hint' + b'anything').decode()}\n"
    same_name = f"— {ORIGIN} {base64.b64encode(b'hint' + b'anything').decode()}\n"
    for note in (NOTE + witness, f"{BODY}\n\n{witness}{same_name}{SIGNATURES}"):
        assert verify_checkpoint(note, origin=ORIGIN, key=KEY.verify_key).size == 4711
        assert len(parse_checkpoint(note).signatures) > 1
    refused(f"{BODY}\n\n{witness}")
    hint = key_hint(ORIGIN, KEY.verify_key)
    refused(f"{NOTE}— {ORIGIN} {base64.b64encode(hint + bytes(3373)).decode()}\n")


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        BODY,
        f"{BODY}\n\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("4711", "4712"),
        NOTE.replace("4711", "04711"),
        NOTE.replace("4711", "+4711"),
        NOTE.replace("4711", "4_711"),
        NOTE.replace("4711", "٤٧١١"),
        NOTE.replace("4711", "-1"),
        NOTE.replace("4711", str(2**63)),
        NOTE.replace("4711", "4711\nan extension"),
        NOTE.replace("Hh8=", "Hh9="),
        NOTE.replace("Hh8=", "Hh8"),
        NOTE.replace("AAEC", "AAED"),
        NOTE.replace("AAEC", ""),
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—  "),
        NOTE.replace(f"— {ORIGIN}", f"— {ORIGIN}+"),
        NOTE.replace(ORIGIN, ""),
        NOTE.replace(ORIGIN, "federation.example/other"),
        NOTE + "— witness AAAA\n",
        NOTE + "— witness AAAAAA\n",
        NOTE + 200 * "— witness AAAAAAAA\n",
        NOTE + "x" * 2**20,
        "\ud800" + NOTE,
    ],
    ids=lambda note: str(len(note)),
)
def test_anything_else_is_refused(note: str) -> None:
    assert note != NOTE
    refused(note)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x07"])
def test_names_that_would_not_read_back_are_not_signed(origin: str) -> None:
    with pytest.raises(CheckpointError):
        sign_checkpoint(origin=origin, size=1, root=ROOT, key=KEY)


def test_sizes_and_roots_out_of_range_are_not_signed() -> None:
    for size, root in ((-1, ROOT), (2**63, ROOT), (1, ROOT[1:])):
        with pytest.raises(CheckpointError):
            sign_checkpoint(origin=ORIGIN, size=size, root=root, key=KEY)
