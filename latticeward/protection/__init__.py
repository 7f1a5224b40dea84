"""The table of protections: what each shows the server, and how a contribution goes in and comes out.

A protection is a file and a line here. ``reveals`` is what a plan checks an aggregator's ``needs`` against,
so that a mixture that cannot hold its promise is never signed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from latticeward.protection import sealed
from latticeward.updates.encoding import EncodedUpdate, FixedPointCodec
from latticeward.updates.ring import RingVector


class View(StrEnum):
    """What of the updates the server side gets to see."""

    SUM = "sum"
    INDIVIDUAL = "individual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """One way to keep an update from the server.

    Attributes:
        name: as in the plan.
        title: one sentence for people.
        reveals: the views that the server side can have.
        protect: the device's side: a contribution -> the envelope's plaintext.
        read_contribution: the worker's side: that plaintext -> a validated ring vector.
    """

    name: str
    title: str
    reveals: frozenset[View]
    protect: Callable[[EncodedUpdate, FixedPointCodec], bytes]
    read_contribution: Callable[[bytes | memoryview, FixedPointCodec], RingVector]


PROTECTIONS: Final[Mapping[str, Protection]] = MappingProxyType(
    {
        protection.name: protection
        for protection in (
            Protection(
                name="sealed",
                title="Sealed: one worker opens each update, adds it to the sum and keeps only the sum.",
                reveals=frozenset({View.SUM, View.INDIVIDUAL}),
                protect=sealed.protect,
                read_contribution=sealed.read_contribution,
            ),
        )
    }
)
