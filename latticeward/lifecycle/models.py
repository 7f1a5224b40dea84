"""The state machines of a model version, of the aliases that point to it, and of its files."""

from enum import StrEnum
from typing import Final

from latticeward.lifecycle.machine import Machine, rows


class ModelState(StrEnum):
    """The standing of a published model version; only ``available`` may be aliased or started from."""

    AVAILABLE = "available"
    RETIRED = "retired"
    REVOKED = "revoked"


class AliasMoveState(StrEnum):
    """A proposal to point an alias at a model version: one person makes it, another decides."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ModelExportState(StrEnum):
    """A file of a model's weights, made for one person to fetch once."""

    REQUESTED = "requested"
    READY = "ready"
    TAKEN = "taken"
    EXPIRED = "expired"
    FAILED = "failed"


_M, _A, _E = ModelState, AliasMoveState, ModelExportState

MODEL: Final = Machine(
    "model",
    ModelState,
    _M.AVAILABLE,
    (
        *rows((_M.AVAILABLE,), "retire", _M.RETIRED, "model.retired", "operator, retire_model: superseded"),
        *rows(
            (_M.AVAILABLE, _M.RETIRED),
            "revoke",
            _M.REVOKED,
            "model.revoked",
            "operator or compliance, revoke_model: must not be used",
        ),
    ),
)

ALIAS_MOVE: Final = Machine(
    "alias_move",
    AliasMoveState,
    _A.PROPOSED,
    (
        *rows((_A.PROPOSED,), "confirm", _A.CONFIRMED, "alias.moved", "another operator or compliance officer"),
        *rows(
            (_A.PROPOSED,),
            "decline",
            _A.DECLINED,
            "alias.declined",
            "another operator or compliance officer, or the version lost its standing",
        ),
        *rows((_A.PROPOSED,), "withdraw", _A.WITHDRAWN, "alias.withdrawn", "operator, who proposed it"),
        *rows((_A.PROPOSED,), "expire", _A.EXPIRED, "alias.expired", "worker: nobody decided in time"),
    ),
)

MODEL_EXPORT: Final = Machine(
    "model_export",
    ModelExportState,
    _E.REQUESTED,
    (
        *rows(
            (_E.REQUESTED,), "make", _E.READY, "model_export.made", "aggregation worker: sealed, waits to be fetched"
        ),
        *rows((_E.READY,), "take", _E.TAKEN, "model_export.taken", "operator, who asked for it, once"),
        *rows((_E.REQUESTED, _E.READY), "expire", _E.EXPIRED, "model_export.expired", "worker, at the due time"),
        *rows((_E.REQUESTED,), "fail", _E.FAILED, "model_export.failed", "aggregation worker, with code"),
    ),
)
