"""The file that proves a published round to somebody who has no server: its record, plan, trust and ledger proof."""

import base64
from uuid import UUID

from controlplane.audit.models import AuditEntry
from controlplane.audit.selectors import inclusion_proof_of
from keys.selectors import trust_document
from latticeward.errors import NotFoundError, StateError
from latticeward.record_file import RecordFile
from rounds.models import Round


def record_file(round_id: UUID) -> bytes:
    """The record file of a published round (``latticeward/record_file.py``).

    Raises:
        NotFoundError: there is no such published round.
        StateError: its ledger entry has no number yet, or no head was signed over it; seconds later it has.
    """
    row = Round.objects.select_related("training").only("signed_record", "training__signed_plan").filter(pk=round_id)
    current = row.first()
    if current is None or current.signed_record is None or current.training.signed_plan is None:
        raise NotFoundError(f"no published round {round_id}")
    entry = AuditEntry.objects.filter(event="round.published", subject_id=str(round_id)).values_list("id", flat=True)
    proof = inclusion_proof_of(entry[0]) if entry else None
    if proof is None:
        raise StateError(f"the ledger has not numbered the publication of round {round_id} yet")
    text = proof["entry"]
    return RecordFile(
        record=bytes(current.signed_record),
        plan=bytes(current.training.signed_plan),
        trust=trust_document(),
        entry=base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)),
        index=proof["index"],
        checkpoint=proof["checkpoint"],
        path=tuple(bytes.fromhex(item) for item in proof["proof"]),
    ).to_bytes()
