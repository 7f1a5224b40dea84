"""The one entrance for submissions, whatever carried them: every transport's door ends here.

A door has authenticated the device, asked ``require_submitter`` and put the bytes into blob storage; this function
reads what they claim to be, without believing it, and records them.
"""

from uuid import UUID

from devices.models import Device
from latticeward.crypto.envelope import parse_envelope
from latticeward.errors import WrongContextError
from rounds.models import Submission
from rounds.services.intake import receive_update
from rounds.storage import read_blob


def accept(
    *, round_id: UUID, device: Device, blob: str, size_bytes: int, declared_digest: str, via: str, seconds: float = 0.0
) -> Submission:
    """Record a stored envelope as a submission and promise to log it.

    Args:
        blob: name of the stored envelope.
        declared_digest: hex digest of the signed part, as the device's idempotency key says.
        via: name of the transport.
        seconds: what taking the bytes in has cost so far.

    Raises:
        MalformedMessageError: the bytes are no envelope.
        WrongContextError: they are not what the device declared.
    """
    parsed = parse_envelope(read_blob(blob), limit_bytes=size_bytes)
    if parsed.signed_digest.hex() != declared_digest:
        raise WrongContextError("the idempotency key is not the digest of this envelope")
    return receive_update(
        round_id=round_id,
        device=device,
        digest=declared_digest,
        blob=blob,
        size_bytes=size_bytes,
        via=via,
        seconds=seconds,
    )
