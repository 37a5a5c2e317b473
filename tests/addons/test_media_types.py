"""Which answer a client can show, by its Accept header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.media_types import prefers_html, prefers_json
from tests.addons.accept_headers import CHROMIUM, FIREFOX, NPM, PIP


@pytest.mark.parametrize("accept", [CHROMIUM, FIREFOX, "text/html", "TEXT/HTML ; charset=utf-8", "*/*;q=.1,text/html"])
def test_a_browser_prefers_html(accept: str) -> None:
    assert prefers_html(accept)
    assert not prefers_json(accept)


@pytest.mark.parametrize("accept", [PIP, NPM, "application/json", "application/json, text/plain, */*",
                                    "text/html;q=0.9, application/problem+json", "text/html, application/json"])
def test_a_program_prefers_json(accept: str) -> None:
    assert prefers_json(accept)
    assert not prefers_html(accept)


@pytest.mark.parametrize("accept", ["", "*/*", "text/html;q=0", "image/png, text/html;q=0.5", "text/htmlx", "text/*",
                                    ";q=1", ",,,", "text/html" * 200, "application/json;q=0"])
def test_everyone_else_prefers_neither(accept: str) -> None:
    assert not prefers_html(accept)
    assert not prefers_json(accept)


@given(st.one_of(st.text(), st.lists(st.sampled_from(
    ["text/html", "application/json", "*/*", ";", ",", "q=", "0.5", "1", ".", " ", "\udcff", "\r\n"])).map("".join)))
def test_whatever_stands_there_nothing_is_raised_and_not_both_are_preferred(accept: str) -> None:
    assert not (prefers_html(accept) and prefers_json(accept))
