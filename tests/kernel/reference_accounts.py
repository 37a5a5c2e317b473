"""What the kernel keeps of agents, written a second time and in another way: dictionaries, dates and credit.

From DESIGN section 5 and the words of the policy language, not from the kernel. Slow and plain: it foretells the code
of each answer and what each account holds. `tests/kernel/test_kernel_machine.py` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

MIB = 2**20
SECOND = 1_000_000
ALL = "(all)"
LATER = ("deny", "halt")


@dataclass
class Purse:
    """One account. `window` is (kind, number), None before the first draw."""

    window: tuple | None = None
    spent: int = 0
    held: int = 0
    places: set = field(default_factory=set)


@dataclass
class Person:
    """One agent. `refused`: request -> [since, times]; `repeated`: request -> [since, times, outcome]."""

    epoch: int = 0
    session: int = 0
    halted: str | None = None
    quarantined_until: int = 0
    refused: dict = field(default_factory=dict)
    repeated: dict = field(default_factory=dict)


@dataclass
class Flow:
    agent: str
    since: int
    request: str | None
    draws: list


@dataclass(frozen=True)
class Amount:
    """One number that a policy gives: of a budget, or of a counter that counts a session."""

    name: str
    unit: str
    limit: int
    shared: bool
    every: str
    zone: str
    thresholds: tuple
    counter: str | None = None

    def end(self):
        """(how much may be used, what then), or None where more passes all the same."""
        if self.counter and self.thresholds[0][1] not in LATER:
            return self.limit, None
        for percent, effect, _ in self.thresholds:
            if effect in LATER:
                return self.limit * percent // 100, "deny" if self.shared else effect
        return self.limit, "deny"


@dataclass(frozen=True)
class Said:
    """A policy as the reference reads it. `rates`: (name, shared, each interval, burst); `repeats`: by counter."""

    amounts: tuple = ()
    rates: tuple = ()
    repeats: dict = field(default_factory=dict)


@dataclass
class Reference:
    said: Said
    now: int
    people: dict = field(default_factory=dict)
    purses: dict = field(default_factory=dict)
    credit: dict = field(default_factory=dict)
    flows: dict = field(default_factory=dict)
    clock_wrong: bool = False
    clock_was_wrong: bool = False

    def person(self, agent):
        return self.people.setdefault(agent, Person())

    def purse(self, amount, agent):
        return self.purses.setdefault((amount.name, amount.unit, ALL if amount.shared else agent), Purse())

    def window(self, amount, agent):
        person = self.person(agent)
        if amount.every == "session":
            return "session", 0 if amount.shared else person.epoch + person.session
        moment = datetime.fromtimestamp(self.now // SECOND, UTC)
        if amount.every == "hour":
            return "hour", int(moment.timestamp()) // 3600
        day = moment.astimezone(ZoneInfo(amount.zone)).date()
        if amount.every == "day":
            return "day", day.toordinal()
        return "week", day.toordinal() - day.weekday()

    def open_purse(self, amount, agent):
        """The account as it is in the window of now."""
        purse, window = self.purse(amount, agent), self.window(amount, agent)
        before = purse.window
        if before is None:
            return Purse(window)
        if before[0] == window[0] and self.clock_wrong and window[0] != "session":
            return purse
        if before[0] != window[0]:
            return purse if self.clock_wrong and amount.every != "session" else Purse(window)
        if before[1] == window[1]:
            return purse
        if before[1] < window[1]:
            return Purse(window)
        step = 7 if window[0] == "week" else 1
        if self.clock_was_wrong and before[1] > window[1] + step:
            return Purse(window, purse.spent, purse.held, purse.places)
        return purse

    def write(self, amount, agent, purse):
        self.purses[amount.name, amount.unit, ALL if amount.shared else agent] = purse

    def request(self, name, agent, refused, place, request, body, risk, read):
        """The code that a request is answered with; its effects are taken."""
        person = self.person(agent)
        if person.halted:
            return "AGENT_HALTED"
        if refused:
            return self._refused(person, agent, request, risk)
        return self._wanted(name, person, agent, place, request, body, risk, read)

    def _row(self, rows, what, request):
        """The row that a request belongs to now, as [since, times, ...]."""
        row = rows.get(request)
        within = self.said.repeats[what][1] * SECOND
        return row if row and 0 <= self.now - row[0] < within else [self.now, 0, ""]

    def _halt(self, person, code):
        person.halted = code
        return code

    def _refused(self, person, agent, request, risk):
        code = self._points(person, agent, risk)
        if code:
            return code
        if request is None or "persistence" not in self.said.repeats:
            return "RULE_DENY"
        limit, _, effect = self.said.repeats["persistence"]
        row = self._row(person.refused, "persistence", request)
        if row[1] >= limit and effect != "tell":
            return self._halt(person, "PERSISTENCE_LIMIT") if effect == "halt" else "PERSISTENCE_LIMIT"
        person.refused[request] = [row[0], row[1] + 1, ""]
        return "RULE_DENY"

    def _points(self, person, agent, risk):
        code = None
        for amount in self.said.amounts if risk else ():
            if amount.unit != "risk":
                continue
            purse = self.open_purse(amount, agent)
            most, then = amount.end()
            before = purse.spent
            if before < most:
                self.write(amount, agent, Purse(purse.window, min(most, before + risk), purse.held, purse.places))
            if before + risk >= most and then and code is None:
                code = self._used_up(amount, then)
        if code and code[1]:
            person.halted = code[0]
        return code and code[0]

    def _used_up(self, amount, then):
        reason = {"risk": "OVERRISK", "new-hosts": "EXPLORATION_DRIFT"}.get(amount.unit, "EXHAUSTION")
        if amount.counter:
            reason = {"risk": "OVERRISK", "exploration": "EXPLORATION_DRIFT", "steps": "EXTERNAL"}[amount.counter]
        if then == "halt":
            return reason, True
        return (reason if amount.counter else "BUDGET_EXHAUSTED"), False

    def _wanted(self, name, person, agent, place, request, body, risk, read):
        if self.now < person.quarantined_until and not read:
            return "QUARANTINED"
        if self.clock_wrong and (self.said.amounts or self.said.rates):
            return "CLOCK_JUMP"
        turns, draws = [*self.said.rates], []
        code = self._repeating(person, request, turns)
        if code:
            return code
        for amount in self.said.amounts:
            found = self._draw(amount, agent, place, body, risk, turns)
            if isinstance(found, tuple):
                code, halts = found
                return self._halt(person, code) if halts else code
            draws += found
        paid = self._pay(turns, agent)
        if paid is None:
            return "RATE_LIMITED"
        code = self._points(person, agent, risk)
        if code:
            return code
        self.credit.update(paid)
        self._pass(name, person, agent, request, place, draws)
        return "ALLOW"

    def _repeating(self, person, request, turns):
        for what, rows, code in (("persistence", person.refused, "PERSISTENCE_LIMIT"),
                                 ("stagnation", person.repeated, "STAGNATION")):
            if request is None or what not in self.said.repeats:
                continue
            limit, _, effect = self.said.repeats[what]
            if self._row(rows, what, request)[1] < limit:
                continue
            if effect in LATER:
                return self._halt(person, code) if effect == "halt" else code
            if effect == "throttle":
                turns.append((what, False, 10 * SECOND, 1))
        return None

    def _draw(self, amount, agent, place, body, risk, turns):
        """What is drawn of one amount, as a list of (amount, window, how much); or what follows as it is used up."""
        purse = self.open_purse(amount, agent)
        least, wanted = {
            "requests": (1, 1), "bytes": (body + 1, body + MIB), "seconds": (1, 60), "risk": (0, risk),
            "new-hosts": (1, 1) if place not in purse.places else (0, 0),
        }[amount.unit]
        if not wanted:
            return []
        most, then = amount.end()
        left = max(0, most - purse.spent - purse.held)
        granted = 0 if left < least else min(left, wanted)
        if not granted and then and amount.unit != "risk":
            return self._used_up(amount, then)
        for percent, effect, rate in amount.thresholds:
            used = purse.spent + purse.held + granted
            if effect == "throttle" and used / amount.limit * 100 >= percent:
                interval, burst = rate or (10 * SECOND, 1)
                turns.append((f"{amount.name} {percent}", amount.shared, interval, burst))
        return [(amount, purse.window, granted)] if granted and amount.unit != "risk" else []

    def _pay(self, turns, agent):
        """Each rate's credit after a turn; None where one has not enough. Credit grows with time up to the burst."""
        paid = {}
        for name, shared, interval, burst in turns:
            key = name, ALL if shared else agent
            most = interval * burst
            credit, last, cap = self.credit.get(key, (most, self.now, most))
            credit = min(most, most - cap + credit + self.now - last)
            if credit < 0:
                credit = interval
            if credit < interval:
                return None
            paid[key] = credit - interval, self.now, most
        return paid

    def _pass(self, name, person, agent, request, place, draws):
        taken = []
        for amount, window, granted in draws:
            purse = self.open_purse(amount, agent)
            new = Purse(window, purse.spent, purse.held, set(purse.places))
            if amount.unit == "new-hosts":
                new.spent, new.places = new.spent + granted, new.places | {place}
            else:
                new.held += granted
                taken.append([(amount.name, amount.unit, ALL if amount.shared else agent), window, granted])
            self.write(amount, agent, new)
        if request is not None:
            person.refused.pop(request, None)
            if "stagnation" in self.said.repeats:
                person.repeated[request] = self._row(person.repeated, "stagnation", request)
        self.flows[name] = Flow(agent, self.now, request, taken)

    def more(self, name, unit, wanted):
        """What a flow that goes on draws of each amount of a unit; 0 where there is nothing left."""
        flow, granted, of = self.flows[name], wanted, []
        for amount in self.said.amounts:
            if amount.unit == unit:
                purse = self.open_purse(amount, flow.agent)
                granted = max(0, min(granted, amount.end()[0] - purse.spent - purse.held))
                of.append((amount, purse))
        for amount, purse in of if granted else ():
            self.write(amount, flow.agent, Purse(purse.window, purse.spent, purse.held + granted, purse.places))
            flow.draws.append([(amount.name, unit, ALL if amount.shared else flow.agent), purse.window, granted])
        return granted if of else 0

    def outcome(self, name, result, status, size):
        flow = self.flows.pop(name)
        rest = {"bytes": max(0, size), "seconds": max(0, -((flow.since - self.now) // SECOND))}
        left = {}
        for key, window, drawn in flow.draws:
            unit = key[1]
            if result == "unknown" or unit == "requests":
                used = 0 if result == "not_sent" else drawn
            elif result == "not_sent":
                used = 0
            else:
                unused = left.setdefault(key, rest[unit])
                used = min(drawn, unused)
                left[key] -= used
            purse = self.purses[key]
            if purse.window == window:
                self.purses[key] = Purse(window, purse.spent + used, purse.held - drawn, purse.places)
        person = self.person(flow.agent)
        row = person.repeated.get(flow.request)
        if row and result == "completed" and status < 500:
            outcome = f"{status} {size}"
            row[1:] = [row[1] + 1 if not row[1] or row[2] == outcome else 1, outcome]

    def halt(self, agent):
        self.person(agent).halted = self.person(agent).halted or "OPERATOR"

    def release(self, agent):
        person = self.person(agent)
        self.people[agent] = Person(person.epoch + 1, person.session)
