"""`audit show` tells a lease as a sentence, and what is none of this version's as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from addons.audit_text import Vault, as_text
from kernel import entry

TEAM, OWN, TURNS = ("team", "usd", ""), ("team", "requests", "coder-1"), ("slow", "rate", "")


def shown(body):
    whole = entry.common("lease", 7, "0" * 64, "2026-01-02T03:04:05.000006Z", 0, "w0") | body
    return as_text(whole, Vault(Path("/nonexistent")), coloured=False).removeprefix(
        "2026-01-02T03:04:05.000006Z  w0/7         lease       ")


@pytest.mark.parametrize(("body", "said"), [
    (entry.lease("granted", "p", 3, TEAM, 81920, 2_500_000, 500),
     "lease 3: 2.5 USD of team granted; others have 0.0005 USD"),
    (entry.lease("granted", "p", None, TURNS, 0, 1, 0), "1 turn of slow granted, which never go back"),
    (entry.lease("settled", "p", 3, OWN, 81920, 60, 128), "lease 3 of team for coder-1 is over: 60 requests went back"),
    (entry.lease("lost", "p", 3, OWN, 81920, 0, 0),
     "lease 3 of team for coder-1 counts as spent: the ledger heard nothing of this process"),
    (entry.lease("refused", "p", None, OWN, 81920, 0, 1000),
     "nothing of team for coder-1 granted; others have 1,000 requests"),
])
def test_a_lease_is_told_in_words(body, said):
    assert shown(body) == said


@pytest.mark.parametrize("changed", [
    {"act": "lent"}, {"act": "granted", "lease": "3"}, {"act": "settled", "lease": None}, {"unit": "apples"},
    {"amount": "2"}, {"elsewhere": None}, {"budget": None}, {"unit": ["usd"]}, {"act": None}, {"lease": []},
])
def test_what_no_version_writes_is_told_as_it_stands(changed):
    body = entry.lease("granted", "p", 3, TEAM, 81920, 2, 5) | {"act": "refused"} | changed

    said = shown(body)
    assert "pool=p" in said
    assert "window=81920" in said


def test_what_an_agent_chose_does_not_move_the_cursor():
    assert "\x1b" not in shown(entry.lease("granted", "p", 3, ("team", "usd", "\x1b[2J"), 4, 2, 5))
