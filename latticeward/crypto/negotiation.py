"""Which suite two sides speak, and which floor holds for several: choices over the table of ``suites.py``."""

from collections.abc import Iterable, Sequence

from latticeward.crypto.suites import SUITES, Suite, SuiteStatus, get_suite
from latticeward.errors import UnsupportedSuiteError


def negotiate(offered: Sequence[str], accepted: Sequence[str], floor: str, *, default: str = "") -> Suite:
    """Choose the suite of a conversation: of those that both name the default, else the preferred, else the strongest.

    Names that this version does not know are passed over, since a newer peer may offer more. What was offered, the
    floor and the choice belong into the transcript that both sides authenticate; without that, striking a name from
    the list in transit would be a downgrade.

    Args:
        offered: suite ids of the peer.
        accepted: suite ids of our own policy.
        floor: id of the weakest suite that we take.
        default: id of the suite that our policy sets for this peer; it wins over stronger ones, never over the floor.

    Raises:
        UnsupportedSuiteError: nothing in common that may make new messages and is as strong as the floor.
    """
    least = get_suite(floor).strength
    common = [SUITES[name] for name in set(offered) & set(accepted) if name in SUITES]
    usable = [row for row in common if row.strength >= least and _makes(row)]
    if not usable:
        raise UnsupportedSuiteError(f"no common suite at or above the floor {floor}")
    return max(usable, key=lambda row: (row.id == default, row.status is SuiteStatus.PREFERRED, row.strength))


def strongest(names: Iterable[str]) -> str:
    """Of several floors the one that holds for all.

    Raises:
        UnsupportedSuiteError: one of them is no suite.
    """
    return max((get_suite(name) for name in names), key=lambda row: row.strength).id


def _makes(row: Suite) -> bool:
    try:
        row.require_makeable()
    except UnsupportedSuiteError:
        return False
    return True
