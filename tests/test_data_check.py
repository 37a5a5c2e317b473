"""The tables of data are in order, and a table that is not is found."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from addons.policy_files import shipped_policy
from scripts.data_check import KINDS, PRICES, problems, table_problems

pytestmark = pytest.mark.checkout

DATA = shipped_policy("default").parent / "data"
TODAY = date(2100, 1, 1)


def test_every_table_that_comes_with_governor_is_in_order():
    assert problems(DATA, TODAY) == []


def test_a_folder_without_a_table_is_found(tmp_path):
    assert problems(tmp_path, TODAY) == [f"{name}: is not there" for name in sorted({*KINDS, PRICES})]


PRICED = """table: prices
providers:
  somebody:
    source: somebody who knows
    date: 2026-11-26
    prices:
      - {models: [m, m-2*], input: 2, cached: 0.2, written: 4, output: 8, context: 8k, longest-output: 4k}
"""
GOOD = "source: somebody who knows\ndate: 2026-11-26\nentries: [a.example, .b.example]\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("llm-hosts.yaml", GOOD, "", id="in order"),
        pytest.param("other.yaml", GOOD, "a table that is not known here", id="no kind"),
        pytest.param(
            "llm-hosts.yaml", GOOD.replace("source: somebody who knows\n", ""), 'needs "source:"', id="no source"),
        pytest.param("llm-hosts.yaml", GOOD.replace("2026-11-26", "26 November"), "is not a date", id="no date"),
        pytest.param("llm-hosts.yaml", GOOD.replace("2026", "2126"), "lies in the future", id="a date to come"),
        pytest.param("llm-hosts.yaml", GOOD.replace("a.example", "z.example"), "not sorted", id="not sorted"),
        pytest.param(
            "llm-hosts.yaml", GOOD.replace("[a.example,", "[a.example, a.example,"), "stands twice", id="twice"),
        pytest.param(
            "llm-hosts.yaml", GOOD.replace("a.example", "a.b.example"), "is covered by the entry", id="covered"),
        pytest.param("llm-hosts.yaml", GOOD.replace("a.example", "a_*.example"), "a star stands only", id="no pattern"),
        pytest.param("metadata-ranges.yaml", GOOD, "does not appear to be an IPv4", id="no range"),
        pytest.param("llm-housekeeping.yaml", GOOD, "not a method and an https URL", id="no call"),
        pytest.param(
            "llm-housekeeping.yaml",
            GOOD.replace("a.example, .b.example", "GET https://b.example/, GET https://a.example/"), "not sorted",
            id="calls that are not sorted"),
        pytest.param(
            "llm-housekeeping.yaml", GOOD.replace("a.example, .b.example", "GET https://b.example/%00"),
            "no request with such a path", id="a call that nobody can make"),
        pytest.param("prices.yaml", PRICED, "", id="prices in order"),
        pytest.param("prices.yaml", PRICED.replace("2026-11-26", "2027-11-26"), "lies in the future", id="to come"),
        pytest.param("prices.yaml", PRICED.replace("    source: somebody who knows\n", ""), 'needs "source:"',
                     id="prices without a source"),
        pytest.param("prices.yaml", PRICED.replace("cached: 0.2", "cached: 20"), "is dearer than input", id="a slip"),
        pytest.param("prices.yaml", PRICED.replace("written: 4", "written: 1"), "is cheaper", id="another slip"),
        pytest.param("prices.yaml", PRICED.replace("output: 8", "output: 1"), "output is cheaper", id="turned round"),
        pytest.param("prices.yaml", PRICED.replace("4k", "80k"), "longer than the context", id="an answer too long"),
        pytest.param("prices.yaml", PRICED.replace("m-2*", "m"), "", id="one name twice in one item"),
    ],
)
def test_a_table_that_is_not_in_order_is_found(name, text, said, tmp_path: Path):
    path = tmp_path / name
    path.write_text(text)

    found = list(table_problems(path, date(2026, 11, 26)))

    assert (found == []) if not said else any(said in problem for problem in found), found
