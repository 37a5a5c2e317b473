"""A compiled policy: plain values that the index, the decision and the analyser share. Built by kernel/compiler.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kernel.budget import SPENT
from kernel.comparison import Comparison, Field
from kernel.example import NOTHING, Example
from kernel.facts import Address
from kernel.hours import Window
from kernel.measures import NOTHING_SAID, Rate, Terms
from kernel.prices import NO_PRICES, Prices
from kernel.source_networks import SourceNetworks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kernel.ahead.said import Ahead
    from kernel.budget import Budget, Counter, RateLimit
    from kernel.contagion import Cascade
    from kernel.dns import Dns
    from kernel.llm_terms import Llm


class Verb(StrEnum):
    """What a rule does. ASK stands only in policies that are read ahead.

    NEVER is how a `never:` item is held: a refusal above every other.

    LIMIT is how a `limits:` item is held: it neither grants nor refuses, and its conditions mean what they mean in a
    refusal.
    """

    ALLOW = "allow"
    ASK = "ask"
    THROTTLE = "throttle"
    DENY = "deny"
    HALT = "halt"
    NEVER = "never"
    LIMIT = "limit"

    @property
    def grants(self) -> bool:
        return self is Verb.ALLOW or self is Verb.ASK or self is Verb.THROTTLE

    @property
    def refuses(self) -> bool:
        return self is Verb.DENY or self is Verb.NEVER or self is Verb.HALT


@dataclass(frozen=True, slots=True)
class Position:
    """Where a policy says something. Line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class HostReach(StrEnum):
    """How far a host pattern reaches from its name."""

    EXACT = "exactly"
    BELOW = "below"
    SELF_AND_BELOW = "it and everything below it"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """`x.com` (EXACT), `*.x.com` (BELOW: one or more labels more, never the apex), `.x.com` (SELF_AND_BELOW).

    `name` is the canonical name without star or leading dot.
    """

    name: str
    reach: HostReach


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses from `first` to `last`, both included and of one family."""

    first: Address
    last: Address


@dataclass(frozen=True, slots=True)
class AddressRange:
    """A named or written range: `10.0.0.0/8`, `10.1.2.3`, `metadata`, `loopback`."""

    text: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class PathGlob:
    """`*` is zero or more characters of one segment; `**` is a whole segment and stands for zero or more segments."""

    text: str
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UrlPattern:
    """`https://host[:port]/path-glob`, one box: nothing of it combines with another pattern's parts."""

    text: str
    scheme: str
    host: HostPattern | AddressRange
    port: int
    path: PathGlob


Destination = HostPattern | AddressRange | UrlPattern


@dataclass(frozen=True, slots=True)
class AgentPattern:
    """An agent id or an id glob (`claude-*`)."""

    text: str


@dataclass(frozen=True, slots=True)
class PortRange:
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """The keys of a rule, AND-ed; each list is an OR, but all fields of a part must fit. None says nothing (any).

    `llm` is written out as conditions on method, path (`calls`, and the models `in_path` of those) and body (`json`)
    before anything is matched: kernel/model_calls.py. `expires` is the first moment at which they no longer hold, in
    seconds since 1970.
    """

    agents: tuple[AgentPattern, ...] | None = None
    to: tuple[Destination, ...] | None = None
    address: tuple[AddressRange, ...] | None = None
    methods: frozenset[str] | None = None
    schemes: frozenset[str] | None = None
    ports: tuple[PortRange, ...] | None = None
    paths: tuple[PathGlob, ...] | None = None
    query: tuple[Field, ...] | None = None
    headers: tuple[Field, ...] | None = None
    content_types: Comparison | None = None
    json: tuple[Field, ...] | None = None
    form: tuple[Field, ...] | None = None
    llm: Llm | None = None
    calls: tuple[PathGlob, ...] | None = None
    in_path: tuple[str, ...] | None = None
    when: Window | None = None
    expires: int | None = None

    @property
    def compares_fields(self) -> bool:
        said = self.query or self.headers or self.content_types or self.json or self.form
        return said is not None

    @property
    def has_time(self) -> bool:
        return self.when is not None or self.expires is not None

    def in_effect(self, at: int) -> bool:
        """True when neither its hours nor its end keep this from holding at a moment."""
        return (self.expires is None or at < self.expires) and (self.when is None or self.when.contains(at))


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of `rules:`, `never:` (named `never-1`, `never-2`, ...) or `limits:` (named `limits-1`, ...).

    `number` is its place in the policy; limits come last. `tier` is the place of its tier in the policy: it holds only
    for agents that this tier binds. What a refusal that is `quiet` refuses is expected: it is counted, and written down
    once an hour. A deny that is `observed` refuses nothing: that it holds is written down. With `secret_paths` no path
    is kept where it holds, nor at the hosts that it names. `risk` are the points that a request costs its agent for
    which it holds, `rate` is that of a throttle.
    """

    number: int
    name: str
    verb: Verb
    where: Conditions
    holes: tuple[Conditions, ...]
    position: Position
    tell: str | None = None
    why: str | None = None
    terms: Terms = NOTHING_SAID
    quiet: bool = False
    observed: bool = False
    secret_paths: bool = False
    tier: int = 0
    risk: int = 0
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """One file of a policy: its level, and the agents that it binds (None: all of them).

    What such an agent asks needs a grant of this tier, unless it `passes`: then it holds only refusals and limits.
    """

    name: str = "platform"
    file: str = ""
    binds: tuple[AgentPattern, ...] | None = None
    passes: bool = False


@dataclass(frozen=True, slots=True)
class Assertion:
    """One item of `assert:`: this agent's request must be granted (`allowed`) or refused (`denied`).

    `address` is what the host resolves to; None stands for an address of the public internet. `said` is what the
    request carries; its query stands in `url`, too.
    """

    allowed: bool
    agent: str
    method: str
    url: str
    position: Position
    address: Address | None = None
    said: Example = NOTHING


@dataclass(frozen=True, slots=True)
class ClientAuthority:
    """`cert: {ca: FILE}`: the file of the CA that signs the certificates of clients, as the policy names it."""

    file: str
    position: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """The `identity:` section: the sources it names; `anonymous` is True where it says `anonymous: allow`.

    `ports` are those at which Governor listens, each with the agent that comes there.
    """

    sources: frozenset[str] = frozenset()
    anonymous: bool = False
    authority: ClientAuthority | None = None
    networks: SourceNetworks = field(default_factory=SourceNetworks)
    ports: Mapping[int, str] = field(default_factory=dict)

    @property
    def agents(self) -> frozenset[str]:
        """The agents that it names: those of networks and of ports."""
        return frozenset((*self.networks.agents, *self.ports.values()))


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything a policy says, compiled. `digest` is the blake3 of the sources in hex, `files` their names.

    `observed_until` is the end of `mode: observe`, in seconds since 1970; None where the policy enforces.
    `claims` are assertions about many requests: an allow that must pass whole, a never that nothing passes.
    `tiers` go from the uppermost to the lowest, one for each file. Budgets and rates are those of every file, each for
    agents that its file binds. `prices` is what models cost: by the policy, and else by the table it was read with.
    `dns` is what each tier says of names that are looked up.
    `ahead` is what has no effect yet, None unless the policy was read ahead; one that was
    never governs.
    """

    digest: str
    files: tuple[str, ...]
    rules: tuple[Rule, ...]
    nevers: tuple[Rule, ...] = ()
    groups: dict[str, tuple[AgentPattern, ...]] = field(default_factory=dict)
    contact: str | None = None
    identity: Identity = Identity()
    assertions: tuple[Assertion, ...] = ()
    claims: tuple[Rule, ...] = ()
    limits: tuple[Rule, ...] = ()
    observed_until: int | None = None
    tiers: tuple[Tier, ...] = (Tier(),)
    budgets: tuple[Budget, ...] = ()
    rates: tuple[RateLimit, ...] = ()
    profile: str | None = None
    counters: tuple[Counter, ...] = ()
    cascade: Cascade | None = None
    prices: Prices = NO_PRICES
    dns: tuple[Dns | None, ...] = (None,)
    ahead: Ahead | None = None

    @property
    def narrows(self) -> bool:
        """True when there is more to it than one file that binds every agent."""
        return len(self.tiers) > 1 or self.tiers[0].binds is not None

    @property
    def counts_spend(self) -> bool:
        """True where some budget is of money or tokens: then the prices say what passes."""
        return any(budget.units & SPENT for budget in self.budgets)

    @property
    def items(self) -> tuple[Rule, ...]:
        """Everything that has conditions: rules, nevers and limits."""
        return (*self.rules, *self.nevers, *self.limits)
