"""The agent's trust store: fetched, believed against the pinned anchor, written down, renewed before it is missed.

A statement lives for a year, but is asked for again every few hours, so that a key that the server took out of use is
not believed much longer, and a new one is known before it signs. While the statement at hand holds, an answer that
does not come or cannot be believed changes nothing.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from latticeward.agent.files import write_atomically
from latticeward.agent.identity import Identity
from latticeward.agent.state import AgentState
from latticeward.agent.transports import Transport
from latticeward.errors import LatticewardError
from latticeward.trust import TrustStore

logger = logging.getLogger(__name__)

TRUST_FILE: Final = "trust.cbor"
REFRESH_EVERY: Final = timedelta(hours=6)


class TrustKeeper:
    """Gives the trust store judged at the present.

    Args:
        clock: aware UTC now.
    """

    def __init__(
        self,
        *,
        home: Path,
        identity: Identity,
        state: AgentState,
        transport: Transport,
        clock: Callable[[], datetime],
    ) -> None:
        self._file = home / TRUST_FILE
        self._identity = identity
        self._state = state
        self._transport = transport
        self._clock = clock
        self._store = self._stored()
        self._asked_at = clock()

    def current(self) -> TrustStore:
        """The store for now; fetched if there is none that is current.

        Raises:
            VerificationError, ProtocolError: the server's bundle is not to be believed.
            TransportError
        """
        if self._store is not None:
            try:
                self._store = self._store.at(self._clock())
            except LatticewardError:
                self._store = None
        if self._store is None:
            return self.refresh()
        if self._clock() - self._asked_at >= REFRESH_EVERY:
            self._asked_at = self._clock()
            try:
                return self.refresh()
            except LatticewardError as error:
                logger.warning("the trust statement could not be renewed (%s); the one at hand still holds", error)
        return self._store

    def refresh(self) -> TrustStore:
        """Fetch the bundle again; receipt keys live a day, so a receipt may know one that we do not."""
        raw = self._transport.trust()
        self._asked_at = self._clock()
        store = self._believe(raw)
        write_atomically(self._file, raw)
        if store.sequence != self._state.trust_sequence:
            self._state.trust_sequence = store.sequence
            self._state.save()
            logger.info("trust statement number %d accepted", store.sequence)
        self._store = store
        return store

    def _stored(self) -> TrustStore | None:
        try:
            return self._believe(self._file.read_bytes())
        except (OSError, LatticewardError):
            return None  # missing, expired or damaged: the next use fetches it anew

    def _believe(self, raw: bytes) -> TrustStore:
        return TrustStore.from_signed(
            raw,
            anchor_fingerprint=self._identity.anchor,
            now=self._clock(),
            least_sequence=self._state.trust_sequence,
        )
