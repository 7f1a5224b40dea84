"""Waiting longer after every failure, at random, so that a thousand agents do not return in the same second."""

import random
from typing import Final

FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 30.0


class Backoff:
    """Full jitter: the n-th pause is uniform below min(longest, first · 2^n), and at least a tenth of that."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0

    def next_seconds(self) -> float:
        """The pause after one more failure, seconds."""
        ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._rng.uniform(ceiling / 10, ceiling)

    def reset(self) -> None:
        """Something worked: start small again."""
        self._failures = 0
