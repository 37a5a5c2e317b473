"""Small policies that overlap in every way, and requests aimed at them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from ipaddress import ip_address

from hypothesis import strategies as st

from kernel.address import named_ranges
from kernel.comparison import UNREAD, UNREADABLE, Comparison, Field, Interval
from kernel.facts import Agent, RequestFacts
from kernel.fields import Fields
from kernel.hours import UTC_ZONE, Window, Zone
from kernel.llm_terms import Call, Llm
from kernel.measures import NOTHING_SAID, Rate, Terms, WebSocketMeasures
from kernel.normal import host, path
from kernel.pattern import address_range, agent_pattern, host_pattern, path_glob, port_range, url_pattern
from kernel.policy import Conditions, Policy, Position, Rule, Tier, Verb

NAMED = named_ranges(["169.254.169.254", "fd00:ec2::254"])
AGENTS = ["local", "anonymous", "claude-1", "claude-2", "codex"]
ADDRESSES = [
    ip_address(text)
    for text in (
        "10.1.2.3", "10.9.9.9", "8.8.8.8", "9.9.9.9", "169.254.169.254", "127.0.0.1", "0.0.0.0",
        "::1", "::ffff:10.1.2.3", "64:ff9b::a9fe:a9fe", "2002:a01:203::1", "2a00::1", "2a00::2", "fd00::1",
    )
]  # fmt: skip
PUBLIC_ADDRESSES = [ip_address(text) for text in ("8.8.8.8", "9.9.9.9", "2a00::1", "2a00::2")]
HOSTS = ["x.com", "a.x.com", "b.a.x.com", "xx.com", "y.org", "com"]
LITERALS = ["10.1.2.3", "8.8.8.8", "[::1]", "[2a00::1]", "169.254.169.254"]

_segments = st.sampled_from(["a", "b", "ab", "abb", "a%2Fb", "c"])
_glob_segments = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "a*b", "a%2Fb", "**"])
_tails = st.sampled_from(["", "", "/"])

raw_paths = st.builds(lambda parts, tail: "/" + "/".join(parts) + tail, st.lists(_segments, max_size=4), _tails)
globs = st.builds(
    lambda parts, tail: path_glob("/" + "/".join(parts) + tail), st.lists(_glob_segments, max_size=4), _tails
)
agents = st.sampled_from(["claude-*", "*", "codex", "anonymous", "*-1", "local", "claude-1"]).map(agent_pattern)
hosts = st.builds(
    lambda lead, name: host_pattern(lead + name), st.sampled_from(["", "*.", "."]), st.sampled_from(HOSTS)
)
ranges = st.sampled_from(
    [
        "10.0.0.0/8", "10.1.0.0/16", "8.8.8.0/24", "0.0.0.0/0", "::/0", "fd00::/8", "2a00::1",
        "metadata", "loopback", "private-networks", "public-internet",
    ]
).map(lambda text: address_range(text, NAMED))  # fmt: skip
ports = st.sampled_from(["443", "80", "8000-8999", "1-65535"]).map(port_range)
urls = st.builds(
    lambda scheme, where, port, glob: url_pattern(f"{scheme}://{where}{port}{glob.text}", NAMED),
    st.sampled_from(["https", "https", "http", "wss"]),
    st.sampled_from(
        ["x.com", "*.x.com", ".a.x.com", "10.1.2.3", "8.8.8.8", "[2a00::1]", "loopback", "private-networks"]
    ),
    st.sampled_from(["", ":443", ":8443"]),
    globs,
)


def _some[T](items: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...] | None]:
    return st.none() | st.lists(items, min_size=1, max_size=3).map(tuple)


_methods = st.none() | st.sets(st.sampled_from(["GET", "POST"]), min_size=1).map(frozenset)
_schemes = st.none() | st.sampled_from(
    [frozenset(schemes) for schemes in (["https"], ["http", "https"], ["wss"], ["https", "wss"])])
_rarely = st.none() | st.none() | st.none()


_FORM, _JSON = b"application/x-www-form-urlencoded", b"application/json"
BODIES = [
    b"", b"a=5", b"a=5&b=x", b"a=5&a=6", b"a=05&b=", b'{"a": 5}', b'{"a": 6, "b": "xy"}', b'{"a": 5, "a": 6}',
    b'{"a": "x", "b": 1.5}', b'{"a": [5]}', b'[{"a": 5}]', b'{"a": 5', UNREADABLE,
]  # fmt: skip
QUERIES = ["", "", "q", "q=12345678", "a=5", "a=x&b=6", "a=5&a=5"]
headers = st.sampled_from([
    (), ((b"content-type", _JSON),), ((b"content-type", _JSON), (b"a", b"5")), ((b"content-type", _FORM),),
    ((b"content-type", _FORM), (b"a", b"x"), (b"b", b"6")), ((b"a", b"5"), (b"a", b"5")),
    ((b"content-type", _JSON), (b"content-type", _FORM)),
])  # fmt: skip

_intervals = st.sampled_from([
    Interval(high=5), Interval(high=5, high_open=True), Interval(low=5), Interval(low=1, low_open=True),
    Interval(1, 2), Interval(5, 6), Interval(-3, 5),
])  # fmt: skip


_values = st.builds(
    Comparison,
    st.lists(st.sampled_from(["5", "x", "x*", "*", "05", ""]), max_size=2).map(tuple),
    st.lists(_intervals, max_size=2).map(tuple),
    st.booleans(),
).filter(lambda made: made != Comparison())
_kinds = st.sampled_from([("application/json",), ("application/*", "text/*"), ("*/x-www*",)]).flatmap(
    lambda globs: st.builds(Comparison, st.just(globs), absent=st.booleans()))
_field_lists = st.lists(
    st.builds(Field, st.sampled_from(["a", "b"]), _values), min_size=1, max_size=2, unique_by=lambda field: field.name
).map(tuple)

# Around the turn of a Friday: a few hours in which everything below begins or ends once.
FRIDAY = 1_767_913_200  # 2026-01-08T23:00:00Z, midnight in Berlin
MOMENTS = [FRIDAY + 3600 * hour + second for hour in (-3, -1, 0, 1, 7, 12, 24) for second in (-1, 0)]
ZONES = [UTC_ZONE, Zone("Berlin", (0,), (3600,)), Zone("put back", (0, FRIDAY + 3600), (7200, 3600))]
windows = st.builds(
    Window,
    st.sampled_from([frozenset(range(7)), frozenset({4}), frozenset({3, 4}), frozenset({5, 6})]),
    st.sampled_from([0, 60, 480, 1320]),
    st.sampled_from([120, 360, 780, 1440]),
    st.sampled_from(ZONES),
    st.sampled_from([frozenset(), frozenset(), frozenset({date(2026, 1, 9).toordinal()})]),
)
_whens = st.none() | st.none() | st.none() | windows
_ends = st.none() | st.none() | st.none() | st.none() | st.sampled_from(MOMENTS)


_CALLS = tuple(Call(method, url_pattern(f"https://x.com{path}", NAMED)) for method, path in (
    ("GET", "/v1/models"), ("GET", "/v1/models/*"), ("POST", "/v1/messages/count_tokens")))
llms = st.builds(
    Llm,
    models=_some(st.sampled_from(["m", "m-*", "*", "n*", "a/*", "5"])),
    calls=st.sampled_from([(), _CALLS]),
)
MODEL_PATHS = [
    "/v1/messages", "/v1/messages/count_tokens", "/v1/messages/", "/a/v1/chat/completions", "/a/b/v1/messages",
    "/v1/models", "/v1/models/m", "/v1/models/m-1:generateContent", "/v1beta/models/m%2F1:streamGenerateContent",
    "/v1beta/models/n%3AgenerateContent", "/v1beta/models/n:countTokens", "/a%2Fv1/responses", "/chat/completions",
    "/v1%2Fmessages", "/", "/v1/files", "/v1/complete", "/v1/models/m:embedContent",
]
MODEL_BODIES = [
    b"", b'{"model": "m"}', b'{"model": "m-1"}', b'{"model": "n", "a": 5}', b'{"model": "a/b"}', b'{"model": 5}',
    b'{"model": "m", "model": "n"}', b'{"a": "x"}', b'{"model": ["m"]}', b'{"model": ""}', UNREADABLE,
]  # fmt: skip


def conditions(
    to: st.SearchStrategy[tuple[object, ...] | None] | None = None, paths: st.SearchStrategy[object] | None = None
) -> st.SearchStrategy[Conditions]:
    """Conditions with a key left out more often than not, so that they hold often enough to matter."""
    return st.builds(
        Conditions,
        agents=_rarely | _some(agents),
        to=_some(hosts | ranges | urls) if to is None else to,
        address=_rarely | _some(ranges),
        methods=_rarely | _methods,
        schemes=_rarely | _schemes,
        ports=_rarely | _some(ports),
        paths=_some(globs) if paths is None else paths,
        query=_rarely | _field_lists,
        headers=_rarely | _field_lists,
        content_types=_rarely | _kinds,
        json=_rarely | _field_lists,
        form=_rarely | _field_lists,
        when=_whens,
        expires=_ends,
    )


_compared = st.builds(
    Conditions,
    query=_rarely | _field_lists,
    headers=_rarely | _field_lists,
    content_types=_rarely | _kinds,
    json=st.none() | _field_lists,
    form=_rarely | _field_lists,
)


_MIB = 2**20
_body_caps = st.sampled_from([None, None, 0, 10, 100, 16 * _MIB, 32 * _MIB])
_url_caps = st.sampled_from([None, None, None, 14, 18, 24])
_more_caps = st.sampled_from([None, None, 1, 2, 1000])
_websockets = st.builds(
    WebSocketMeasures,
    st.sampled_from([None, 10, 1000]),
    st.sampled_from([None, Rate(1, 1), Rate(60, 60), Rate(100, 60), Rate(5000, 3600)]),
)
_terms = st.just(NOTHING_SAID) | st.builds(
    Terms,
    max_request=_body_caps,
    max_response=_more_caps,
    max_url=_url_caps,
    websocket=st.none() | _websockets,
    stream_request=st.booleans(),
    max_output_tokens=_more_caps,
    min_output_tokens=st.sampled_from([None, None, 1, 300]),
)
_caps = st.builds(
    Terms, max_request=_body_caps, max_response=_more_caps, max_url=_url_caps, in_flight=_more_caps,
    max_output_tokens=_more_caps)
_verbs = st.sampled_from([Verb.ALLOW] * 5 + [Verb.THROTTLE, Verb.DENY, Verb.HALT, Verb.NEVER])
_holes = st.lists(conditions(), max_size=2).map(tuple)
_bodies = st.tuples(_verbs, conditions(), _holes, _terms)
_limits = st.lists(st.tuples(conditions(), _holes, _caps), max_size=3)
# All on one host, told apart by agent and path: what the buckets are for.
_crowded = st.tuples(
    _verbs,
    conditions(st.just((host_pattern("x.com"),)), st.lists(globs, min_size=1, max_size=3).map(tuple)),
    st.lists(conditions(), max_size=1).map(tuple),
    _terms,
)

# Most of it allowed: what the measures are for.
_open = st.tuples(
    st.sampled_from([Verb.ALLOW] * 6 + [Verb.THROTTLE, Verb.DENY]),
    conditions(st.none() | st.just((host_pattern(".x.com"),)), _rarely | _some(globs)),
    st.lists(conditions(), max_size=1).map(tuple),
    _terms,
)

# Told apart by the models that they ask for.
_asked = st.builds(
    Conditions,
    agents=_rarely | _some(agents),
    to=_rarely | _some(st.just(host_pattern("x.com")) | urls),
    methods=_rarely | _methods,
    paths=_rarely | st.lists(st.sampled_from(MODEL_PATHS).map(path_glob), min_size=1, max_size=2).map(tuple),
    json=_rarely | st.just((Field("model", Comparison(("m*",), absent=True)),)) | _field_lists,
    llm=st.none() | llms | llms,
)
_asking = st.tuples(
    st.sampled_from([Verb.ALLOW] * 4 + [Verb.DENY, Verb.DENY, Verb.NEVER]), _asked,
    st.lists(_asked, max_size=1).map(tuple), _terms)
# Told apart by their fields alone.
_by_fields = st.tuples(
    st.sampled_from([Verb.ALLOW] * 4 + [Verb.DENY]), _compared, st.lists(_compared, max_size=1).map(tuple), _terms)

_PACES = [Rate(6, 60), Rate(1, 1), Rate(60, 60), Rate(1, 60)]

type _Body = tuple[Verb, Conditions, tuple[Conditions, ...], Terms]


def _policy(bodies: list[_Body], caps: list[tuple[Conditions, tuple[Conditions, ...], Terms]]) -> Policy:
    rules = tuple(
        Rule(number, f"{verb}-{number}", verb, where, holes, Position("p.yaml", number + 1, 1), tell=f"tell {number}",
             terms=terms if verb.grants else NOTHING_SAID,
             rate=_PACES[number % len(_PACES)] if verb is Verb.THROTTLE else None)
        for number, (verb, where, holes, terms) in enumerate(bodies)
    )
    limits = tuple(
        Rule(len(rules) + place, f"limits-{place + 1}", Verb.LIMIT, where, holes, Position("p.yaml", 1, 1), terms=terms)
        for place, (where, holes, terms) in enumerate(caps)
    )
    return Policy(
        digest="0" * 64,
        files=("p.yaml",),
        rules=tuple(rule for rule in rules if rule.verb is not Verb.NEVER),
        nevers=tuple(rule for rule in rules if rule.verb is Verb.NEVER),
        limits=limits,
    )


policies = st.builds(_policy, st.lists(_bodies, max_size=10), _limits)
crowded_policies = st.builds(_policy, st.lists(_crowded, min_size=5, max_size=24), _limits)
open_policies = st.builds(_policy, st.lists(_open, min_size=2, max_size=8), _limits)
compared_policies = st.builds(
    _policy,
    st.lists(_by_fields, min_size=1, max_size=5),
    st.lists(st.tuples(_compared, st.just(()), _caps), max_size=2),
)


asking_policies = st.builds(
    _policy, st.lists(_asking, min_size=1, max_size=5), st.lists(st.tuples(_asked, st.just(()), _caps), max_size=2))


_binds = st.none() | st.lists(agents, min_size=1, max_size=2).map(tuple)


def _in_tiers(policy: Policy, places: list[int], tiers: list[Tier]) -> Policy:
    """The rules of a policy dealt out to tiers in order; a tier that passes denies what it would allow."""
    last = len(tiers) - 1
    order = sorted(min(place, last) for place in places)

    def dealt(rule: Rule) -> Rule:
        tier = rule.number % len(tiers) if rule.verb is Verb.LIMIT else [*order, *[last] * rule.number][rule.number]
        verb = Verb.DENY if rule.verb.grants and tiers[tier].passes else rule.verb
        terms, rate = (NOTHING_SAID, None) if verb.refuses else (rule.terms, rule.rate)
        return replace(rule, tier=tier, verb=verb, terms=terms, rate=rate)

    return replace(policy, rules=tuple(map(dealt, policy.rules)), nevers=tuple(map(dealt, policy.nevers)),
                   limits=tuple(map(dealt, policy.limits)), tiers=tuple(tiers))


tiered_policies = st.builds(
    _in_tiers,
    st.builds(_policy, st.lists(_open, min_size=3, max_size=9), _limits) | policies,
    st.lists(st.sampled_from([0, 1, 2]), min_size=3, max_size=12),
    st.lists(
        st.builds(Tier, binds=_binds, passes=st.sampled_from([False, False, False, True])), min_size=2, max_size=3),
)


def requests(hosts: list[str] | None = None, *, unread: bool = True) -> st.SearchStrategy[RequestFacts]:
    """Requests to these hosts; with `unread`, some whose body has not come yet."""
    return st.builds(
        lambda agent, method, scheme, name, port, raw, query, body_bytes, sent, body, at: RequestFacts(
            Agent(agent, "proxy-auth"), method, scheme, host(name), port, path(raw), query, body_bytes,
            fields=Fields(query, sent, body), at=at,
        ),
        st.sampled_from(AGENTS),
        st.sampled_from(["GET", "POST"]),
        st.sampled_from(["https", "https", "https", "http", "wss", "ws"]),
        st.sampled_from(hosts or [*HOSTS, "z.net", *LITERALS]),
        st.sampled_from([443, 443, 80, 8443]),
        raw_paths,
        st.sampled_from(QUERIES),
        st.sampled_from([0, 0, 0, 10, 11, 1000, 16 * _MIB, 16 * _MIB + 1, 40 * _MIB]),
        headers,
        st.sampled_from([*BODIES, UNREAD] if unread else BODIES),
        st.sampled_from(MOMENTS),
    )


def asking_requests(*, unread: bool = True) -> st.SearchStrategy[RequestFacts]:
    """Requests of which most ask a model."""
    return st.builds(
        lambda facts, method, raw, sent, body: replace(
            facts, method=method, path=path(raw), fields=Fields(facts.query, sent, body)),
        requests(["x.com"], unread=unread),
        st.sampled_from(["POST", "POST", "POST", "GET"]),
        st.sampled_from(MODEL_PATHS),
        st.sampled_from([((b"content-type", _JSON),)] * 5 + [(), ((b"content-type", _FORM),)]),
        st.sampled_from([*MODEL_BODIES, UNREAD] if unread else MODEL_BODIES),
    )


def answers(facts: RequestFacts, addresses: list[object] | None = None) -> st.SearchStrategy[list[object]]:
    """The addresses a request may go to: its literal, or what a resolver might say."""
    if facts.host.address is not None:
        return st.just([facts.host.address])
    return st.lists(st.sampled_from(addresses or ADDRESSES), min_size=1, max_size=3, unique=True)
