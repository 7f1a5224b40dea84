"""Where secrets rest: every secret in the database is wrapped by a key-encryption key that is not in it.

Who may read what. Key-encryption keys (KEKs) are cut by reader, not by secret: one KEK a *group*, and a process is
given the files of its role's groups only. That is what makes the separation real in production. A KEK derived per
purpose from one master would be a promise of our code, kept for as long as nobody runs other code on that machine; a
file that is not mounted cannot be read by any code. Inside a group each purpose has its own key, derived with HKDF,
so that a row of one purpose never opens as another.

    group      secrets                                                   web  intake  aggregate  authority
    authority  root, trust anchor, issuing, every signing key                                    x
    web        receipt keys (24 h), claims, challenges, keys of files    x                       x
    rounds     keys that open updates, partial sums and models             x       x

The authority worker holds the web group as well, because it makes the receipt keys; no process but the embedded one
(role ``all``) holds everything, and the settings page says so.

A KEK is changed without a stop. A new version is first *pending*: read by everybody who has the file, used to wrap by
nobody. Activated, it wraps, and the rows under older versions are wrapped anew (``rewrapping.py``); when none is left,
the older versions are retired. Processes read their files again after some seconds, and at once when they meet a
version that they do not know, so files may be changed and copied in any order that keeps these steps apart.

A wrapped secret is ``format (1) | KEK version (4, big-endian) | nonce (12) | AES-256-GCM ciphertext and tag``. The
associated data binds group, KEK version, purpose, row id and algorithm, so a row cannot be swapped for another.
"""

import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import Final

from django.conf import settings

from keys.vault_providers import VAULTS, FileProvider, Group, KeyRing, Provider
from latticeward import canonical
from latticeward.crypto.wrapping import derive_key, unwrap_secret, wrap_secret
from latticeward.errors import CustodyError, DecryptionError

_FORMAT: Final = 1
_HEAD_BYTES: Final = 5

GROUPS_OF_ROLE: Final[Mapping[str, frozenset[Group]]] = {
    "all": frozenset(Group),
    "web": frozenset({Group.WEB}),
    "intake": frozenset({Group.ROUNDS}),
    "aggregate": frozenset({Group.ROUNDS}),
    "authority": frozenset({Group.AUTHORITY, Group.WEB}),
}

# Every purpose a secret can have. The signing purposes are those of ``latticeward.crypto.signing.Purpose``.
GROUP_OF_PURPOSE: Final[Mapping[str, Group]] = {
    "root": Group.AUTHORITY,
    "trust": Group.AUTHORITY,
    "issuing": Group.AUTHORITY,
    "responder": Group.AUTHORITY,
    "key-statement": Group.AUTHORITY,
    "plan": Group.AUTHORITY,
    "round-record": Group.AUTHORITY,
    "model-manifest": Group.AUTHORITY,
    "revocation": Group.AUTHORITY,
    "checkpoint": Group.AUTHORITY,
    "export": Group.AUTHORITY,
    "submission-receipt": Group.WEB,
    "claim": Group.WEB,
    "challenge": Group.WEB,
    "model-download": Group.WEB,
    "round-decapsulation": Group.ROUNDS,
    "partial": Group.ROUNDS,
    "contribution": Group.ROUNDS,
    "noise-seed": Group.ROUNDS,
    "model-content": Group.ROUNDS,
}


# A process that did not change the file itself notices a change within this time.
READ_AGAIN_SECONDS: Final = 15.0

_cache: dict[tuple[str, str, Group], tuple[KeyRing, float]] = {}
_lock: Final = Lock()


def initialise() -> list[Group]:
    """Make the KEKs that do not exist yet, of all groups of this process's role; returns the new ones.

    Only for a system that holds no wrapped secret yet: the caller knows (``keys.ceremony``).
    """
    made: list[Group] = []
    for group in sorted(GROUPS_OF_ROLE[settings.ROLE]):
        try:
            _keks(group)
        except CustodyError:
            if _has_file(group):
                raise  # unreadable or open to others: never replaced
            with _provider().changing(group):
                if _has_file(group):
                    continue  # another process was quicker; its key stands
                _provider().write(group, KeyRing({1: secrets.token_bytes(32)}))
            made.append(group)
    return made


def _has_file(group: Group) -> bool:
    return isinstance(_provider(), FileProvider) and FileProvider().path(group).exists()


def require_keks() -> None:
    """Refuse to start without the KEKs of this process's role.

    Raises:
        CustodyError: one is missing or unreadable; the message says which and what to do.
    """
    for group in sorted(GROUPS_OF_ROLE[settings.ROLE]):
        _keks(group)


def wrap(secret: bytes, *, purpose: str, row_id: str, algorithm: str = "") -> bytes:
    """Wrap a secret for one row.

    Args:
        secret: 1 byte or more; seeds have 32 to 64.
        purpose: a key of ``GROUP_OF_PURPOSE``.
        row_id: id of the row that will hold it; a wrapped secret opens under no other id.
        algorithm: of the key, if it is one; bound as well.

    Raises:
        CustodyError: this process's role does not hold the KEK of that purpose, or it is missing.
    """
    group = _group(purpose)
    ring = _keks(group)
    version = ring.wrapping
    bound = _associated_data(group, version, purpose, row_id, algorithm)
    body = wrap_secret(secret, key=_purpose_key(ring.versions[version], purpose), associated_data=bound)
    return bytes([_FORMAT]) + version.to_bytes(4, "big") + body


def unwrap(wrapped: bytes, *, purpose: str, row_id: str, algorithm: str = "") -> bytes:
    """Open what ``wrap`` made, with the same purpose, row id and algorithm.

    Raises:
        CustodyError: not this process's to read, its KEK is missing, or the row has been tampered with.
    """
    wrapped = bytes(wrapped)
    group = _group(purpose)
    try:
        version = version_of(wrapped)
    except CustodyError as error:
        raise CustodyError(f"{purpose}/{row_id}: {error}") from error
    kek = _keks(group).versions.get(version) or _keks(group, again=True).versions.get(version)
    if kek is None:
        raise CustodyError(f"version {version} of the {group} key-encryption key is missing: restore its file")
    bound = _associated_data(group, version, purpose, row_id, algorithm)
    try:
        return unwrap_secret(wrapped[_HEAD_BYTES:], key=_purpose_key(kek, purpose), associated_data=bound)
    except DecryptionError as exc:
        raise CustodyError(f"the wrapped secret {purpose}/{row_id} was changed, moved or wrapped elsewhere") from exc


def version_of(wrapped: bytes) -> int:
    """Which version of its KEK a wrapped secret names; nothing is proven by it.

    Raises:
        CustodyError: not a wrapped secret.
    """
    if len(wrapped) < _HEAD_BYTES or wrapped[0] != _FORMAT:
        raise CustodyError("the wrapped secret is not in a form that this version reads")
    return int.from_bytes(wrapped[1:_HEAD_BYTES], "big")


def key_ring(group: Group) -> KeyRing:
    """The versions of a group's KEK as its provider has them now.

    Raises:
        CustodyError: not this process's role's, missing or unreadable.
    """
    _require_own(group)
    return _keks(group, again=True)


def stage_version(group: Group) -> int:
    """Add a new version that unwraps and does not wrap yet; returns its number.

    Raises:
        CustodyError: one is pending already, or the provider cannot keep it.
    """
    with _changing(group):
        ring = key_ring(group)
        if ring.pending:
            raise CustodyError(f"version {max(ring.pending)} of the {group} key-encryption key is pending already")
        version = max(ring.versions) + 1
        _write(group, KeyRing({**ring.versions, version: secrets.token_bytes(32)}, frozenset({version})))
    return version


def activate_version(group: Group) -> int:
    """Let the pending version wrap from now on; returns its number.

    Raises:
        CustodyError: none is pending, or the provider cannot keep it.
    """
    with _changing(group):
        ring = key_ring(group)
        if not ring.pending:
            raise CustodyError(f"no version of the {group} key-encryption key is pending")
        _write(group, KeyRing(ring.versions))
    return max(ring.versions)


def retire_versions(group: Group) -> list[int]:
    """Forget every version before the one that wraps; the caller has made sure that nothing is wrapped under them.

    Raises:
        CustodyError: the file was changed a moment ago, so that another process may still wrap under an older version.
    """
    with _changing(group):
        ring = key_ring(group)
        old = sorted(version for version in ring.versions if version < ring.wrapping)
        written_at = _provider().written_at(group)
        if old and written_at is not None and time.time() - written_at < 2 * READ_AGAIN_SECONDS:
            raise CustodyError(
                f"the {group} key file was changed a moment ago: retire its old versions in half a minute"
            )
        if old:
            kept = {version: kek for version, kek in ring.versions.items() if version not in old}
            _write(group, KeyRing(kept, ring.pending))
    return old


def _changing(group: Group) -> AbstractContextManager[None]:
    # Of two changes from the same state the later would write over a version that wraps already, and all under it.
    _require_own(group)
    return _provider().changing(group)


def _write(group: Group, ring: KeyRing) -> None:
    _provider().write(group, ring)
    forget_keks()


def forget_keks() -> None:
    """Drop the KEKs that this process has read, so that the next use reads them again."""
    with _lock:
        _cache.clear()


def _group(purpose: str) -> Group:
    group = GROUP_OF_PURPOSE.get(str(purpose))
    if group is None:
        raise CustodyError(f"the vault knows no purpose {purpose!r}")
    if group not in GROUPS_OF_ROLE[settings.ROLE]:
        raise CustodyError(f"a process of role {settings.ROLE} does not hold secrets for {purpose}")
    return group


def _require_own(group: Group) -> None:
    if group not in GROUPS_OF_ROLE[settings.ROLE]:
        raise CustodyError(f"a process of role {settings.ROLE} does not hold the {group} key-encryption key")


def _provider() -> Provider:
    return VAULTS[settings.VAULT_PROVIDER]


def _keks(group: Group, *, again: bool = False) -> KeyRing:
    place = (settings.VAULT_PROVIDER, str(settings.VAULT_DIR), group)
    with _lock:
        ring, read_at = _cache.get(place, (None, 0.0))
        if again or ring is None or time.monotonic() - read_at > READ_AGAIN_SECONDS:
            ring = _provider().read(group)
            _cache[place] = (ring, time.monotonic())
        return ring


def _purpose_key(kek: bytes, purpose: str) -> bytes:
    return derive_key(kek, label=f"latticeward/vault/v1/{purpose}")


def _associated_data(group: Group, version: int, purpose: str, row_id: str, algorithm: str) -> bytes:
    return canonical.encode(["latticeward/vault/v1", str(group), version, str(purpose), str(row_id), str(algorithm)])
