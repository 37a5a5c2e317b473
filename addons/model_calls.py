"""Calls of models on their way: read before the verdict, refused where nothing bounds them, changed as they leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from addons.request_fields import readable
from kernel.budget import SPENT
from kernel.comparison import Gap
from kernel.facts import UPGRADES
from kernel.fields import Fields, like
from kernel.llm import recorded
from kernel.llm.change import with_members
from kernel.llm.endpoints import endpoint, is_free, provider_of
from kernel.llm.request import MOST_CALL_BYTES, read_call
from kernel.llm.spend import NO_THINKING, Spend, caps, spend_of, written_cap
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy import http

    from addons.governed import Governed
    from kernel.entry import Body
    from kernel.facts import RequestFacts
    from kernel.fields import Headers
    from kernel.llm.request import Call, Place
    from kernel.measures import Measures
    from kernel.prices import Price
    from kernel.verdict import Judgement

# Headers that tell a digest of the body, or a signature over one: a changed body would be refused by its origin.
_COVERING = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest", b"x-amz-content-sha256"})
_UNPRICED = Verdict(Action.DENY, Code.PROTOCOL_REFUSED, reason="nothing bounds what a request to this endpoint costs")
_OVERRIDDEN = Verdict(Action.DENY, Code.METHOD_OVERRIDE,
                      reason="the provider may be asked to read another call than the one whose cost is bounded")


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A call of a model as it was read, what it may cost, and what was changed in it.

    `spend` is None where it has no bound, for the reason `unbounded`; `price` where its model's is not known.
    `covered`: a header tells a digest of its body. `cap` is the largest answer that the policy allows.
    """

    provider: str
    call: Call | Gap
    price: Price | None = None
    covered: bool = False
    cap: int | None = None
    spend: Spend | None = None
    unbounded: str | None = None
    max_output: int | None = None
    changed: tuple[str, ...] = ()

    @property
    def model(self) -> str | Gap:
        return self.call if isinstance(self.call, Gap) else self.call.model

    def told(self) -> Body:
        """`llm` of the decision."""
        model = None if isinstance(self.call, Gap) else self.call.model
        return recorded.call(self.provider, model, self.unbounded, self.spend, self.max_output, self.changed)


def read(governed: Governed, facts: RequestFacts, headers: Headers,
         content: Callable[[], bytes | Gap | None]) -> ModelCall | None:
    """The call of a model that a request makes; None where it makes none. `content` is its body as it is sent."""
    asked = endpoint(facts.method, facts.path.segments)
    if asked is None or not (governed.model_rules or facts.host.name in governed.llm_hosts):
        return None
    provider, body = provider_of(facts.host.name), content()
    plain = body if isinstance(body, Gap) else readable(body, headers, MOST_CALL_BYTES)
    call = read_call(asked, Fields("", headers, plain).json_body(), provider)
    price = None if isinstance(call, Gap) else governed.policy.prices.of(provider, call.model)
    covered = any(name.lower() in _COVERING for name, _ in headers)
    return ModelCall(provider, call, price, covered, unbounded=call.why if isinstance(call, Gap) else None)


def bounded(seen: ModelCall | None, measures: Measures) -> ModelCall | None:
    """The call with what it may cost under these measures."""
    if seen is None or isinstance(seen.call, Gap):
        return seen
    cap = None if measures.max_output_tokens is None else measures.max_output_tokens.most
    spend = spend_of(seen.call, seen.price, cap, measures.min_output_tokens)
    if isinstance(spend, str):
        return replace(seen, cap=cap, unbounded=spend)
    return replace(seen, cap=cap, spend=spend)


def refused(governed: Governed, facts: RequestFacts, judgement: Judgement, seen: ModelCall | None, *,
            overrides: bool) -> Verdict | None:
    """The refusal of what the rules let through and nothing bounds, where a budget or the policy asks for that.

    `overrides`: a header or a parameter may have the provider read another method or path.
    """
    models = facts.host.name in governed.llm_hosts or not governed.model_rules.isdisjoint(judgement.groups)
    counts = not governed.bounds.of(facts.agent.id).units.isdisjoint(SPENT)
    if not models or not (counts or (seen is not None and judgement.measures.max_output_tokens is not None)):
        return None
    if counts and overrides:
        return _OVERRIDDEN
    if seen is None:
        free = facts.scheme not in UPGRADES and is_free(facts.method, facts.path.segments)
        return None if free else _UNPRICED
    return _refused(seen, counts=counts)


def _refused(seen: ModelCall, *, counts: bool) -> Verdict | None:
    if isinstance(seen.call, Gap):
        return Verdict(Action.DENY, Code.UNDECODABLE, reason=f"its call of a model cannot be read: {seen.call.why}")
    if counts and seen.unbounded is not None:
        why = f"nothing bounds what it costs: {seen.unbounded}"
    elif seen.cap is not None and seen.cap < seen.call.thinks:
        why = NO_THINKING
    elif seen.covered:
        why = "a header tells a digest of its body, which may have to be changed"
    else:
        return None
    return Verdict(Action.DENY, Code.PROTOCOL_REFUSED, reason=why)


def sized(seen: ModelCall, output: int | None) -> ModelCall:
    """The call once it is decided how many tokens each choice may have; None where nothing decides that."""
    return replace(seen, max_output=output)


def change(request: http.Request, seen: ModelCall, *, counts: bool) -> ModelCall:
    """Set in the request what bounds it, where it is not there; the call says which members that are.

    `counts`: an account of money or tokens pays for it, so that its cap is what was granted and its stream must tell
    what it has used.
    """
    if isinstance(seen.call, Gap):
        return seen
    members, data = _members(seen, seen.call, counts=counts), request.data
    changed = [".".join(place) for place in members]
    plain = tuple(each for each in data.headers.fields if like(each[0]) != b"content-encoding")
    if len(plain) < len(data.headers.fields) and (counts or seen.cap is not None):
        # What was decoded is sent as it is: an origin that takes no coding off may find another call in the same bytes.
        data.headers.fields = plain
        changed.append("content-encoding")
    if not changed:
        return seen
    data.content = body = with_members(seen.call.body, members).encode()
    if "content-length" in data.headers:
        data.headers["content-length"] = str(len(body))
    return replace(seen, changed=tuple(changed))


def _members(seen: ModelCall, call: Call, *, counts: bool) -> dict[Place, int | bool]:
    granted, most = (seen.max_output, seen.spend.most) if counts and seen.spend is not None else (None, None)
    size = written_cap(call, seen.cap, granted, most)
    members: dict[Place, int | bool] = {} if size is None else dict(caps(call, size))
    return members | {call.tells: True} if counts and call.tells is not None else members
