"""The authority's part in the ledger: its key signs the tree heads that the sequencer makes."""

from controlplane.audit.sequencing import BATCH, sequence_entries, sign_head
from keys.models import Authority
from keys.services import signing_key
from latticeward.crypto.signing import Purpose
from latticeward.ledger.checkpoint import Checkpoint as TreeHead
from latticeward.ledger.checkpoint import sign_checkpoint


def keep_ledger() -> None:
    """Number all waiting entries and sign the head, if there is an authority yet."""
    authority = Authority.objects.first()
    if authority is None:
        return
    while sequence_entries() == BATCH:
        pass
    sign_head(ledger_origin(authority), _sign)


def _sign(head: TreeHead) -> str:
    return sign_checkpoint(head, key=signing_key(Purpose.CHECKPOINT))


def ledger_origin(authority: Authority) -> str:
    """The name of this federation's ledger, as it stands in every checkpoint."""
    return f"latticeward/{authority.federation_id}"
