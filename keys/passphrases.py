"""The passphrase of a ceremony: from a file, or typed; never from an argument, which others on the machine can see."""

import getpass
import os
from pathlib import Path

from latticeward.errors import CustodyError


def ask(*, twice: bool = False) -> str:
    """The passphrase from the file that ``LATTICEWARD_PASSPHRASE_FILE`` names, or typed.

    Args:
        twice: for a new file, because a slip of the finger would lock it for good.

    Raises:
        CustodyError: the file cannot be read, or the two typed ones differ.
    """
    path = os.environ.get("LATTICEWARD_PASSPHRASE_FILE")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise CustodyError(f"the passphrase file {path} cannot be read: {error}") from error
    typed = getpass.getpass("Passphrase: ")
    if twice and getpass.getpass("Again: ") != typed:
        raise CustodyError("The two passphrases differ; nothing was written.")
    return typed
