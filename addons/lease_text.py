"""What a ledger said of a budget, in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from kernel.budget import Unit
from kernel.state import RATE
from kernel.transition import GRANTED, LOST_LEASE, REFUSED, SETTLED
from kernel.words import amount_in_words


def lease_text(entry: Mapping[str, Any]) -> str | None:
    """An entry of a lease as a sentence; None where it is another than this version writes."""
    match entry:
        case {"act": str(act), "lease": lease, "budget": str(budget), "unit": str(unit), "for": agent,
              "amount": int(amount), "elsewhere": int(elsewhere)} if unit in {*Unit, RATE}:
            whose = f"{budget} for {agent}" if agent else budget
            return _said(act, lease, whose, _amount(unit, amount), _amount(unit, elsewhere))
    return None


def _said(act: str, lease: object, whose: str, amount: str, elsewhere: str) -> str | None:
    said = {
        (GRANTED, int): f"lease {lease}: {amount} of {whose} granted; others have {elsewhere}",
        (GRANTED, NoneType): f"{amount} of {whose} granted, which never go back",
        (SETTLED, int): f"lease {lease} of {whose} is over: {amount} went back",
        (LOST_LEASE, int): f"lease {lease} of {whose} counts as spent: the ledger heard nothing of this process",
        (REFUSED, NoneType): f"nothing of {whose} granted; others have {elsewhere}",
    }
    return said.get((act, type(lease)))


def _amount(unit: str, amount: int) -> str:
    if unit == RATE:
        return f"{amount:,} turn{'' if amount == 1 else 's'}"
    return amount_in_words(Unit(unit), amount)
