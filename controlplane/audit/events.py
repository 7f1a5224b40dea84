"""Every audit event's name and what it means in one line: the words of the ledger page and of exports.

Transitions of ``latticeward/lifecycle.py`` name their events there; a test holds that each stands here too.
"""

from typing import Final

EVENTS: Final[dict[str, str]] = {
    # trainings and rounds
    "training.drafted": "A training was planned",
    "training.submitted": "A training was handed over for signing",
    "training.started": "The plan was signed and the training began",
    "training.completed": "The training reached its stop rule",
    "training.stopped": "An operator stopped the training",
    "training.failed": "The training ended without reaching its stop rule",
    "training.compared": "Reference results were attached to a training",
    "round.opened": "A round was opened",
    "round.recruiting": "Devices were invited to the round",
    "round.collecting": "The round takes updates",
    "round.aggregating": "The round closed and its members are fixed",
    "round.published": "The round's result was signed and published",
    "round.failed": "The round ended without a result",
    "round.aborted": "The round was aborted",
    "participant.joined": "A device joined the round",
    "participant.dropped": "A device was given up on in this round",
    "update.received": "An update arrived and was stored",
    "update.accepted": "An update was verified and counted",
    "update.refused": "An update was refused; the device may try again",
    "update.rejected": "An update was refused for the last time",
    "update.excluded": "An update was taken out of the round again",
    "submission.refused": "A submission was refused at the door",
    "model.prepared": "A model version was computed and sealed",
    "round_key.destroyed": "The key that opens a round's updates was destroyed",
    # devices
    "federation.created": "A federation was founded",
    "site.created": "A hospital was added",
    "device_class.created": "A device class was added",
    "device_class.changed": "What is asked of a device class was changed",
    "claim.created": "A claim code was made",
    "claim.cancelled": "A claim code was cancelled",
    "claim.refused": "A claim code was refused",
    "device.requested": "A device asked to be enrolled and proved its keys",
    "device.approved": "A device was approved",
    "device.declined": "A device was declined",
    "device.activated": "A device received its certificate",
    "device.suspended": "A device was suspended",
    "device.reinstated": "A device was reinstated",
    "device.revoked": "A device was revoked",
    "request.refused": "A signed request was refused",
    # keys
    "authority.initialised": "The authority's keys were made",
    "key.generated": "A key was made or registered",
    "key.activated": "A key became active",
    "key.rotated": "A key was superseded by a newer one",
    "key.retired": "A key was retired",
    "key.suspended": "A key was suspended",
    "key.reinstated": "A key was reinstated",
    "key.compromised": "A key was declared compromised",
    "key.destroyed": "A key's secret was destroyed",
    "certificate.issued": "A certificate was issued",
    "offline_keys.exported": "The root and anchor keys were exported for safe keeping",
    "offline_keys.removed": "The root and anchor keys were taken out of the service",
    "offline_keys.restored": "The root and anchor keys were brought back into the service",
    "trust.published": "A trust statement was signed",
    # people
    "user.signed_in": "A person signed in",
    "user.signed_out": "A person signed out",
}
