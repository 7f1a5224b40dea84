"""Every way in which the product refuses, as one tree of named errors.

A class carries a stable ``code`` (it goes on the wire, into audit details and into recorded outcomes) and
``retryable`` (whether the same request may succeed later without a change). The HTTP status and the public
sentence live in ``controlplane/errors.py``: this file knows no transport. The text given to a constructor is the
private message; it names ids, never payloads, keys or patient data.
"""

from typing import ClassVar


class LatticewardError(Exception):
    """Root of all domain errors; catch it only at a door, in the task wrapper or in the agent's loop."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


# --- the bytes are not what the protocol says ------------------------------------------------------------------


class ProtocolError(LatticewardError):
    code = "protocol_error"


class MalformedMessageError(ProtocolError):
    code = "malformed_message"


class UnsupportedVersionError(ProtocolError):
    code = "unsupported_version"


class UnsupportedSuiteError(ProtocolError):
    """The suite is unknown, retired, forbidden, below the floor, or its provider is not installed."""

    code = "unsupported_suite"


class MessageTooLargeError(ProtocolError):
    code = "message_too_large"


# --- well formed, and not to be believed -------------------------------------------------------------------------


class VerificationError(LatticewardError):
    code = "verification_failed"


class InvalidSignatureError(VerificationError):
    code = "invalid_signature"


class UntrustedIssuerError(VerificationError):
    code = "untrusted_issuer"


class CertificateNotValidError(VerificationError):
    code = "certificate_not_valid"


class CertificateRevokedError(VerificationError):
    code = "certificate_revoked"


class WrongContextError(VerificationError):
    """A good signature or envelope, made for another round, device, plan or purpose."""

    code = "wrong_context"


class PlanChangedError(WrongContextError):
    """The stored plan of a training is not the one whose digest was signed and sent to the hospitals."""

    code = "plan_changed"


class ReplayError(VerificationError):
    code = "replayed"


class ClockSkewError(VerificationError):
    """The signer's clock is too far from ours; the message says by how many seconds."""

    code = "clock_skew"
    retryable = True


class ClaimRefusedError(VerificationError):
    """A claim code is unknown, used, expired or wrong: deliberately one answer for all four."""

    code = "claim_refused"


class NotAuthenticatedError(VerificationError):
    """The request carries no usable proof of who sent it."""

    code = "not_authenticated"


class NotPermittedError(VerificationError):
    """Known, and not allowed to do this."""

    code = "not_permitted"


class SecondPersonError(NotPermittedError):
    """The decision belongs to another person than the one who proposed it."""

    code = "second_person_needed"


class RecomputationError(VerificationError):
    """A published round does not follow from the envelopes that it says it counted."""

    code = "recomputation_differs"


class LedgerError(VerificationError):
    code = "ledger_error"


class InclusionProofError(LedgerError):
    code = "inclusion_proof_invalid"


class ConsistencyProofError(LedgerError):
    code = "consistency_proof_invalid"


class CheckpointError(LedgerError):
    code = "checkpoint_invalid"


# --- confidentiality ---------------------------------------------------------------------------------------------


class DecryptionError(LatticewardError):
    """Opening failed. One class, no detail, no subclass: a forger learns nothing from it."""

    code = "decryption_failed"


# --- what people and their tools ask for -----------------------------------------------------------------------


class InvalidValueError(LatticewardError):
    """A value is out of its bounds or contradicts another; the message says which and why, for the one who gave it."""

    code = "invalid_value"


# --- state -------------------------------------------------------------------------------------------------------


class StateError(LatticewardError):
    code = "wrong_state"


class InvalidTransitionError(StateError):
    code = "invalid_transition"


class KeyUsageError(StateError):
    """The key's kind, state or time does not allow this use."""

    code = "key_usage"


class ModelUnusableError(StateError):
    """The model version is not published, or was retired or revoked; the message says which."""

    code = "model_unusable"


class RenewalConflictError(StateError):
    """A second renewal from the same key: somebody else has a copy of it. The device was suspended."""

    code = "renewal_conflict"


class StaleStateError(StateError):
    """Somebody else moved first: nothing was changed."""

    code = "stale_state"
    retryable = True


class SlowRequestError(ProtocolError):
    """The body came more slowly than any line that works."""

    code = "request_too_slow"
    retryable = True


class TooManyRequestsError(StateError):
    """The device holds as many questions or uploads open as it may, or the server has no room for another."""

    code = "too_many_requests"
    retryable = True


class ThrottledError(StateError):
    """More requests in this minute or day than the sender may make; nothing was done.

    Args:
        retry_after_seconds: when it may make the next one, at least 1.
    """

    code = "throttled"
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotFoundError(LatticewardError):
    code = "not_found"


class UnknownSiteError(NotFoundError):
    """An order names a hospital that the federation does not have."""

    code = "unknown_site"


class UnknownDeviceClassError(NotFoundError):
    """A claim, an order or a device names a class that the federation does not have."""

    code = "unknown_device_class"


class IdempotencyMismatchError(StateError):
    """An idempotency key came back with other content."""

    code = "idempotency_mismatch"


class RequestInProgressError(StateError):
    """The first request with this idempotency key is still being worked on."""

    code = "request_in_progress"
    retryable = True
    retry_after_seconds = 1


class ShownOnceError(StateError):
    """The first answer held a secret that is shown once and kept nowhere.

    Args:
        answer: what that answer said besides.
    """

    code = "shown_once"

    def __init__(self, message: str, *, answer: object) -> None:
        super().__init__(message)
        self.answer = answer


# --- rounds ------------------------------------------------------------------------------------------------------


class RoundError(LatticewardError):
    code = "round_error"


class IncompatiblePlanError(RoundError):
    """Parts of a plan do not fit each other; the message says which and why."""

    code = "incompatible_plan"


class QuorumNotMetError(RoundError):
    code = "quorum_not_met"


class KMinimumError(RoundError):
    """Fewer hospitals or patients stand behind a pooled value than the plan's k-minimum."""

    code = "k_minimum_not_met"


class CohortTooCloseError(RoundError):
    """The cohort differs from an earlier one on the same base model by too few hospitals to hide any of them."""

    code = "cohort_too_close"


class UnmaskingError(RoundError):
    code = "unmasking_failed"


class PlanBelowFloorError(RoundError):
    """The hospital's own floor refuses what the plan asks for."""

    code = "plan_below_floor"


class ContributionError(RoundError):
    code = "contribution_refused"


class LayoutMismatchError(ContributionError):
    code = "layout_mismatch"


class NonFiniteUpdateError(ContributionError):
    code = "non_finite_update"


class NormExceededError(ContributionError):
    code = "norm_exceeded"


class EmptyUpdateError(ContributionError):
    """Nobody's data are behind the update: counted, it would stand for a hospital and hide none."""

    code = "empty_update"


class PrivacyBudgetExceededError(LatticewardError):
    code = "privacy_budget_exceeded"


# --- custody and start-up ----------------------------------------------------------------------------------------


class CustodyError(LatticewardError):
    """A private key or the key that wraps it is missing, unreadable or tampered with."""

    code = "custody_failed"


class SelfTestError(LatticewardError):
    """A cryptographic primitive is missing or gives a wrong answer: the process must not start."""

    code = "self_test_failed"


# --- transport (agent only) --------------------------------------------------------------------------------------


class TransportError(LatticewardError):
    code = "transport_error"


class TransientTransportError(TransportError):
    """The server cannot be reached or is busy: back off and try again.

    Args:
        server_code: the server's stable code; empty if it gave none, or did not answer.
        retry_after_seconds: how long the server asked to be left alone, at least 0; None if it did not say.
    """

    code = "transport_transient"
    retryable = True

    def __init__(self, message: str, *, server_code: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.server_code = server_code
        self.retry_after_seconds = retry_after_seconds


class PermanentTransportError(TransportError):
    """The server refused for good; ``server_code`` is its stable code."""

    code = "transport_permanent"

    def __init__(self, message: str, *, server_code: str = "") -> None:
        super().__init__(message)
        self.server_code = server_code
