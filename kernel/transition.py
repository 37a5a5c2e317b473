"""What an entry of the log does to the state. No policy is asked: a decision says itself what it draws.

The same entries in the same order make the same state, whoever reads them: the process that writes them, its next
start, and an auditor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kernel.arithmetic import freed, settled, smaller
from kernel.budget import Unit
from kernel.canonical import MAX_INTEGER
from kernel.contagion import Prevention
from kernel.entry import timestamp
from kernel.state import (
    NO_CHANGE,
    RATE,
    TOGETHER,
    Account,
    AccountKey,
    Change,
    Draw,
    Halt,
    Lease,
    Leased,
    OpenFlow,
    Preventive,
    Quarantine,
    Run,
    Standing,
    followed,
)
from kernel.step import MOST_REQUESTS, REFUSALS, REPEATS
from kernel.trial import Mode
from kernel.verdict import Action, Code, Verdict

if TYPE_CHECKING:
    from kernel.state import PaceKey, State

KERNEL = "kernel"
POOL, MEMORY = "governor_pool", "memory:"
"""The option that names a ledger, and the beginning of the name of one that is this process' own."""
GRANTED, SETTLED, REFUSED, LOST_LEASE = "granted", "settled", "refused", "lost"
"""What becomes of a lease: `act` of its entries."""
CLI = "cli"
"""The lane of verbs that find no Governor running. `by` of what another lane takes over from it is `cli/SEQ`."""

_ACT = re.compile(rf"{CLI}(?:-([1-9][0-9]{{0,5}}))?/([0-9]{{1,9}})", re.ASCII)
# A lane of the verbs that goes on in the place of one that was lost numbers its acts behind all of that one's.
_LANE_ACTS = 2**32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_COUNTS = frozenset({REFUSALS, REPEATS})
_SETTLED = frozenset({Unit.REQUESTS, Unit.BYTES, Unit.SECONDS, Unit.TOKENS, Unit.USD})


def micros(ts: str) -> int:
    """Microseconds since 1970 of a time as the log writes it."""
    return (datetime.fromisoformat(ts) - _EPOCH) // _MICRO


def written(micros_since_1970: int) -> str:
    """A moment as the log writes it."""
    return timestamp(_EPOCH + micros_since_1970 * _MICRO)


def change(state: State, entry: Mapping[str, Any], name: str, now_us: int) -> Change:
    """What an entry changes. `name` is LANE/SEQ, `now_us` its `ts`. An entry of another kind changes nothing."""
    match entry["type"]:
        case "decision":
            return _decided(state, entry, name, now_us)
        case "outcome":
            return _ended(state, entry, now_us)
        case "halt":
            sources = tuple(entry["sources"])
            halt = Halt(entry["reason"], now_us, entry["rule"], KERNEL, sources, name, heard="heard" in entry)
            return _heard(_halted(state, entry["agent"], halt), entry)
        case "preventive":
            return _heard(_prevented(state, entry, name, now_us), entry)
        case "operator":
            return _acted(state, entry, name, now_us)
        case "clock":
            return Change(clock_ok=False)
        case "lease":
            return _lease(state, entry)
        case "config":
            return _begun(entry["options"])
        case "fault" if entry["where"] == KERNEL:
            return Change(broken=True)
    return NO_CHANGE


def _begun(options: Mapping[str, Any]) -> Change:
    pooled = is_pooled(options)
    return Change(pooled=pooled, ledger=str(options[POOL]) if pooled else "", workers=options.get("workers", 1))


def is_pooled(options: Mapping[str, Any]) -> bool:
    """True where the options of a start name a ledger that other processes draw on, too."""
    return not str(options.get(POOL, MEMORY)).startswith(MEMORY)


def _lease(state: State, entry: Mapping[str, Any]) -> Change:
    """A lease was granted, settled or lost, or refused: what may be drawn here, and what is known of others."""
    key: AccountKey = (entry["budget"], entry["unit"], entry["for"] or TOGETHER)
    window, amount, number = entry["window"], entry["amount"], entry["lease"]
    known = state.leased.get(key)
    here = known if known is not None and known.window == window else None
    if entry["act"] in (SETTLED, LOST_LEASE):
        settled = () if number is None else (number,)
        return Change(leased={key: here._replace(amount=here.amount - amount)} if here else {}, settled=settled)
    newest = known.lease if known is not None else None
    begun = (here or Leased(window, _gone(state, key, window), lease=newest))._replace(elsewhere=entry["elsewhere"])
    if entry["act"] == REFUSED:
        return Change(leased={key: begun})
    leases = {} if number is None else {number: Lease(key, window, amount)}
    new = begun._replace(amount=begun.amount + amount, lease=begun.lease if number is None else number)
    return Change(leased={key: new}, leases=leases)


def _gone(state: State, key: AccountKey, window: int) -> int:
    """What was drawn of an account in a window before anything was leased of it."""
    account = state.account(key)
    return account.spent + account.held if account.window == window else 0


def named(made: Change, name: str) -> Change:
    """The change of a decision that was made before its name was known."""
    agents = {agent: _halt_named(standing, name) for agent, standing in made.agents.items()}
    return replace(made, agents=agents, opened=dict(zip([name], made.opened.values(), strict=False)))


def _halt_named(standing: Standing, name: str) -> Standing:
    halt = standing.halt
    return standing if halt is None or halt.entry else standing._replace(halt=halt._replace(entry=name))


def passes(entry: Mapping[str, Any]) -> bool:
    """True for a decision that let something through: a refusal in mode observe is one that was only written down."""
    return entry["mode"] == Mode.OBSERVE or _lets_through(entry["verdict"], entry["code"])


@lru_cache(256)
def _lets_through(verdict: str, code: str) -> bool:
    try:
        return Verdict(Action(verdict), Code(code)).lets_through
    except ValueError:
        # A verdict of a later version: whether it let anything through is not known.
        return True


def draws_of(said: Sequence[Mapping[str, Any]]) -> tuple[Draw, ...]:
    """The draws as an entry has them."""
    return tuple(Draw(each["budget"], each.get("for"), each["unit"], each["window"], each["amount"]) for each in said)


# A tunnel and a name that is told let nothing pass by themselves.
_OPENING_NOTHING = ("connect", "dns")


def _decided(state: State, entry: Mapping[str, Any], name: str, now_us: int) -> Change:
    agent = entry["agent"]["id"]
    if agent is None or entry["stage"] in _OPENING_NOTHING:
        return NO_CHANGE
    draws, passed = draws_of(entry["draws"]), passes(entry)
    request = entry["in"].get("request")
    standing = _counted(state.agent(agent), draws, request, passed=passed)
    accounts, paces = _drawn(state, draws, entry["in"], passed=passed)
    if entry["verdict"] == Action.HALT and entry["code"] != Code.AGENT_HALTED and entry["mode"] != Mode.OBSERVE:
        reason = Code.OPERATOR if entry["code"] == Code.RULE_HALT else entry["code"]
        standing = standing._replace(halt=Halt(reason, now_us, entry["rule"], KERNEL, (), name, entry["reason"]))
    agents = {} if standing is state.agents.get(agent) or standing == Standing() else {agent: standing}
    opened = {name: OpenFlow(entry["flow"], agent, now_us, request, draws)} if passed else {}
    broken = entry["code"] == Code.CONTRACT_VIOLATION
    return Change(agents, accounts, paces, opened, broken=broken, seen=(agent, now_us))


def _drawn(
    state: State, draws: Sequence[Draw], seen: Mapping[str, Any], *, passed: bool
) -> tuple[dict[AccountKey, Account], dict[PaceKey, int]]:
    accounts: dict[AccountKey, Account] = {}
    paces: dict[PaceKey, int] = {}
    for draw in draws:
        if draw.unit in _COUNTS:
            continue
        if draw.unit == RATE and not state.pooled:
            paces[draw.budget, draw.agent or TOGETHER] = draw.window
            continue
        key = draw.key
        window, spent, held, places, trail = (accounts.get(key) or state.account(key)).in_window(draw.window)
        if draw.unit == Unit.NEW_HOSTS:
            place = place_of(seen)
            places, trail = places | {place}, followed(trail, place)
        if draw.unit in _SETTLED and passed:
            held += draw.amount
        else:
            spent += draw.amount
        accounts[key] = Account(window, spent, held, places, trail)
    return accounts, paces


def place_of(seen: Mapping[str, Any]) -> str:
    """The destination that `in` of a decision tells."""
    return _place(seen["host"], seen["port"])


@lru_cache(4096)
def _place(host: str | None, port: int | None) -> str:
    return f"{host}:{port}"


def _counted(standing: Standing, draws: Sequence[Draw], request: str | None, *, passed: bool) -> Standing:
    """The standing after a decision: its request was refused once more, or it passed."""
    if request is None:
        return standing
    refused, repeated, trail = standing.refused, standing.repeated, standing.trail
    if passed and request in refused:
        refused = {key: run for key, run in refused.items() if key != request}
        trail = followed(trail, "passed", request)
    for draw in draws:
        if draw.unit == REFUSALS:
            refused = _with(refused, request, _run(refused.get(request), draw), _displaced(refused, draw))
            trail = followed(trail, REFUSALS, request, draw.window, draw.amount)
        elif draw.unit == REPEATS:
            run = repeated.get(request)
            if run is None or run.since_us != draw.window:
                repeated = _with(repeated, request, Run(draw.window, 0))
                trail = followed(trail, REPEATS, request, draw.window)
    if trail == standing.trail:
        return standing
    return standing._replace(refused=refused, repeated=repeated, trail=trail)


def _run(run: Run | None, draw: Draw) -> Run:
    count = run.times if run is not None and run.since_us == draw.window else 0
    return Run(draw.window, count + draw.amount)


def _displaced(refused: Mapping[str, Run], draw: Draw) -> str | None:
    """Which row of refusals a new one takes the place of: the one whose count it takes over, else the oldest."""
    if len(refused) < MOST_REQUESTS:
        return None
    before = Run(draw.window, draw.amount - 1)
    same = (key for key, run in refused.items() if run == before)
    return next(same, None) or min(refused, key=lambda key: refused[key].since_us)


def _with(runs: Mapping[str, Run], request: str, run: Run, displaced: str | None = None) -> dict[str, Run]:
    """The runs with this one as the newest. Where there are too many one is forgotten: `displaced`, or the oldest."""
    changed = dict(runs)
    changed.pop(request, None)
    changed[request] = run
    if len(changed) > MOST_REQUESTS:
        del changed[displaced or next(iter(changed))]
    return changed


def _ended(state: State, entry: Mapping[str, Any], now_us: int) -> Change:
    """The outcome of a flow: what it drew is settled. A part of one draws more."""
    name = entry["decision"]
    opened = state.open.get(name)
    if opened is None:
        return NO_CHANGE
    if entry["part"] is not None:
        more = draws_of(entry.get("draws", ()))
        accounts, _ = _drawn(state, more, {}, passed=True)
        return Change(accounts=accounts, opened={name: opened._replace(draws=_summed(opened.draws + more))})
    return Change(_repeated(state, opened, entry), _settled(state, opened, entry, now_us), closed=(name,))


def _summed(draws: Sequence[Draw]) -> tuple[Draw, ...]:
    """The draws, all of one account and window as one: however long a stream goes on, they are few."""
    amounts: dict[Draw, int] = {}
    for draw in draws:
        of = draw._replace(amount=0)
        amounts[of] = amounts.get(of, 0) + draw.amount
    return tuple(of._replace(amount=amount) for of, amount in amounts.items())


def _settled(
    state: State, opened: OpenFlow, entry: Mapping[str, Any], now_us: int
) -> dict[AccountKey, Account]:
    """The accounts of a flow that has ended: what was drawn first is used first, and the rest goes back where it came
    from, unless that window is over."""
    accounts: dict[AccountKey, Account] = {}
    gone: dict[AccountKey, int] = {}
    for draw in opened.draws:
        if draw.unit not in _SETTLED:
            continue
        used = smaller(draw.amount, _used(draw.unit, entry, now_us - opened.since_us) - gone.get(draw.key, 0))
        gone[draw.key] = gone.get(draw.key, 0) + used
        account = accounts.get(draw.key) or state.account(draw.key)
        if account.window == draw.window:
            accounts[draw.key] = account._replace(
                spent=settled(account.spent, account.held, draw.amount, used),
                held=account.held - freed(account.held, draw.amount))
    return accounts


def _used(unit: str, entry: Mapping[str, Any], micros_open: int) -> int:
    """How much of a unit a flow has used. What nobody knows counts as used."""
    match entry["result"], unit:
        case "unknown", _:
            return MAX_INTEGER
        case "not_sent", _:
            return 0
        case _, Unit.BYTES:
            return int(entry["bytes_up"]) + int(entry["bytes_down"])
        case _, Unit.USD | Unit.TOKENS if isinstance(used := entry.get("usage", {}).get(unit), int):
            return used
        case _, Unit.SECONDS:
            return -(-micros_open // 1_000_000)
    return MAX_INTEGER


def _repeated(state: State, opened: OpenFlow, entry: Mapping[str, Any]) -> dict[str, Standing]:
    """The standing of an agent whose request had the outcome that it had before. What an origin fails at is not its."""
    standing, request = state.agent(opened.agent), opened.request
    run = standing.repeated.get(request) if request is not None else None
    status = entry["status"]
    if run is None or request is None or entry["result"] != "completed" or status is None or status >= 500:
        return {}
    outcome = f"{status} {entry['bytes_down']}"
    count = run.times + 1 if run.times == 0 or run.outcome == outcome else 1
    return {opened.agent: standing._replace(
        repeated=_with(standing.repeated, request, Run(run.since_us, count, outcome)),
        trail=followed(standing.trail, outcome, request, count))}


def _at_least(standing: Standing, epoch: int, session: int) -> Standing:
    """The standing of an agent of which more releases and tokens are known than this lane has counted.

    Nobody has released it from what holds it back here.
    """
    session = max(session, standing.session)
    if epoch <= standing.epoch:
        return standing._replace(session=session)
    return standing._replace(epoch=epoch, session=session, refused={}, repeated={},
                             trail=followed(standing.trail, "release"))


def _halted(state: State, agent: str, halt: Halt) -> Change:
    """Halted; who is halted already stays so for its first reason, and is known from more places."""
    standing = state.agent(agent)
    if standing.halt is not None:
        sources = tuple(sorted({*standing.halt.sources, *halt.sources}))
        halt = standing.halt._replace(sources=sources)
    return Change({agent: standing._replace(halt=halt)})


def _prevented(state: State, entry: Mapping[str, Any], name: str, now_us: int) -> Change:
    """Held back because another was halted. A halt stays as it is, and so does what is more severe until it ends.

    Told by another process, it may be over when it comes.
    """
    agent, do, until = entry["agent"], Prevention(entry["do"]), entry["until"]
    standing = state.agent(agent)
    new = Preventive(do, 0 if until is None else micros(until), entry["origin"], tuple(entry["path"]), entry["hop"],
                     name, now_us, entry["degraded"])
    if standing.halt is not None or new.is_weaker(standing.preventive):
        return NO_CHANGE
    if do is not Prevention.HALT:
        return Change({agent: standing._replace(preventive=new)}) if new.is_in_force(now_us) else NO_CHANGE
    halt = Halt(Code.CASCADE, now_us, None, KERNEL, (), name, new.why, heard="heard" in entry)
    return Change({agent: standing._replace(preventive=new, halt=halt)})


def _acted(state: State, entry: Mapping[str, Any], name: str, now_us: int) -> Change:
    """What an operator did: here, or in lane `cli` while this lane was not written."""
    made = _done(state, entry, name, now_us)
    number = act_number(entry.get("by", ""))
    return _heard(made if number is None else replace(made, taken_over=number), entry)


def _heard(made: Change, entry: Mapping[str, Any]) -> Change:
    """The change of an entry that may be of news: with their number they are taken."""
    return replace(made, heard=entry["heard"]) if "heard" in entry else made


def act_number(by: str) -> int | None:
    """The number of an act of the verbs that `by` names as LANE/SEQ: it grows from act to act, over all their lanes."""
    found = _ACT.fullmatch(by)
    return int(found[1] or 0) * _LANE_ACTS + int(found[2]) if found else None


def _done(state: State, entry: Mapping[str, Any], name: str, now_us: int) -> Change:
    agent, heard = entry["agent"], "heard" in entry
    match entry["act"]:
        case "clock accept":
            return Change(clock_ok=True)
        case "agents halt":
            sources = tuple(entry.get("sources", ()))
            halt = Halt(Code.OPERATOR, now_us, None, entry["operator"], sources, name, entry["reason"], heard)
            return _halted(state, agent, halt)
        case "agents release":
            standing = state.agent(agent)
            trail = followed(standing.trail, "release")
            epoch = max(entry.get("epoch", 0), standing.epoch + 1)
            return Change({agent: Standing(epoch, max(entry.get("session", 0), standing.session), trail=trail)})
        case "agents halt all":
            return Change(switch=state.switch.halted(
                Halt(Code.OPERATOR, now_us, None, entry["operator"], (), name, entry["reason"], heard)))
        case "agents release all":
            return Change(switch=state.switch.released(entry.get("epoch")))
        case "agents quarantine":
            said = Quarantine(now_us, entry["operator"], name, entry["reason"], heard)
            until_us = micros(entry["until"])
            return Change({agent: state.agent(agent)._replace(quarantined_until_us=until_us, quarantine=said)})
        case "agents standing":
            return Change({agent: _at_least(state.agent(agent), entry["epoch"], entry["session"])})
        case "agents add" | "agents rotate":
            standing = state.agent(agent)
            session = max(entry.get("session", standing.session + 1), standing.session)
            return Change({agent: standing._replace(session=session)})
    return NO_CHANGE
