"""``python -m latticeward.verify_record FILE --anchor FINGERPRINT``: check a round record without any server.

Exit codes: 0 the record holds, 1 it does not (the reason is on standard error), 2 wrong use.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latticeward.errors import LatticewardError
from latticeward.record_file import verify_record_file
from latticeward.record_words import say_record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        proven = verify_record_file(options.file.read_bytes(), anchor_fingerprint=options.anchor)
    except LatticewardError as error:
        print(f"REFUSED: {error} ({error.code})", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"REFUSED: {error}", file=sys.stderr)
        return 1
    record = proven.record
    received = f"{proven.received_at:%Y-%m-%d %H:%M:%S} UTC"
    print(
        f"OK: round {record.number} ({record.round_id}), {record.accepted} updates counted, "
        f"entry {proven.index} of {proven.ledger_size} in the ledger, received {received}"
    )
    if options.text:
        print(f"\n{say_record(record, proven.plan).as_text()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m latticeward.verify_record", description="Check a round record without any server."
    )
    parser.add_argument("file", type=Path, help="as downloaded from the round's page")
    parser.add_argument(
        "--anchor", type=_fingerprint, required=True, help="the trust anchor's fingerprint, 64 hexadecimal digits"
    )
    parser.add_argument("--text", action="store_true", help="say the record in words, too")
    return parser


def _fingerprint(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != 32:
        raise ValueError
    return raw


if __name__ == "__main__":
    sys.exit(main())
