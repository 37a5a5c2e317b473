"""Proofs are those of RFC 6962, whichever way the leaves come, and whoever checks them takes no others."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ProofError
from kernel.merkle import Tree, leaf_hash
from kernel.proofs import Growth, Inclusions, check_growth, included_root
from tests.conftest import scaled
from tests.kernel.test_merkle import INPUTS, ROOTS, defined_root

SIZES = st.integers(1, 200)
# The proofs that implementations of RFC 6962 share as test vectors, over the leaves of test_merkle.py.
PUBLISHED_INCLUSIONS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
PUBLISHED_GROWTHS = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def leaves(size: int, first: int = 0) -> list[bytes]:
    return [sha256(b"leaf %d" % number).digest() for number in range(first, first + size)]


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def half(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def defined_inclusion(index: int, below: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1, word for word."""
    if len(below) == 1:
        return []
    k = half(len(below))
    if index < k:
        return [*defined_inclusion(index, below[:k]), defined_root(list(below[k:]))]
    return [*defined_inclusion(index - k, below[k:]), defined_root(list(below[:k]))]


def defined_growth(old: int, below: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    if old == len(below):
        return [] if whole else [defined_root(list(below))]
    k = half(len(below))
    if old <= k:
        return [*defined_growth(old, below[:k], whole=whole), defined_root(list(below[k:]))]
    return [*defined_growth(old - k, below[k:], whole=False), defined_root(list(below[:k]))]


def inclusions(below: Sequence[bytes], wanted: Sequence[int], step: int = 7) -> Inclusions:
    made = Inclusions(len(below), wanted)
    for start in range(0, len(below), step):
        made.extend(below[start : start + step])
    return made


def growth(old: int, below: Sequence[bytes], step: int = 7) -> Growth:
    made = Growth(old, len(below))
    for start in range(0, len(below), step):
        made.extend(below[start : start + step])
    return made


@pytest.mark.parametrize(("index", "size"), PUBLISHED_INCLUSIONS)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int) -> None:
    below = [leaf_hash(bytes.fromhex(text)) for text in INPUTS[:size]]

    made = inclusions(below, [index])

    assert [each.hex() for each in made.proof(index)] == PUBLISHED_INCLUSIONS[index, size]
    assert included_root(index, size, below[index], made.proof(index)).hex() == ROOTS[size]


@pytest.mark.parametrize(("old", "size"), PUBLISHED_GROWTHS)
def test_consistency_proofs_are_the_published_ones(old: int, size: int) -> None:
    below = [leaf_hash(bytes.fromhex(text)) for text in INPUTS[:size]]

    made = growth(old, below)

    assert [each.hex() for each in made.proof()] == PUBLISHED_GROWTHS[old, size]
    check_growth(old, size, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size]), made.proof())


@given(SIZES.flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), max_size=20))),
       st.integers(1, 64))
def test_one_pass_makes_the_defined_proof_of_each_wanted_leaf(case: tuple[int, set[int]], step: int) -> None:
    size, wanted = case
    below = leaves(size)

    made = inclusions(below, sorted(wanted), step)

    assert made.root() == defined_root(below)
    for index in wanted:
        assert list(made.proof(index)) == defined_inclusion(index, below)
        assert included_root(index, size, below[index], made.proof(index)) == made.root()


@given(SIZES.flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size))), st.integers(1, 64))
def test_one_pass_makes_the_defined_proof_that_a_tree_grew(case: tuple[int, int], step: int) -> None:
    old, size = case
    below = leaves(size)

    made = growth(old, below, step)

    assert list(made.proof()) == defined_growth(old, below)
    assert (made.old_root(), made.root()) == (defined_root(below[:old]), defined_root(below))
    check_growth(old, size, made.old_root(), made.root(), made.proof())


@given(st.integers(1, 300).flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size))), st.integers(1, 40))
def test_the_proof_that_a_tree_grew_needs_only_the_old_tree_and_the_leaves_after_it(
    case: tuple[int, int], step: int
) -> None:
    old, size = case
    below, tree = leaves(size), Tree()
    tree.extend(below[:old])
    made = Growth.after(tree, size)
    for at in range(old, size, step):
        assert made.read == at
        made.extend(below[at : at + step])

    assert made.proof() == growth(old, below).proof()
    assert (made.old_root(), made.root()) == (tree.root(), defined_root(below))


def test_a_proof_holds_for_the_leaf_and_size_that_it_was_made_for_as_far_as_their_turns_differ() -> None:
    """The signed size tells apart the leaves of two trees that are reached by the same turns."""
    sizes = range(1, 3 + min(scaled(10), 30))
    for size in sizes:
        below = leaves(size)
        made = inclusions(below, range(size))
        for index, claimed, other in ((i, c, o) for i in range(size) for o in sizes for c in range(o)):
            holds = _root_or_none(claimed, other, below[index], made.proof(index)) == made.root()

            assert holds == (turns(claimed, other) == turns(index, size))


def _root_or_none(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes | None:
    try:
        return included_root(index, size, leaf, proof)
    except ProofError:
        return None


def turns(index: int, size: int) -> list[bool]:
    """The way from the root to a leaf: True where it goes to the right."""
    if size == 1:
        return []
    k = half(size)
    return [True, *turns(index - k, size - k)] if index >= k else [False, *turns(index, k)]


@given(SIZES.flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))), st.data())
def test_no_bit_of_an_inclusion_proof_can_be_changed(case: tuple[int, int], data: st.DataObject) -> None:
    size, index = case
    below = leaves(size)
    made = inclusions(below, [index])
    whole = b"".join((below[index], *made.proof(index)))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))

    leaf, *proof = _pieces(_flipped(whole, bit))

    assert included_root(index, size, leaf, proof) != made.root()


@given(SIZES.flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size))), st.data())
def test_no_bit_of_a_consistency_proof_or_its_roots_can_be_changed(case: tuple[int, int], data: st.DataObject) -> None:
    old, size = case
    made = growth(old, leaves(size))
    whole = b"".join((made.old_root(), made.root(), *made.proof()))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))

    old_root, root, *proof = _pieces(_flipped(whole, bit))

    with pytest.raises(ProofError):
        check_growth(old, size, old_root, root, proof)


@pytest.mark.parametrize(("index", "size", "change"), [
    pytest.param(4, 7, lambda proof: proof[:-1], id="one hash less"),
    pytest.param(4, 7, lambda proof: proof[1:], id="without the first"),
    pytest.param(4, 7, lambda proof: (*proof, proof[0]), id="one hash more"),
    pytest.param(6, 7, lambda proof: (), id="no hash"),
    pytest.param(0, 1, lambda proof: (bytes(32),), id="a hash where none belongs"),
    pytest.param(7, 7, tuple, id="a leaf that the tree does not have"),
    pytest.param(-1, 7, tuple, id="a leaf before the first"),
    pytest.param(0, 0, tuple, id="a tree without leaves"),
])
def test_an_inclusion_proof_of_another_length_or_place_is_refused(index, size, change) -> None:
    below = leaves(max(size, 1))
    inside = min(max(index, 0), len(below) - 1)

    with pytest.raises(ProofError):
        included_root(index, size, below[inside], change(inclusions(below, [inside]).proof(inside)))


@pytest.mark.parametrize(("old", "size", "change"), [
    pytest.param(3, 7, lambda proof: proof[:-1], id="one hash less"),
    pytest.param(3, 7, lambda proof: (*proof, proof[0]), id="one hash more"),
    pytest.param(3, 7, lambda proof: (), id="no hash"),
    pytest.param(4, 7, lambda proof: (), id="no hash after a complete tree"),
    pytest.param(7, 7, lambda proof: (bytes(32),), id="a hash where none belongs"),
])
def test_a_consistency_proof_of_another_length_is_refused(old, size, change) -> None:
    made = growth(old, leaves(size))

    with pytest.raises(ProofError):
        check_growth(old, size, made.old_root(), made.root(), change(made.proof()))


def test_a_consistency_proof_holds_for_its_old_size_alone() -> None:
    for size in range(1, 3 + min(scaled(10), 30)):
        for old in range(1, size + 1):
            made = growth(old, leaves(size))
            roots = made.old_root(), made.root()
            for other in set(range(-1, size + 2)) - {old}:
                with pytest.raises(ProofError):
                    check_growth(other, size, *roots, made.proof())


@pytest.mark.parametrize("make", [
    lambda: Inclusions(3, [3]), lambda: Inclusions(3, [-1]), lambda: Inclusions(0, [0]),
    lambda: Growth(0, 3), lambda: Growth(4, 3), lambda: Inclusions(3, [0]).proof(0), lambda: Growth(2, 3).root(),
])
def test_what_cannot_be_proved_is_refused(make) -> None:
    with pytest.raises(ProofError):
        make()


def test_leaves_after_the_last_one_of_the_tree_are_passed_over() -> None:
    made = Inclusions(5, [4])

    made.extend(leaves(3))
    assert made.read == 3
    made.extend(leaves(9, 3))

    assert made.read == 5
    assert made.root() == defined_root(leaves(5))


def test_memory_grows_with_the_depth_of_the_tree_alone() -> None:
    size = scaled(3000)
    made, tree = Inclusions(size, [size // 3]), Tree()
    for start in range(0, size, 500):
        below = leaves(min(500, size - start), start)
        made.extend(below)
        tree.extend(below)

    kept = len(made._hashes)
    assert made.root() == tree.root()
    assert kept <= size.bit_length() + 1


def _flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + 32] for start in range(0, len(data), 32)]
