"""The agent's trust store: fetched, believed against the pinned anchor, written down, renewed before it is missed."""

import logging
from collections.abc import Callable
from datetime import datetime
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
        return self._store or self.refresh()

    def refresh(self) -> TrustStore:
        """Fetch the bundle again; receipt keys live a day, so a receipt may know one that we do not."""
        raw = self._transport.trust()
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
