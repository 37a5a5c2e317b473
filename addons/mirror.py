"""`governor.internal`: where an agent asks what it may do. Governor itself answers; nothing of it is resolved or sent.

An agent sees its own standing, one verdict at a time, and its own last refusals. It never sees a rule's text or
anything of another agent, and no path or query is kept.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from mitmproxy import http

from addons.governed import Governed
from addons.media_types import prefers_json
from addons.refusal import Refused
from kernel.comparison import UNREAD
from kernel.decide import name_stage
from kernel.errors import NonCanonical
from kernel.facts import OWN_NAME, Host, RequestFacts
from kernel.pattern import ANONYMOUS
from kernel.question import answer, facts_of
from kernel.standings import Own
from kernel.transition import written
from kernel.verdict import Action, Code, Verdict

REMEMBERED_REFUSALS = 20
REMEMBERED_AGENTS = 1_000

_HELP = f"""\
Governor is the network policy here. This name is answered by Governor itself and leads nowhere else.

GET http://{OWN_NAME}/me                         who you are, your mode and budgets, whether you are halted
GET http://{OWN_NAME}/may?method=GET&url=URL     would this request pass? nothing is sent or resolved
GET http://{OWN_NAME}/refusals                   your last {REMEMBERED_REFUSALS} refusals

A refusal is deliberate: another method, mirror, proxy setting or retry is refused too.
"""
_MAY_USAGE = "ask /may?method=GET&url=https://example.org/ with one method and one url in percent-encoding"
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
ITSELF = Verdict(Action.ALLOW, Code.ALLOW, reason="Governor itself answers")
"""The verdict on a request for the reserved name: it passes to Governor and no further."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    entry: str
    time: str
    method: str
    host: str
    code: str
    rule: str | None


class Mirror:
    """Answers for one process. `clock` gives wall time in seconds, `own` how an agent stands."""

    def __init__(self, governed: Callable[[], Governed], clock: Callable[[], float],
                 own: Callable[[str], Own]) -> None:
        self._governed, self._clock, self._own = governed, clock, own
        self._refusals: OrderedDict[str, deque[_Refusal]] = OrderedDict()

    @staticmethod
    def is_own(host: Host) -> bool:
        """True for the reserved name, at whatever port."""
        return host.name == OWN_NAME

    def note_refusal(self, refused: Refused) -> None:
        """Remember a refusal that stands in the log for the agent it was told to."""
        # Clients without an identity of their own share one name, and must not see what the others asked for.
        if refused.entry is None or refused.agent is None or refused.agent == ANONYMOUS:
            return
        time = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        own = self._refusals.setdefault(refused.agent, deque(maxlen=REMEMBERED_REFUSALS))
        own.appendleft(_Refusal(
            refused.entry, time, refused.method, refused.target, str(refused.verdict.code), refused.verdict.rule))
        self._refusals.move_to_end(refused.agent)
        if len(self._refusals) > REMEMBERED_AGENTS:
            self._refusals.popitem(last=False)

    def answer(self, facts: RequestFacts, accept: str = "") -> http.Response:
        """The answer to a request for the reserved name, by the agent of these facts."""
        response = self._answer(facts, accept)
        if facts.method == "HEAD":
            response.content = b""
        return response

    def _answer(self, facts: RequestFacts, accept: str) -> http.Response:
        if facts.method not in ("GET", "HEAD"):
            refused = _told({"error": "this is read-only: use GET"}, 405)
            refused.headers["allow"] = "GET, HEAD"
            return refused
        match facts.path.text:
            case "/":
                return _told({"help": _HELP}) if prefers_json(accept) else _response(200, "text/plain", _HELP)
            case "/me":
                return _told(self._me(facts))
            case "/may":
                return self._may(facts)
            case "/refusals":
                return _told({"refusals": self._own_refusals(facts)})
            case _:
                return _told({"error": f"there are /, /me, /may and /refusals at {OWN_NAME}"}, 404)

    def _me(self, facts: RequestFacts) -> dict[str, Any]:
        governed, own = self._governed(), self._own(facts.agent.id)
        left = [{"budget": each.budget, "unit": each.unit, "limit": each.limit, "remaining": each.remaining}
                for each in own.budgets]
        return {"agent": facts.agent.id, "by": facts.agent.by, "mode": governed.mode(facts.at), "budgets": left,
                "halted": own.reason is not None, "reason": own.reason,
                "quarantined_until": None if own.until_us is None else written(own.until_us),
                "throttled_until": None if own.slowed_until_us is None else written(own.slowed_until_us),
                "contact": governed.policy.contact}

    def _own_refusals(self, facts: RequestFacts) -> list[dict[str, Any]]:
        return [{"entry": each.entry, "time": each.time, "method": each.method, "host": each.host, "code": each.code,
                 "rule": each.rule} for each in self._refusals.get(facts.agent.id, ())]

    def _may(self, facts: RequestFacts) -> http.Response:
        asked = _question(facts.query)
        if asked is None:
            return _told({"error": _MAY_USAGE}, 400)
        method, url = asked
        governed = self._governed()
        try:
            question = facts_of(facts.agent.id, method, url, headers=UNREAD, body=UNREAD, at=facts.at)
        except NonCanonical as error:
            verdict = Verdict(Action.DENY, error.code, reason=error.problem)
            return _told(_verdict(verdict, method, "", governed.policy.contact))
        if self.is_own(question.host):
            return _told(_verdict(ITSELF, method, OWN_NAME, None))
        verdict = answer(governed.index, question).verdict
        assumed = []
        if question.host.address is None and name_stage(governed.index, question) is None:
            assumed.append("the name has a public address")
        if governed.index.needs_fields and verdict.lets_through:
            assumed.append("headers and body are as the rules want them")
        return _told(_verdict(verdict, method, question.host.name, governed.policy.contact, " and ".join(assumed)))


def _question(query: str) -> tuple[str, str] | None:
    """Method and URL of a /may; None where they are not asked for once each, the method as a plain word."""
    try:
        # A plus is itself here, since a URL has no space that could be meant by it.
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, errors="surrogateescape", max_num_fields=2)
    except ValueError:
        return None
    asked = dict(pairs)
    if len(asked) != len(pairs) or not asked.keys() <= {"method", "url"} or not asked.get("url"):
        return None
    method = asked.get("method", "GET").upper()
    return (method, asked["url"]) if _METHOD.fullmatch(method) else None


def _verdict(verdict: Verdict, method: str, host: str, contact: str | None, assumed: str = "") -> dict[str, Any]:
    """What a refusal would tell, no more: where a request passes, no rule is named."""
    told: dict[str, Any] = {"verdict": verdict.action, "code": verdict.code, "rule": None, "detail": None,
                            "next_step": None, "assumed": assumed or None}
    if not verdict.lets_through:
        refused = Refused(verdict, method, host, None, None, None, contact)
        told |= {"rule": verdict.rule, "detail": refused.detail, "next_step": refused.next_step}
    return told


def _told(value: dict[str, Any], status: int = 200) -> http.Response:
    return _response(status, "application/json", json.dumps(value, separators=(",", ":")))


def _response(status: int, content_type: str, text: str) -> http.Response:
    return http.Response.make(status, text.encode(), {"content-type": content_type, "cache-control": "no-store"})
