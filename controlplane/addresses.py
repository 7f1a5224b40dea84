"""Who is at the other end: a client's network address, told by the connection and by proxies that we trust.

``X-Forwarded-For`` grows to the right: each proxy appends whom it was asked by. So with n trusted proxies the n-th
entry from the right was written by one of them, and everything before it by anybody.
"""

import ipaddress
from functools import lru_cache
from typing import Final

from django.conf import settings

# One customer's network in IPv6, which can take any of its 2^64 addresses for every request.
_NETWORK_BITS: Final = 64


def client_address(peer: str, forwarded: str = "") -> str:
    """The address to count and to log by.

    Args:
        peer: the address at the other end of the connection; empty for a local socket.
        forwarded: the value of X-Forwarded-For, lines joined by commas; ignored without trusted proxies.
    """
    count = settings.TRUSTED_PROXIES
    entries = [entry.strip() for entry in forwarded.split(",") if entry.strip()] if count else []
    return _plain(entries[-count] if len(entries) >= count > 0 else peer)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """What a limit is counted by: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Whether the address is this machine itself."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:64]
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
