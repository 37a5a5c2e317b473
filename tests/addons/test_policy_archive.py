"""Several files as one: told from every other list of files, and taken apart again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.policy_archive import packed, unpacked
from addons.yaml_nodes import compose
from kernel.errors import PolicyError

FRAME = b"@governor-policy-files\n@file 1\na\n"
contents = st.one_of(st.binary(max_size=20), st.sampled_from([b"", b"\n", FRAME, b"@file 0\n", packed([b"a", b"b"])]))


@given(st.lists(contents, min_size=2, max_size=4))
def test_files_are_taken_apart_as_they_were_packed(files):
    assert unpacked(packed(files)) == files


@given(st.binary())
def test_one_file_is_itself(content):
    assert packed([content]) == content


@given(st.lists(contents, min_size=2, max_size=4), st.lists(contents, min_size=2, max_size=4))
def test_other_files_are_packed_otherwise(one, other):
    assert (packed(one) == packed(other)) == (one == other)


def test_the_form_stays():
    assert packed([b"version: 1\n", b"x"]) == b"@governor-policy-files\n@file 11\nversion: 1\n\n@file 1\nx\n"


@pytest.mark.parametrize("content", [
    FRAME,
    packed([b"a", b"b"])[:-1],
    packed([b"a", b"b"]) + b"x",
    packed([b"a", b"b"]).replace(b"1", b"01"),
    b"@governor-policy-files\n",
])
def test_what_was_never_packed_is_no_policy(content):
    assert unpacked(content) == [content]
    with pytest.raises(PolicyError):
        compose(content, "kept.yaml")
