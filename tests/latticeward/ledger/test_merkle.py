"""The tree against the standard's own recursion, and proofs that were bent."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticeward.errors import ConsistencyProofError, InclusionProofError, MalformedMessageError
from latticeward.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    consistency_ranges,
    inclusion_proof,
    inclusion_ranges,
    leaf_hash,
    root_hash,
    split,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(number.to_bytes(2, "big")) for number in range(70)]
# RFC 6962's own examples, as certificate-transparency-go and others carry them.
KNOWN_ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def prove_and_verify_consistency(old_size: int, new_size: int, proof: list[bytes]) -> None:
    verify_consistency(
        old_size=old_size,
        old_root=naive_root(LEAVES[:old_size]),
        new_size=new_size,
        new_root=naive_root(LEAVES[:new_size]),
        proof=proof,
    )


def test_known_roots() -> None:
    hashes = [leaf_hash(entry) for entry in KNOWN_ENTRIES]
    assert [root_hash(hashes[: size + 1]).hex() for size in range(8)] == KNOWN_ROOTS
    assert root_hash([]) == EMPTY_ROOT


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_every_root_path_and_proof_is_the_standard_s(size: int) -> None:
    leaves = LEAVES[:size]
    root = root_hash(leaves)
    assert root == naive_root(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert proof == naive_path(index, leaves)
        verify_inclusion(leaves[index], index=index, size=size, proof=proof, root=root)
    for old_size in range(size + 1):
        proof = consistency_proof(leaves, old_size)
        assert proof == (naive_subproof(old_size, leaves, True) if old_size else [])
        prove_and_verify_consistency(old_size, size, proof)


@given(st.data())
def test_a_bent_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    root, proof = root_hash(LEAVES[:size]), inclusion_proof(LEAVES[:size], index)
    other = data.draw(st.integers(0, len(LEAVES) - 1).filter(lambda number: number != index))
    bent = [
        (LEAVES[other], index, size, proof, root),
        (LEAVES[index], other, size, proof, root),
        (LEAVES[index], index, size, [*proof, LEAVES[0]], root),
        (LEAVES[index], index, size, proof, root[::-1]),
        (LEAVES[index], -1, size, proof, root),
        (LEAVES[index], size, size, proof, root),
        (LEAVES[index][:31], index, size, proof, root),
        (LEAVES[index], index, size, [b"", *proof[1:]], root),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bent.append((LEAVES[index], index, size, proof[:at] + proof[at + 1 :], root))
        bent.append((LEAVES[index], index, size, [*proof[:at], LEAVES[other], *proof[at + 1 :]], root))
        if proof[at] == LEAVES[other]:
            bent.pop()
    for leaf, position, leaves, path, head in bent:
        with pytest.raises(InclusionProofError):
            verify_inclusion(leaf, index=position, size=leaves, proof=path, root=head)


@given(st.data())
def test_a_bent_consistency_proof_is_refused(data: st.DataObject) -> None:
    new_size = data.draw(st.integers(1, len(LEAVES)))
    old_size = data.draw(st.integers(1, new_size))
    proof = consistency_proof(LEAVES[:new_size], old_size)
    # A history that differs in one old leaf.
    changed = data.draw(st.integers(0, old_size - 1))
    forged = root_hash([*LEAVES[:changed], b"\0" * 32, *LEAVES[changed + 1 : old_size]])
    with pytest.raises(ConsistencyProofError):
        verify_consistency(
            old_size=old_size,
            old_root=forged,
            new_size=new_size,
            new_root=root_hash(LEAVES[:new_size]),
            proof=proof,
        )
    with pytest.raises(ConsistencyProofError):
        prove_and_verify_consistency(old_size, new_size, [*proof, LEAVES[0]])
    with pytest.raises(ConsistencyProofError):
        prove_and_verify_consistency(old_size, new_size, [b"short", *proof])
    for at in range(len(proof)):
        with pytest.raises(ConsistencyProofError):
            prove_and_verify_consistency(old_size, new_size, proof[:at] + proof[at + 1 :])
        with pytest.raises(ConsistencyProofError):
            prove_and_verify_consistency(old_size, new_size, [*proof[:at], b"\0" * 32, *proof[at + 1 :]])


def test_sizes_that_cannot_be() -> None:
    for old_size, new_size in ((5, 4), (-1, 4)):
        with pytest.raises(ConsistencyProofError):
            consistency_ranges(old_size, new_size)
        with pytest.raises(ConsistencyProofError):
            verify_consistency(old_size=old_size, old_root=LEAVES[0], new_size=new_size, new_root=LEAVES[1], proof=[])
    for index, size in ((0, 0), (4, 4), (-1, 4)):
        with pytest.raises(InclusionProofError):
            inclusion_ranges(index, size)
    with pytest.raises(ConsistencyProofError):
        verify_consistency(old_size=0, old_root=LEAVES[0], new_size=4, new_root=LEAVES[1], proof=[])


def test_a_frontier_grows_and_returns_from_its_bytes() -> None:
    frontier = Frontier.from_bytes(b"")
    for size, leaf in enumerate(LEAVES):
        assert (frontier.size, frontier.root) == (size, naive_root(LEAVES[:size]))
        assert len(frontier.to_bytes()) == 8 + 32 * size.bit_count()
        frontier = Frontier.from_bytes(frontier.to_bytes())
        frontier.append(leaf)
    raw = frontier.to_bytes()
    for broken in (raw[:-1], raw + bytes(32), raw[:7], b"\0"):
        with pytest.raises(MalformedMessageError):
            Frontier.from_bytes(broken)
