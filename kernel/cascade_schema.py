"""`cascade` in the JSON Schema of the language."""

from __future__ import annotations

from kernel.cascade_section import BREAKER, BREAKER_DO, CASCADE, CONTAGIOUS, DO, ON_HALT
from kernel.forms import COUNT, DURATION, Described, Schema, mapping, names, one_of, ref, text, words

KEYS: dict[str, Described] = {
    "cascade": (ref("cascade"), "What the halt of one agent means for its neighbours."),
}
"""Of each such key of a policy its form and what it is for."""

_ASK = "ask has no effect yet."
_CASCADE: dict[str, Described] = {
    "depends": (names(words(text())), "Whom each group or agent needs: when those halt, it is acted upon."),
    "on-halt": (ref("on-halt"), "What a halt does to those that need the agent."),
    "blast-radius": (text("^(0*[1-9][0-9]?|0*100)%$"),
                     "How many of its active agents a process may hold back; others are slowed down. Without it: 10%."),
    "circuit-breaker": (ref("circuit-breaker"), "What several halts of one group in a short time lead to."),
}
_ON_HALT: dict[str, Described] = {
    "reasons": (words(one_of(CONTAGIOUS)), "Which reasons spread."),
    "do": (one_of(DO), f"What is done. {_ASK}"),
    "hops": (text("^0*([1-9]|1[0-6])$"), "How many steps along depends it goes: from 1 to 16. Without it: 1."),
    "for": (DURATION, "How long it lasts. Without it: 10m."),
}
_BREAKER: dict[str, Described] = {
    "halts": (COUNT, "How many halts."),
    "within": (DURATION, "In how long: 5m."),
    "do": (one_of(BREAKER_DO), f"What is done to the others of the group. {_ASK}"),
}

DEFINITIONS: dict[str, Schema] = {
    "cascade": mapping(CASCADE, _CASCADE),
    "on-halt": mapping(ON_HALT, _ON_HALT),
    "circuit-breaker": mapping(BREAKER, _BREAKER),
}
