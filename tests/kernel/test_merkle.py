"""The tree is that of RFC 6962, whichever way its leaves come."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.merkle import EMPTY_ROOT, Tree, leaf_hash

# The inputs and roots that implementations of RFC 6962 share as test vectors.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def defined_root(leaves: list[bytes]) -> bytes:
    """The definition in RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + defined_root(leaves[:half]) + defined_root(leaves[half:])).digest()


@pytest.mark.parametrize("size", ROOTS)
def test_the_roots_are_the_published_ones(size: int) -> None:
    tree = Tree()
    for text in INPUTS[:size]:
        tree.append(leaf_hash(bytes.fromhex(text)))

    assert tree.root().hex() == ROOTS[size]


@given(st.lists(st.lists(st.binary(min_size=32, max_size=32), max_size=40), max_size=8))
def test_leaves_that_come_in_groups_give_the_defined_root(groups: list[list[bytes]]) -> None:
    tree = Tree()
    leaves: list[bytes] = []
    for group in groups:
        tree.extend(group)
        leaves += group

        assert tree.size == len(leaves)
        assert tree.root() == defined_root(leaves)


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert Tree().root() == EMPTY_ROOT == sha256(b"").digest()
