"""What one live page listens to, and which events a role may hear. No I/O.

A page names *feeds* with the last number that it has shown: ``federation:<id>@<seq>``, ``round:<id>@<seq>``. A page
about a training also names ``training:<id>@<number>``: it follows every round of that training, and has shown the
rounds up to ``number``. Rounds have feeds of their own, so without this a page would have to know of a round before
it is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from controlplane.permissions import Role
from latticeward.errors import MalformedMessageError

TOPICS_LIMIT: Final = 32
# What rounds and trainings tell holds no key material; everything else is for those who may see keys and devices.
_CLINICIANS_HEAR: Final = frozenset({"training", "round", "participant", "update", "submission", "model", "alias"})


def may_hear(roles: frozenset[Role], event_type: str) -> bool:
    """Whether one of these roles may hear of an event such as ``round.opened``."""
    if roles & {Role.OPERATOR, Role.COMPLIANCE}:
        return True
    return Role.CLINICIAN in roles and event_type.partition(".")[0] in _CLINICIANS_HEAR


@dataclass(slots=True)
class Topics:
    """Feeds with the last number sent, and trainings with the last round known.

    ``wants`` is called from the thread that publishes: it only reads and adds, each of which is one atomic step.
    """

    feeds: dict[str, int] = field(default_factory=dict)
    trainings: dict[str, int] = field(default_factory=dict)

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Whether the page follows this event's feed; a new round of a followed training is followed from here on."""
        feed: str = event["feed"]
        if feed in self.feeds:
            return True
        if event["type"] == "round.opened" and event["data"].get("training") in self.trainings:
            self.feeds.setdefault(feed, 0)
            return True
        return False


def parse_topics(text: str) -> Topics:
    """Read ``<feed>@<since>,<feed>@<since>``.

    Raises:
        MalformedMessageError: an unknown kind of topic, an id that is none, a negative number, or too many topics.
    """
    topics = Topics()
    parts = [part for part in text.split(",") if part]
    if not 0 < len(parts) <= TOPICS_LIMIT:
        raise MalformedMessageError(f"{len(parts)} topics: a page follows 1 to {TOPICS_LIMIT}")
    for part in parts:
        name, _, since_text = part.partition("@")
        kind, _, identity = name.partition(":")
        try:
            identity, since = str(UUID(identity)), int(since_text or "0")
        except ValueError as error:
            raise MalformedMessageError(f"topic {part[:80]!r} does not name a feed and a number") from error
        if kind not in ("federation", "round", "training") or since < 0:
            raise MalformedMessageError(f"topic {part[:80]!r} is of no known kind")
        if kind == "training":
            topics.trainings[identity] = since
        else:
            topics.feeds[f"{kind}:{identity}"] = since
    return topics
