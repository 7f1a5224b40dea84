"""From an inclusion proof to a believed entry: the checkpoint's signature first, then the path to its root."""

from latticeward.agent.work import LedgerProof
from latticeward.ledger.checkpoint import verify_checkpoint
from latticeward.ledger.merkle import leaf_hash, verify_inclusion
from latticeward.trust import TrustStore
