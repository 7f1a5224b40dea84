"""A model version as a plan names one that its training starts from: the plan's ``initial`` of that kind.

A version is named by its id, with which it is fetched, by the training that made it, so that its manifest can be held
against it, and by the digest of its weights, which is what counts. The other kinds of start follow from the plan alone
(``updates.tensors.initial_vector``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

from latticeward.errors import IncompatiblePlanError

VERSION_KIND: Final = "version"
DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedVersion:
    """One published version, without its weights.

    Attributes:
        model_id, training_id: UUID text, in its usual form.
        weights_digest: 32 bytes.
    """

    model_id: str
    training_id: str
    weights_digest: bytes

    def to_initial(self) -> dict[str, str | bytes]:
        """The ``initial`` of a plan that starts from it."""
        return {
            "kind": VERSION_KIND,
            "model": self.model_id,
            "training": self.training_id,
            "digest": self.weights_digest,
        }

    @classmethod
    def from_initial(cls, initial: Mapping[str, Any]) -> Self | None:
        """The version that a plan starts from; None for a start that follows from the plan alone.

        Raises:
            IncompatiblePlanError: it names a version, and not as this module writes it.
        """
        match dict(initial):
            case {"kind": "version", "model": str(model), "training": str(training), "digest": bytes(digest), **rest}:
                known = not rest and len(digest) == DIGEST_BYTES and _is_uuid(model) and _is_uuid(training)
            case {"kind": "version"}:
                known = False
            case _:
                return None
        if not known:
            raise IncompatiblePlanError("a start from a version names its id, its training and its weights' digest")
        return cls(model_id=model, training_id=training, weights_digest=digest)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
