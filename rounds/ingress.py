"""The one entrance for submissions, whatever carried them: every transport's door ends here.

A door has authenticated the device, asked ``require_submitter`` and written the bytes beside blob storage; this
function reads what they claim to be, without believing it, makes them a blob, and records them. Bytes that are no
envelope never become a blob, so a device cannot fill the disk with them.
"""

from uuid import UUID

from devices.models import Device
from latticeward.crypto.envelope import parse_envelope
from latticeward.errors import WrongContextError
from rounds.models import Submission
from rounds.services.intake import receive_update
from rounds.storage import BlobWriter


def accept(
    *, round_id: UUID, device: Device, writer: BlobWriter, declared_digest: str, via: str, seconds: float = 0.0
) -> Submission:
    """Record an envelope that has been written whole as a submission, and promise to log it.

    Args:
        writer: holds the bytes; not finished yet.
        declared_digest: hex digest of the signed part, as the device's idempotency key says.
        via: name of the transport.
        seconds: what taking the bytes in has cost so far.

    Raises:
        MalformedMessageError: the bytes are no envelope.
        WrongContextError: they are not what the device declared.
    """
    found = parse_envelope(writer.mapped(), limit_bytes=writer.size_bytes).signed_digest.hex()
    if found != declared_digest:
        raise WrongContextError("the idempotency key is not the digest of this envelope")
    return receive_update(
        round_id=round_id,
        device=device,
        digest=declared_digest,
        blob=writer.finish(),
        size_bytes=writer.size_bytes,
        via=via,
        seconds=seconds,
    )
