"""The table of aggregation rules: what each needs to see, and what it makes of it.

A rule is a file and a line here; ``needs`` is checked by the plan against what the protection reveals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from latticeward.aggregation import mean
from latticeward.protection import View
from latticeward.updates.encoding import DecodedSum, FixedPointCodec
from latticeward.updates.ring import RingVector


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregator:
    """One rule from many updates to one.

    Attributes:
        name: as in the plan.
        title: one sentence for people.
        needs: the view without which it cannot work.
        aggregate_sum: the sum of the contributions -> the round's mean update, weights and counts.
    """

    name: str
    title: str
    needs: View
    aggregate_sum: Callable[[RingVector, FixedPointCodec], DecodedSum]


AGGREGATORS: Final[Mapping[str, Aggregator]] = MappingProxyType(
    {
        aggregator.name: aggregator
        for aggregator in (
            Aggregator(
                name="mean",
                title="Mean weighted by examples, each hospital capped.",
                needs=View.SUM,
                aggregate_sum=mean.aggregate_sum,
            ),
        )
    }
)
