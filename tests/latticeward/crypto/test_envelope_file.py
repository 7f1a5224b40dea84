import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latticeward.crypto.body import CHUNK_BYTES
from latticeward.crypto.envelope import parse_envelope
from latticeward.crypto.envelope_file import (
    PIECE_BYTES,
    VerifiedEnvelopeFile,
    open_file,
    seal_file,
    verify_file,
)
from latticeward.crypto.signing import Purpose
from latticeward.errors import (
    DecryptionError,
    InvalidSignatureError,
    LatticewardError,
    MalformedMessageError,
    MessageTooLargeError,
)
from tests.latticeward.crypto.samples import ROUND, Sample, flipped

SERVICE = ["hybrid", "high", "constrained"]


def seal_to(path: Path, sample: Sample) -> bytes:
    source = path.with_suffix(".plain")
    source.write_bytes(sample.plaintext)
    return seal_file(
        source,
        path,
        header=sample.header,
        recipients=[sample.recipient],
        signing_key=sample.signer,
        purpose=Purpose.UPDATE,
    )


def verify_at(path: Path, sample: Sample, limit_bytes: int = 1 << 30) -> VerifiedEnvelopeFile:
    return verify_file(path, purpose=Purpose.UPDATE, verify_key=sample.signer.verify_key, limit_bytes=limit_bytes)


def open_to(target: Path, verified: VerifiedEnvelopeFile, sample: Sample, **who: Any) -> None:
    caller = {
        "role": "round",
        "subject_id": ROUND,
        "epoch": 1,
        "decapsulation_key": sample.recipient_key,
        **who,
    }
    open_file(verified, target, **caller)


@pytest.mark.parametrize("suite", SERVICE)
@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 77])
def test_files_and_memory_speak_one_format(suite: str, size: int, tmp_path: Path) -> None:
    sample = Sample(suite=suite, plaintext=os.urandom(size))
    sealed, opened, by_memory = tmp_path / "sealed", tmp_path / "opened", tmp_path / "by-memory"
    digest = seal_to(sealed, sample)
    raw = sealed.read_bytes()
    assert parse_envelope(raw, limit_bytes=len(raw)).signed_digest == digest
    assert sample.open(raw).plaintext == sample.plaintext

    by_memory.write_bytes(sample.seal())
    for path in (sealed, by_memory):
        open_to(opened, verify_at(path, sample), sample)
        assert opened.read_bytes() == sample.plaintext
        assert opened.stat().st_mode & 0o777 == 0o600
    assert verify_at(sealed, sample).signed_digest == digest


@pytest.mark.parametrize("suite", SERVICE)
def test_a_changed_or_cut_file_is_refused_when_verifying(suite: str, tmp_path: Path) -> None:
    sample = Sample(suite=suite, plaintext=bytes(3 * CHUNK_BYTES))
    path = tmp_path / "sealed"
    seal_to(path, sample)
    raw = path.read_bytes()
    changed = [flipped(raw, place) for place in range(0, len(raw), 2011)]
    changed += [raw[:end] for end in range(0, len(raw), 4999)] + [raw + b"\0", b""]
    for bad in changed:
        path.write_bytes(bad)
        try:
            verified = verify_at(path, sample)
        except LatticewardError:
            continue
        # A changed stanza is outside the signature and shows when it is opened.
        with pytest.raises(DecryptionError):
            open_to(tmp_path / "opened", verified, sample)
    assert not (tmp_path / "opened").exists()


def test_a_file_swapped_after_verifying_leaves_nothing_behind(tmp_path: Path) -> None:
    sample = Sample(plaintext=os.urandom(3 * PIECE_BYTES))
    path, target = tmp_path / "sealed", tmp_path / "opened"
    seal_to(path, sample)
    verified = verify_at(path, sample)
    raw = path.read_bytes()
    last_chunk = verified.body_start + verified.header.body_bytes - 5
    for bad in (flipped(raw, last_chunk), raw[:last_chunk], flipped(raw, verified.body_start), b""):
        path.write_bytes(bad)
        with pytest.raises(DecryptionError):
            open_to(target, verified, sample)
        assert sorted(item.name for item in tmp_path.iterdir()) == ["sealed", "sealed.plain"]


def test_another_body_under_the_same_key_is_not_the_one_that_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A recipient knows the content key and can seal another body with it; the cipher alone would not see the swap.
    monkeypatch.setattr("latticeward.crypto.envelope_file.new_key", lambda: bytes(32))
    sample, other = Sample(plaintext=b"a" * 500), Sample(plaintext=b"b" * 500)
    for name, content in (("sealed", sample), ("other", other)):
        seal_to(tmp_path / name, content)
    verified = verify_at(tmp_path / "sealed", sample)
    (tmp_path / "sealed").write_bytes((tmp_path / "other").read_bytes())
    with pytest.raises(DecryptionError):
        open_to(tmp_path / "opened", verified, sample)
    assert not (tmp_path / "opened").exists()


def test_an_older_target_survives_a_failure(tmp_path: Path) -> None:
    sample = Sample(plaintext=bytes(100))
    path, target = tmp_path / "sealed", tmp_path / "opened"
    seal_to(path, sample)
    target.write_bytes(b"before")
    with pytest.raises(DecryptionError):
        open_to(target, verify_at(path, sample), sample, epoch=2)
    assert target.read_bytes() == b"before"


def test_plaintext_is_not_visible_before_the_last_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(plaintext=bytes(2 * PIECE_BYTES))
    path, target = tmp_path / "sealed", tmp_path / "opened"
    seal_to(path, sample)
    verified = verify_at(path, sample)
    original = os.replace
    seen: list[bool] = []

    def replaced(source: str, final: Path) -> None:
        seen.append(target.exists())
        original(source, final)

    monkeypatch.setattr(os, "replace", replaced)
    open_to(target, verified, sample)
    assert seen == [False]


def test_limits_and_lengths_are_checked_first(tmp_path: Path) -> None:
    sample = Sample(plaintext=bytes(1000))
    path = tmp_path / "sealed"
    seal_to(path, sample)
    with pytest.raises(MessageTooLargeError):
        verify_at(path, sample, limit_bytes=path.stat().st_size - 1)
    wrong = replace(sample, changes={"plaintext_bytes": 999})
    with pytest.raises(MalformedMessageError):
        seal_to(tmp_path / "other", wrong)
    assert not (tmp_path / "other").exists()


def test_another_purpose_is_refused_and_only_a_verified_file_is_opened(tmp_path: Path) -> None:
    sample = Sample()
    path = tmp_path / "sealed"
    seal_to(path, sample)
    with pytest.raises(InvalidSignatureError):
        verify_file(path, purpose=Purpose.EXPORT, verify_key=sample.signer.verify_key, limit_bytes=1 << 20)
    with pytest.raises(TypeError):
        open_to(tmp_path / "opened", path, sample)  # type: ignore[arg-type]


_FLAT = """
import sys
from pathlib import Path
from tests.latticeward.crypto.samples import Sample
from latticeward.crypto.signing import Purpose
from latticeward.crypto.envelope_file import open_file, seal_file, verify_file
from dataclasses import replace
def status(name):
    # Not getrusage: its high-water mark survives exec and may be the parent's.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

folder, size = Path(sys.argv[1]), int(sys.argv[2])
with open(folder / "plain", "wb") as file:
    file.truncate(size)
sample = Sample(changes={"plaintext_bytes": size})
signer, recipient = sample.signer, sample.recipient_key
before = status("VmRSS")
seal_file(folder / "plain", folder / "sealed", header=sample.header, recipients=[sample.recipient],
          signing_key=signer, purpose=Purpose.UPDATE)
verified = verify_file(folder / "sealed", purpose=Purpose.UPDATE, verify_key=signer.verify_key, limit_bytes=1 << 40)
open_file(verified, folder / "opened", role="round", subject_id=sample.round_id, epoch=1, decapsulation_key=recipient)
print((status("VmHWM") - before) // 1024)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FLAT, str(tmp_path), str(96 << 20)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 32
