"""The server's side of opening updates: which round's key, which device's key, which stored bytes.

What is believed and why stands in ``latticeward/opening.py``. Used when an update is taken in, when it is taken out
again, and when an auditor recomputes a round.
"""

from django.utils import timezone

from devices.selectors import registered_signing_key, superseded_signing_key
from keys import vault
from keys.usage import count_use
from latticeward.crypto.keys import CompositeVerifyKey, DecapsulationKey
from latticeward.crypto.suites import get_suite
from latticeward.errors import KeyUsageError
from latticeward.opening import OpenedContribution, RoundOpening
from rounds.models import Round, Submission
from rounds.storage import read_blob


def opening_of(current: Round) -> RoundOpening:
    """The opening of a round, with its own decapsulation key; for intake and aggregation workers.

    Raises:
        KeyUsageError: the key was destroyed after the recomputation window.
    """
    if current.wrapped_decapsulation_seed is None:
        raise KeyUsageError(f"the key of round {current.id} was destroyed")
    seed = vault.unwrap(
        bytes(current.wrapped_decapsulation_seed), purpose="round-decapsulation", row_id=str(current.id)
    )
    return RoundOpening(
        round_id=str(current.id),
        plan=current.training.round_plan,
        plan_digest=bytes(current.training.plan_digest),
        base_model_digest=bytes(current.base_model_digest),
        decapsulation_key=DecapsulationKey.from_seed(seed, get_suite(current.training.suite).kem),
    )


def open_submission(submission: Submission, opening: RoundOpening, present: CompositeVerifyKey) -> OpenedContribution:
    """Verify, open and validate an envelope that has just come.

    Args:
        present: what verifies messages that the submission's device signs now (``devices.selectors``). An envelope that
            was signed before the device renewed its keys verifies under the key of that time, if its round is that old.

    Raises:
        ProtocolError, VerificationError, DecryptionError, ContributionError
        KeyUsageError: signed by a key that is superseded, in a round that was opened afterwards.
        NotFoundError: its bytes are gone.
    """

    used: list[bytes] = []

    def verify_key(key_id: bytes) -> CompositeVerifyKey:
        used.append(key_id)
        if key_id == present.key_id:
            return present
        participant = submission.participant
        opened_at = participant.round.opened_at
        return superseded_signing_key(participant.device, key_id, round_opened_at=opened_at, now=timezone.now())

    opened = opening.open(read_blob(submission.blob), verify_key)
    count_use(used[-1].hex())
    return opened


def reopen_submission(submission: Submission, opening: RoundOpening) -> OpenedContribution:
    """The same for a submission that was accepted earlier, whatever has become of its device's keys since.

    Taking a contribution out again, and recomputing a round, must read what was counted; they never count anything.
    """
    device = submission.participant.device
    return opening.open(read_blob(submission.blob), lambda key_id: registered_signing_key(device, key_id))
