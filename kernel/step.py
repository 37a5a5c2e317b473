"""The step of the kernel: from what the rules say of a request to what is done, with what it takes of each account.

Pure, total and in integers: it reads a state and makes a decision. What the decision changes in the state is said by
kernel/transition.py, from the decision's entry alone. Nothing an agent says of itself is looked at.

From the most severe to the mildest: all agents that are halted, one that is or shares the address of one, a refusal of
the rules, a quarantine, a clock that jumped, a request that was repeated too often, a budget, a rate. A refusal takes
nothing but points of risk and a turn of whoever tries the same again.

Where a ledger keeps the budgets of several processes, what was leased to this one bounds it in their place; a step that
lacks a lease says what it wants, and decides for good once that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.arithmetic import arrival, drawn, early, larger, plausible, remaining, smaller
from kernel.bounds import COUNTER, Bound, Bounded, Pace, Repeats, slowed
from kernel.budget import SPENT, Effect, Unit
from kernel.contagion import Prevention
from kernel.drawing import account_at, draw_of, earned, leased_at, most_of, used_up
from kernel.facts import UPGRADES
from kernel.state import RATE, AccountKey, Draw, Leased, Run, Standing, State, turns_key
from kernel.verdict import Action, Code, Verdict
from kernel.vocabulary import READS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kernel.llm.spend import Spend

REFUSALS = "refusals"
REPEATS = "repeats"
MOST_REQUESTS = 256
"""Of how many different requests of an agent it is remembered how often they were repeated."""
LATEST_US = 7_258_118_400_000_000
"""2200-01-01. A later time is a wrong clock's: what a rate makes of it does not fit into an entry of the log."""
CHUNK_BYTES = 2**20
"""What an answer may bring before more is drawn for it."""
CHUNK_SECONDS = 60
"""How long a flow may last before more is drawn for it."""

# What an agent asked for in vain: its own doing. A fault of Governor's or of an origin is nobody's here, nor is an
# inside address (PRIVATE_ADDRESS): whoever owns a name can let it point there and have its visitors counted out.
_COUNTED = frozenset({
    Code.RULE_DENY, Code.DEFAULT_DENY, Code.NEVER, Code.OUT_OF_HOURS, Code.URL_TOO_LONG, Code.BODY_TOO_LARGE,
    Code.UPGRADE_REFUSED, Code.METHOD_OVERRIDE, Code.NON_CANONICAL, Code.DESTINATION_MISMATCH,
})
_BROKEN = Verdict(Action.DENY, Code.CONTRACT_VIOLATION, None, "a contract of the kernel is broken; nothing passes")
READS_ONLY = Verdict(Action.DENY, Code.QUARANTINED, None, "the agent is quarantined: it may only read for now")
ALL_HALTED = Verdict(Action.HALT, Code.AGENT_HALTED, None, "all agents are halted")
# Of no item of the policy by its name: as a counter's rate it refuses under no rule.
_SPREAD = slowed(f"cascade{COUNTER}", None, each=True)
_CLOCK = Verdict(Action.DENY, Code.CLOCK_JUMP, None, "the clock jumped; an operator must accept it")


class Asked(NamedTuple):
    """A request as the kernel sees it. `verdict` is what the rules say.

    `place` is the destination as the log shows it, `request` names what is asked: the same again has the same name.
    Either is None where it is not known. `source` is the client's address, told where it gave no identity. `quiet`: a
    refusal that its rule expects. `final`: what lacks a lease is refused; else the step says what it wants. `spend` is
    what a call of a model may cost, None of what is no call or has no bound.
    """

    agent: str
    verdict: Verdict
    method: str = "GET"
    place: str | None = None
    request: str | None = None
    body_bytes: int = 0
    risk: int = 0
    throttles: tuple[Pace, ...] = ()
    source: str | None = None
    quiet: bool = False
    final: bool = True
    spend: Spend | None = None


class Want(NamedTuple):
    """What must be leased of an account first: `want` units if they are to be had, `least` of them or none.

    `limit` is the budget's. `item` is what a unit stands for where only different ones count. With `each_us` it is a
    rate: `limit` turns at once, and one more in that time.
    """

    key: AccountKey
    window: int
    limit: int
    least: int
    want: int
    item: str = ""
    each_us: int = 0


class Decided(NamedTuple):
    """A decision. `wait_us`: after how long a throttled request may be asked again.

    `left` is what remains of each unit of which a budget wants the agent to be told, the least where several do. With
    `wants` it is none yet. `output` is how many tokens each choice of a call may have.
    """

    verdict: Verdict
    draws: tuple[Draw, ...] = ()
    wait_us: int = 0
    left: Mapping[str, int] = {}
    wants: tuple[Want, ...] = ()
    output: int | None = None


def asked_method(method: str | None, scheme: str | None) -> str:
    """The method of a request as a quarantine takes it: a WebSocket, which carries what its client likes, has none."""
    return "" if method is None or scheme in UPGRADES else method


def step(state: State, bounded: Bounded, asked: Asked, now_us: int) -> Decided:
    """What is done with a request at a moment (microseconds since 1970)."""
    if state.broken:
        return Decided(_BROKEN)
    standing = state.agent(asked.agent)
    halted = halt_of(state, standing, asked)
    if halted is not None:
        return Decided(halted)
    if not asked.verdict.lets_through:
        return _refused(state, bounded, standing, asked, asked.verdict, now_us)
    stopped = _stopped(state, bounded, standing, asked, now_us)
    return _passing(state, bounded, standing, asked, now_us) if stopped is None else stopped


def halt_of(state: State, standing: Standing, asked: Asked) -> Verdict | None:
    """The refusal of an agent that is halted, as all may be, or that comes without an identity from where one came."""
    if state.switch.halt is not None:
        return ALL_HALTED
    halt = standing.halt
    if halt is not None:
        return Verdict(Action.HALT, Code.AGENT_HALTED, halt.rule, f"halted: {halt.reason}")
    if asked.source is not None and asked.source in state.closed_sources():
        return Verdict(Action.HALT, Code.AGENT_HALTED, None, "an agent that is halted came from this address")
    return None


def _refused(
    state: State, bounded: Bounded, standing: Standing, asked: Asked, verdict: Verdict, now_us: int
) -> Decided:
    """A refusal of the rules. It costs points where they say so, and counts against whoever asks the same again."""
    if asked.quiet or verdict.code not in _COUNTED or now_us > LATEST_US:
        return Decided(verdict)
    draws, over, wants = _risk(state, bounded, standing, asked, now_us)
    if over is not None or wants:
        return Decided(over or verdict, draws, wants=wants)
    repeats = bounded.refused
    if repeats is None or asked.request is None:
        return Decided(verdict, draws)
    known = standing.refused.get(asked.request)
    run = current(known, repeats, now_us) if known else _taken_over(standing.refused, repeats, now_us)
    if run.times >= _share(state, repeats) and repeats.then is not Effect.TELL:
        return Decided(_repeated(repeats, run), draws)
    strike = Draw(repeats.name, asked.agent, REFUSALS, run.since_us, 1 if known else run.times + 1)
    return Decided(verdict, (*draws, strike))


def _taken_over(refused: Mapping[str, Run], repeats: Repeats, now_us: int) -> Run:
    """The row of refusals that one more request begins.

    Where too many are remembered it goes on with the shortest of them (the algorithm "space saving"), so that requests
    which take turns are counted, too: more than a 256th of all refusals of a while is never forgotten.
    """
    if len(refused) < MOST_REQUESTS:
        return Run(now_us, 0)
    oldest = min(refused.values(), key=lambda run: run.since_us)
    if current(oldest, repeats, now_us) is not oldest:
        return Run(now_us, 0)
    return min(refused.values(), key=lambda run: run.times)


def _stopped(state: State, bounded: Bounded, standing: Standing, asked: Asked, now_us: int) -> Decided | None:
    """The refusal of what the rules let through, before anything is counted."""
    if standing.reads_only(now_us) and asked.method not in READS:
        return Decided(READS_ONLY)
    if (not state.clock_ok and (bounded.bounds or bounded.paces or asked.throttles)) or now_us > LATEST_US:
        return Decided(_CLOCK)
    if asked.request is None:
        return None
    for repeats, runs in ((bounded.refused, standing.refused), (bounded.repeated, standing.repeated)):
        if repeats is None or repeats.then not in (Effect.DENY, Effect.HALT):
            continue
        run = current(runs.get(asked.request), repeats, now_us)
        if run.times >= _share(state, repeats):
            return Decided(_repeated(repeats, run))
    return None


def _passing(state: State, bounded: Bounded, standing: Standing, asked: Asked, now_us: int) -> Decided:
    """A request that passes, unless an account or a rate is used up."""
    draws: list[Draw] = []
    left: dict[str, int] = {}
    asked, wants = _sized(state, bounded, standing, asked, now_us)
    paces = [*bounded.paces, *asked.throttles, *_slowed(state, bounded, standing, asked, now_us)]
    for bound in bounded.bounds:
        taken = _take(state, bound, standing, asked, now_us)
        if isinstance(taken, Verdict):
            return Decided(taken)
        if isinstance(taken, Want):
            wants.append(taken)
        elif taken is not None:
            draws += taken.draws
            paces += taken.paces
            if taken.left is not None:
                left[bound.unit] = min(taken.left, left.get(bound.unit, taken.left))
    paced = _turns(state, paces, asked) if state.pooled else _paced(state, paces, asked.agent, now_us)
    if isinstance(paced, Decided) and not paced.wants:
        return paced
    points, over, risky = _risk(state, bounded, standing, asked, now_us)
    if over is not None:
        return Decided(over, points)
    if isinstance(paced, Decided) or wants or risky:
        return Decided(asked.verdict, wants=(*wants, *(paced.wants if isinstance(paced, Decided) else ()), *risky))
    return Decided(asked.verdict, (*draws, *paced, *points, *_begun(bounded, standing, asked, now_us)), left=left,
                   output=None if asked.spend is None else asked.spend.most)


def _sized(state: State, bounded: Bounded, standing: Standing, asked: Asked, now_us: int) -> tuple[Asked, list[Want]]:
    """A call with the largest answer that every account of money and tokens pays: the least over all of them.

    Where more can be leased that is wanted first, and the call draws on no such account until then.
    """
    if asked.spend is None:
        return asked, []
    wants, size = [], asked.spend.most
    for bound in bounded.bounds:
        if bound.unit in SPENT:
            account = account_at(state, bound, standing, asked.agent, now_us)
            leased = leased_at(state, bound, asked.agent, account.window)
            left = remaining(most_of(bound, leased), account.spent, account.held)
            paid = asked.spend.paid(bound.unit, left)
            if leased is not None and not asked.final and paid != asked.spend.most and _has_more(bound, leased):
                least, most = (asked.spend.amount(bound.unit, each) for each in (asked.spend.least, asked.spend.most))
                wants.append(Want(bound.key(asked.agent), account.window, bound.most()[0], least, most))
            size = smaller(size, asked.spend.least if paid is None else paid)
    return asked._replace(spend=None if wants else asked.spend._replace(most=size)), wants


def _has_more(bound: Bound, leased: Leased) -> bool:
    """True where the ledger may still lease some of a budget."""
    return leased.elsewhere + leased.amount < bound.most()[0]


def more(
    state: State, bounded: Bounded, agent: str, unit: Unit, wanted: int, now_us: int
) -> tuple[Draw, ...] | Verdict:
    """What a flow that goes on draws of each account of a unit: as much of all of them as the least one still gives.

    A verdict where that is nothing.
    """
    standing, draws, granted = state.agent(agent), [], wanted
    for bound in bounded.bounds:
        if bound.unit is unit:
            window, spent, held, *_ = account_at(state, bound, standing, agent, now_us)
            leased = leased_at(state, bound, agent, window)
            granted = drawn(most_of(bound, leased), spent, held, 1, granted)
            if not granted:
                return used_up(bound, earned(state, bound, standing, agent, window, leased, 1))
            draws.append(draw_of(bound, agent, window, 0, leased))
    return tuple(draw._replace(amount=granted) for draw in draws)


def wanted_more(
    state: State, bounded: Bounded, agent: str, unit: Unit, wanted: int, now_us: int
) -> tuple[Want, ...]:
    """What must be leased for a flow that goes on."""
    standing, wants = state.agent(agent), []
    for bound in bounded.bounds:
        if bound.unit is unit:
            window, spent, held, *_ = account_at(state, bound, standing, agent, now_us)
            if not drawn(most_of(bound, leased_at(state, bound, agent, window)), spent, held, 1, wanted):
                wants.append(Want(bound.key(agent), window, bound.most()[0], 1, wanted))
    return tuple(wants)


class _Taken(NamedTuple):
    """What a request takes of an account, how it is slowed for it, and what its agent is told to be left."""

    draws: tuple[Draw, ...]
    paces: tuple[Pace, ...]
    left: int | None


def _take(
    state: State, bound: Bound, standing: Standing, asked: Asked, now_us: int
) -> _Taken | Want | Verdict | None:
    """None where the request takes nothing of the account, a verdict where it is used up."""
    unit = bound.unit
    if unit is Unit.RISK and not asked.risk:
        return None
    window, spent, held, places, _ = account_at(state, bound, standing, asked.agent, now_us)
    least, wanted = _wanted(unit, asked, places)
    if not wanted:
        return None
    most, effect = bound.most()
    leased = leased_at(state, bound, asked.agent, window)
    amount = drawn(most_of(bound, leased), spent, held, least, wanted)
    if leased is not None and not amount and not asked.final and unit is not Unit.RISK:
        item = asked.place if unit is Unit.NEW_HOSTS else None
        return Want(bound.key(asked.agent), window, most, least, wanted, item or "")
    if not amount and effect is not Effect.TELL and unit is not Unit.RISK:
        if unit in SPENT and drawn(most_of(bound, leased), spent, 0, least, wanted):
            # What is only held comes back, most of it: nobody is halted for that.
            return used_up(bound, Effect.DENY)
        return used_up(bound, earned(state, bound, standing, asked.agent, window, leased, least))
    draws: tuple[Draw, ...] = ()
    if amount and unit is not Unit.RISK:
        draws = (draw_of(bound, asked.agent, window, amount, leased),)
    elsewhere = 0 if leased is None else leased.elsewhere
    used = (elsewhere + spent + held + amount) * 100
    if not bound.when_used or used < bound.limit * bound.when_used[0].percent:
        return _Taken(draws, (), None)
    reached = [each for each in bound.when_used if used >= bound.limit * each.percent]
    slow = (each for each in reached if each.effect is Effect.THROTTLE)
    told = any(each.effect is Effect.TELL for each in reached)
    return _Taken(
        draws,
        tuple(slowed(f"{bound.budget} {each.percent}%", each, each=bound.each) for each in slow),
        remaining(bound.limit, elsewhere + spent, held + amount) if told else None,
    )


def _paced(state: State, paces: Iterable[Pace], agent: str, now_us: int) -> list[Draw] | Decided:
    """The turns that a request takes, one of each rate, or the refusal of one that comes too early."""
    draws = []
    for pace in dict.fromkeys(paces):
        key = pace.key(agent)
        due = plausible(state.paces.get(key, 0), now_us, pace.each_us, pace.burst)
        wait = early(due, now_us, pace.each_us, pace.burst)
        if wait:
            verdict = Verdict(Action.THROTTLE, Code.RATE_LIMITED, _rule_of(pace), "above the agreed rate")
            return Decided(verdict, wait_us=wait)
        draws.append(Draw(pace.name, agent if pace.each else None, RATE, arrival(due, now_us, pace.each_us), 1))
    return draws


def _turns(state: State, paces: Iterable[Pace], asked: Asked) -> list[Draw] | Decided:
    """The same where turns are leased: one of those in hand of each rate."""
    draws, wants = [], []
    for pace in dict.fromkeys(paces):
        key = turns_key(pace.key(asked.agent))
        leased = state.lease(key, 0)
        if state.account(key).spent < leased.amount:
            draws.append(Draw(pace.name, asked.agent if pace.each else None, RATE, 0, 1, leased.lease))
        elif asked.final:
            return Decided(Verdict(Action.THROTTLE, Code.RATE_LIMITED, _rule_of(pace), "above the agreed rate"))
        else:
            wants.append(Want(key, 0, pace.burst, 1, 1, each_us=pace.each_us))
    return Decided(asked.verdict, wants=tuple(wants)) if wants else draws


def _begun(bounded: Bounded, standing: Standing, asked: Asked, now_us: int) -> tuple[Draw, ...]:
    """The mark of a request whose outcome will be counted."""
    if bounded.repeated is None or asked.request is None:
        return ()
    run = current(standing.repeated.get(asked.request), bounded.repeated, now_us)
    return (Draw(bounded.repeated.name, asked.agent, REPEATS, run.since_us, 0),)


def _wanted(unit: Unit, asked: Asked, known: frozenset[str]) -> tuple[int, int]:
    """How much a request takes of an account: what it cannot do without, and what it would like."""
    match unit:
        case Unit.REQUESTS:
            return 1, 1
        case Unit.NEW_HOSTS:
            new = int(asked.place is not None and asked.place not in known)
            return new, new
        case Unit.BYTES:
            spend = asked.spend
            body_bytes = asked.body_bytes if spend is None else larger(asked.body_bytes, spend.body_bytes)
            return body_bytes + 1, body_bytes + CHUNK_BYTES
        case Unit.SECONDS:
            return 1, CHUNK_SECONDS
        case Unit.RISK:
            # Points are drawn by `_risk`, of a refusal as of what passes.
            return 0, asked.risk
        case Unit.USD | Unit.TOKENS if asked.spend is not None:
            amount = asked.spend.amount(unit, asked.spend.most)
            return amount, amount
    return 0, 0


def _risk(
    state: State, bounded: Bounded, standing: Standing, asked: Asked, now_us: int
) -> tuple[tuple[Draw, ...], Verdict | None, tuple[Want, ...]]:
    """The points that a request costs, what follows where they are too many, and what must be leased for them."""
    draws, verdict, wants = [], None, []
    for bound in bounded.bounds if asked.risk else ():
        if bound.unit is not Unit.RISK:
            continue
        window, spent, *_ = account_at(state, bound, standing, asked.agent, now_us)
        most, effect = bound.most()
        leased = leased_at(state, bound, asked.agent, window)
        elsewhere = 0 if leased is None else leased.elsewhere
        points = drawn(most_of(bound, leased), spent, 0, 0, asked.risk)
        lacking = smaller(asked.risk, remaining(most, elsewhere + spent, 0)) - points
        if leased is not None and lacking > 0 and not asked.final:
            wants.append(Want(bound.key(asked.agent), window, most, lacking, lacking))
        if points:
            draws.append(draw_of(bound, asked.agent, window, points, leased))
        if elsewhere + spent + asked.risk >= most and verdict is None and effect is not Effect.TELL:
            verdict = used_up(bound, effect)
    if wants and verdict is None:
        return (), None, tuple(wants)
    return tuple(draws), verdict, ()


def _slowed(state: State, bounded: Bounded, standing: Standing, asked: Asked, now_us: int) -> list[Pace]:
    """The rates of whoever is slowed down: because another was halted, or because it repeats itself."""
    found = [_SPREAD] if standing.prevented(Prevention.THROTTLE, now_us) else []
    for repeats, runs in ((bounded.refused, standing.refused), (bounded.repeated, standing.repeated)):
        if repeats is None or repeats.then is not Effect.THROTTLE or asked.request is None:
            continue
        if current(runs.get(asked.request), repeats, now_us).times >= _share(state, repeats):
            found.append(slowed(repeats.name + COUNTER, None, each=True))
    return found


def _share(state: State, repeats: Repeats) -> int:
    """How often a request may be repeated in this process: together the workers of a home let no more than that."""
    return max(1, repeats.limit // state.workers)


def current(run: Run | None, repeats: Repeats, now_us: int) -> Run:
    """The run that a moment belongs to: the one there is, or a new one once its while is over."""
    if run is None or not 0 <= now_us - run.since_us < repeats.within_us:
        return Run(now_us, 0)
    return run


def _repeated(repeats: Repeats, run: Run) -> Verdict:
    """What follows when one request was repeated too often."""
    action = Action.HALT if repeats.then is Effect.HALT else Action.DENY
    what = "was refused" if repeats.reason is Code.PERSISTENCE_LIMIT else "had the same outcome"
    return Verdict(action, repeats.reason, None, f"the same request {what} {run.times} times")


def _rule_of(pace: Pace) -> str | None:
    """The item of the policy that a rate comes from: a budget's threshold is its budget's, and a counter's is none."""
    return None if COUNTER in pace.name else pace.name.partition(" ")[0]
