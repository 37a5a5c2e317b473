"""`cascade`, from text to values."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kernel.choices import choice
from kernel.contagion import USUAL_HOPS, USUAL_PERCENT, USUAL_SECONDS, Breaker, Cascade, OnHalt, Prevention
from kernel.document import Keys, Node, Reader, Scalar, did_you_mean, quote
from kernel.errors import PatternError
from kernel.pattern import agent_pattern, agents_of_both
from kernel.policy import AgentPattern
from kernel.quantity import count, duration, percentage

CASCADE = Keys("cascade", now=frozenset({"depends", "on-halt", "blast-radius", "circuit-breaker"}))
ON_HALT = Keys("on-halt", now=frozenset({"reasons", "do", "hops", "for"}), required=("reasons", "do"))
BREAKER = Keys("circuit-breaker", now=frozenset({"halts", "within", "do"}), required=("halts", "within", "do"))

CONTAGIOUS = frozenset({"OVERRISK", "EXPLORATION_DRIFT"})
OTHER_REASONS = frozenset({
    "EXHAUSTION", "PERSISTENCE_LIMIT", "STAGNATION", "EXTERNAL", "OPERATOR", "CASCADE", "CONTRACT_VIOLATION",
})
DO = frozenset(each.value for each in Prevention)
# A whole group is halted by people alone.
BREAKER_DO = DO - {Prevention.HALT}
_MOST_HOPS = 16


class CascadeReader:
    """Reads the `cascade:` section. `groups` are those of the policy; only agents that the file `binds` are meant."""

    def __init__(
        self, reader: Reader, groups: Mapping[str, tuple[AgentPattern, ...]], binds: tuple[AgentPattern, ...] | None
    ) -> None:
        self._reader, self._groups, self._binds = reader, groups, binds
        self._members: dict[str, tuple[AgentPattern, ...]] = {}

    def cascade(self, node: Node | None) -> Cascade | None:
        found = None if node is None else self._reader.mapping(node, CASCADE)
        if node is None or found is None:
            return None
        percent = self._reader.value(found, "blast-radius", "E223", _share)
        breaker = self._breaker(found["circuit-breaker"]) if "circuit-breaker" in found else None
        return Cascade(
            self._reader.at(node),
            self._depends(found.get("depends")),
            self._members,
            {name: self._bound(node, patterns) for name, patterns in self._groups.items()} if breaker else {},
            self._on_halt(found["on-halt"]) if "on-halt" in found else None,
            breaker,
            USUAL_PERCENT if percent is None else percent,
        )

    def _depends(self, node: Node | None) -> dict[str, tuple[str, ...]]:
        entries = [] if node is None else self._reader.entries(node, "depends")
        depends: dict[str, tuple[str, ...]] = {}
        for key, each in entries:
            needed = [word.text for word in self._reader.words(each, key.text) if self._knows(word)]
            if self._knows(key):
                depends[key.text] = tuple(dict.fromkeys(needed))
        return depends

    def _knows(self, word: Scalar) -> bool:
        """True when the word is a group, or an agent id of one of the groups."""
        if word.text in self._groups:
            self._members[word.text] = self._bound(word, self._groups[word.text])
            return True
        ids = {pattern.text for group in self._groups.values() for pattern in group if "*" not in pattern.text}
        if word.text not in ids:
            message = f"{quote(word.text)} is no group and no agent of a group"
            hint = did_you_mean(word.text, self._groups.keys() | ids) or "make it a group in agents:"
            self._reader.error("E229", word, message, hint)
            return False
        self._members[word.text] = self._bound(word, (agent_pattern(word.text),))
        return True

    def _bound(self, node: Node, patterns: tuple[AgentPattern, ...]) -> tuple[AgentPattern, ...]:
        """Those of the agents that the file binds."""
        try:
            return agents_of_both(patterns, self._binds) or ()
        except PatternError as refused:
            self._reader.error("E205", node, refused.problem, refused.hint)
            return ()

    def _on_halt(self, node: Node) -> OnHalt | None:
        found = self._reader.mapping(node, ON_HALT)
        if found is None or not found.keys() >= {"reasons", "do"}:
            return None
        words = self._reader.words(found["reasons"], "reasons")
        reasons = [self._reader.parsed("E226", word, _reason) for word in words]
        do = self._do(found, DO)
        if do is Prevention.HALT and "for" in found:
            message = '"for:" means nothing beside do: halt'
            self._reader.error("E112", found["for"], message, "a halt ends only when an operator releases the agent")
        hops = self._reader.value(found, "hops", "E221", _hops) or USUAL_HOPS
        seconds = self._reader.value(found, "for", "E222", duration) or USUAL_SECONDS
        known = frozenset(reason for reason in reasons if reason is not None)
        return None if do is None else OnHalt(known, do, hops, seconds)

    def _breaker(self, node: Node) -> Breaker | None:
        found = self._reader.mapping(node, BREAKER) or {}
        halts = self._reader.value(found, "halts", "E221", count)
        within = self._reader.value(found, "within", "E222", duration)
        do = self._do(found, BREAKER_DO)
        return None if halts is None or within is None or do is None else Breaker(halts, within, do)

    def _do(self, found: Mapping[str, Node], options: Collection[str]) -> Prevention | None:
        do = choice(self._reader, found, "do", "E225", options)
        if do == Prevention.ASK and not self._reader.ahead:
            message = '"do: ask" belongs to the language, but this version can ask nobody'
            self._reader.error("E180", found["do"], message, "write throttle or quarantine; --ahead reads it")
        return None if do is None else Prevention(do)


def _reason(text: str) -> str:
    if text in CONTAGIOUS:
        return text
    if text in OTHER_REASONS:
        problem = f"{text} never spreads: it says nothing about the neighbours"
        raise PatternError(problem, f"only {' and '.join(sorted(CONTAGIOUS))} do")
    hint = did_you_mean(text, CONTAGIOUS | OTHER_REASONS) or " or ".join(sorted(CONTAGIOUS))
    raise PatternError(f"{quote(text)} is no reason of a halt", hint)


def _share(text: str) -> int:
    found = percentage(text)
    if found > 100:
        raise PatternError(f"{quote(text)} is more than all agents", "write 10%")
    return found


def _hops(text: str) -> int:
    found = count(text)
    if found > _MOST_HOPS:
        raise PatternError(f"{quote(text)} hops reach everybody", f"write a number from 1 to {_MOST_HOPS}")
    return found
