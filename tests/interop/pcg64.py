"""NumPy's ``PCG64(n)``, which section 12 of docs/protocol.md draws version 0 of a model from, without NumPy.

The generator is PCG XSL RR 128/64 (M. E. O'Neill, HMC-CS-2014-0905). Its state comes from the number by NumPy's
``SeedSequence``: a pool of four words of 32 bits, mixed and stretched (the hash is M. E. O'Neill's ``seed_seq_fe``).
"""

from collections.abc import Iterator

_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_WORD, _WIDE = 2**32 - 1, 2**128 - 1


class _Hash:
    """A running hash of words, whose constant changes with each word."""

    def __init__(self, constant: int, multiplier: int) -> None:
        self._constant, self._multiplier = constant, multiplier

    def __call__(self, value: int) -> int:
        value ^= self._constant
        self._constant = self._constant * self._multiplier & _WORD
        value = value * self._constant & _WORD
        return value ^ value >> 16


def _mix(x: int, y: int) -> int:
    result = (x * 0xCA01F9DD - y * 0x4973F715) & _WORD
    return result ^ result >> 16


def _seeded(number: int, words: int) -> list[int]:
    """As many words of 32 bits as a generator's state needs, from a number below 2^128."""
    entropy = [number >> 32 * place & _WORD for place in range(4)]
    stir = _Hash(0x43B0D7E5, 0x931E8875)
    pool = [stir(word) for word in entropy]
    for source in range(4):
        for target in range(4):
            if source != target:
                pool[target] = _mix(pool[target], stir(pool[source]))
    stretch = _Hash(0x8B51F9DD, 0x58F38DED)
    return [stretch(pool[place % 4]) for place in range(words)]


def raw_outputs(number: int) -> Iterator[int]:
    """The generator's outputs of 64 bits."""
    words = _seeded(number, 8)
    high_state, low_state, high_stream, low_stream = (words[at] | words[at + 1] << 32 for at in range(0, 8, 2))
    increment = (high_stream << 64 | low_stream) << 1 & _WIDE | 1
    state = ((increment + (high_state << 64 | low_state)) * _MULTIPLIER + increment) & _WIDE
    while True:
        state = (state * _MULTIPLIER + increment) & _WIDE
        folded, turn = (state >> 64 ^ state) & 2**64 - 1, state >> 122
        yield (folded >> turn | folded << (64 - turn)) & 2**64 - 1
