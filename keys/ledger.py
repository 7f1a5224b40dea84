"""The authority's part in the ledger: its key signs the tree heads that the sequencer makes."""

from controlplane.audit.sequencing import BATCH, sequence_entries, sign_head
from keys.models import Authority
from keys.services import signing_key
from latticeward.crypto.signing import Purpose
from latticeward.ledger.checkpoint import sign_checkpoint
from latticeward.trust import ledger_origin


def keep_ledger() -> None:
    """Number all waiting entries and sign the head, if there is an authority yet."""
    authority = Authority.objects.first()
    if authority is None:
        return
    while sequence_entries() == BATCH:
        pass
    origin = ledger_origin(str(authority.federation_id))
    sign_head(
        lambda size, root: sign_checkpoint(origin=origin, size=size, root=root, key=signing_key(Purpose.CHECKPOINT))
    )
