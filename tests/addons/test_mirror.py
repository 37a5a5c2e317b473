"""What an agent is answered at governor.internal: about itself, read-only, and nothing that is another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mitmproxy import http

from addons.governed import Governed, prepare
from addons.mirror import REMEMBERED_AGENTS, Mirror
from addons.refusal import Refused
from kernel import normal, standings
from kernel.facts import Agent, RequestFacts
from kernel.standings import Own
from kernel.step import CHUNK_BYTES
from kernel.verdict import Action, Code, Verdict
from tests.kernel.accounting import Kernel, budget, policy

AT_EASE = Own(None, None, ())
POLICY = """\
version: 1
contact: "#agent-platform"
agents:
  coders: [coder-*]
rules:
  - allow: read-packages
    from: coders
    to: packages.example.org
    methods: reads
  - allow: inside-billing
    from: coders
    to: billing.example.org
    address: 10.1.0.0/16
    methods: reads
  - allow: secret-plans-of-reviewers
    from: reviewer-1
    to: plans.example.org
    methods: any
  - deny: no-gists
    to: gist.example.org
    tell: use the snippet store
    why: data left through gists in March
never:
  - to: [metadata]
"""


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Governed:
    file: Path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    file.write_text(POLICY)
    return prepare([file], frozenset({"coder-1", "reviewer-1"}))


@pytest.fixture
def mirror(governed: Governed) -> Mirror:
    return Mirror(lambda: governed, lambda: 1_800_000_000.25, lambda agent: AT_EASE)


def ask(mirror: Mirror, target: str, method: str = "GET", agent: str = "coder-1", accept: str = "*/*") -> http.Response:
    path, query = normal.target(target)
    facts = RequestFacts(Agent(agent, "proxy-auth"), method, "http", normal.host("governor.internal"), 80, path, query)
    return mirror.answer(facts, accept)


def told(answer: http.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    return dict(json.loads(answer.content or b""))


def may(mirror: Mirror, method: str, url: str, agent: str = "coder-1") -> dict[str, Any]:
    return told(ask(mirror, f"/may?method={method}&url={quote(url, safe='')}", agent=agent))


def refused(number: int = 1, agent: str | None = "coder-1", host: str = "gist.example.org",
            entry: str | None = "") -> Refused:
    verdict = Verdict(Action.DENY, Code.RULE_DENY, "no-gists")
    return Refused(verdict, "POST", host, agent, f"flow-{number}", f"main/{number}" if entry == "" else entry, None)


@pytest.mark.parametrize(("name", "own"), [
    ("governor.internal", True), ("GOVERNOR.internal.", True), ("x.governor.internal", False),
    ("governor.internal.example.org", False), ("governor", False), ("127.0.0.1", False)])
def test_the_reserved_name_is_one_host_in_every_spelling(name: str, own: bool) -> None:
    assert Mirror.is_own(normal.host(name)) is own


def test_an_agent_sees_its_own_standing(mirror: Mirror) -> None:
    assert told(ask(mirror, "/me")) == {
        "agent": "coder-1", "by": "proxy-auth", "mode": "enforce", "budgets": [], "halted": False, "reason": None,
        "quarantined_until": None, "throttled_until": None, "contact": "#agent-platform"}


def test_an_agent_sees_what_is_left_to_it_and_nobody_elses(governed: Governed) -> None:
    kernel = Kernel(policy(budget({"requests": 3}, {"bytes": 5_000_000}, name="daily")))
    kernel.ask("coder-1", body_bytes=100)

    def own(agent: str) -> Own:
        return standings.own(kernel.state, kernel.bounds.of(agent), agent, kernel.now)

    def budgets(agent: str) -> list[tuple[str, int, int]]:
        me = told(ask(Mirror(lambda: governed, lambda: 0.0, own), "/me", agent=agent))
        return [(each["unit"], each["limit"], each["remaining"]) for each in me["budgets"]]

    left = 5_000_000 - 100 - CHUNK_BYTES
    assert budgets("coder-1") == [("requests", 3, 2), ("bytes", 5_000_000, left)]
    assert budgets("coder-2") == [("requests", 3, 3), ("bytes", 5_000_000, left)]


def test_an_agent_sees_that_and_why_it_is_held_back(governed: Governed) -> None:
    kernel = Kernel(policy())
    kernel.act("quarantine", "coder-1", until="2027-01-15T09:00:00.000000Z")
    kernel.act("halt", "coder-2")

    def me(agent: str) -> dict[str, Any]:
        mirror = Mirror(lambda: governed, lambda: 0.0, lambda name: standings.own(
            kernel.state, kernel.bounds.of(name), name, kernel.now))
        return told(ask(mirror, "/me", agent=agent))

    assert [me("coder-1")[name] for name in ("halted", "reason", "quarantined_until")] == [
        False, None, "2027-01-15T09:00:00.000000Z"]
    assert [me("coder-2")[name] for name in ("halted", "reason", "quarantined_until")] == [True, "OPERATOR", None]


def test_a_request_that_would_pass_is_said_to_pass_and_no_rule_is_named(mirror: Mirror) -> None:
    assert may(mirror, "GET", "https://packages.example.org/simple/") == {
        "verdict": "allow", "code": "ALLOW", "rule": None, "detail": None, "next_step": None,
        "assumed": "the name has a public address"}


def test_a_request_that_would_be_refused_is_told_what_the_refusal_would_tell(mirror: Mirror) -> None:
    assert may(mirror, "post", "https://gist.example.org/") == {
        "verdict": "deny", "code": "RULE_DENY", "rule": "no-gists",
        "detail": "Governor refused POST to gist.example.org: rule no-gists",
        "next_step": "Stop: another method, mirror or retry is refused too. Instead: use the snippet store."
                     " Ask #agent-platform.",
        "assumed": None}


@pytest.mark.parametrize(("method", "url", "agent", "code", "assumed"), [
    pytest.param("DELETE", "https://packages.example.org/", "coder-1", "DEFAULT_DENY", False, id="another method"),
    pytest.param("GET", "https://packages.example.org/", "reviewer-1", "DEFAULT_DENY", False, id="another agent"),
    pytest.param("GET", "https://billing.example.org/", "coder-1", "DEFAULT_DENY", True, id="an inside name"),
    pytest.param("GET", "http://169.254.169.254/", "coder-1", "NEVER", False, id="a literal"),
    pytest.param("GET", "https://[::ffff:a9fe:a9fe]/", "coder-1", "NEVER", False, id="its other spelling"),
    pytest.param("GET", "http://10.0.0.1/", "coder-1", "PRIVATE_ADDRESS", False, id="a private literal"),
    pytest.param("GET", "https://x.example.org/../y", "coder-1", "NON_CANONICAL", False, id="a dot segment"),
    pytest.param("GET", "ftp://x.example.org/", "coder-1", "NON_CANONICAL", False, id="another scheme"),
    pytest.param("GET", "https://a@x.example.org/", "coder-1", "NON_CANONICAL", False, id="a password"),
])
def test_a_verdict_is_the_policys_for_this_agent_and_says_when_an_address_may_change_it(
        mirror: Mirror, method: str, url: str, agent: str, code: str, assumed: bool) -> None:
    answer = may(mirror, method, url, agent)

    assert (answer["verdict"], answer["code"], answer["assumed"] is not None) == ("deny", code, assumed)
    assert answer["next_step"]


@pytest.mark.parametrize(("url", "verdict", "assumed"), [
    ("https://pay.example.org/v1", "allow", "the name has a public address and headers and body are as the rules want"),
    ("https://pay.example.org/v1?debug=1", "deny", None),
])
def test_a_question_without_a_body_is_about_the_body_that_the_rules_want(
        tmp_path: Path, url: str, verdict: str, assumed: str | None) -> None:
    (tmp_path / "policy.yaml").write_text("""\
version: 1
rules:
  - allow: pay
    to: pay.example.org
    methods: [POST]
    query: {debug: absent}
    json: {amount: "<= 5"}
""")
    governed = prepare([tmp_path / "policy.yaml"], frozenset())
    answer = may(Mirror(lambda: governed, lambda: 0.0, lambda agent: AT_EASE), "POST", url)

    assert answer["verdict"] == verdict
    assert answer["assumed"] is assumed is None or answer["assumed"].startswith(assumed)


def test_the_mirror_itself_may_be_asked(mirror: Mirror) -> None:
    assert may(mirror, "GET", "http://governor.internal/me")["verdict"] == "allow"


def test_the_method_of_a_question_is_get_where_none_is_named(mirror: Mirror) -> None:
    assert told(ask(mirror, "/may?url=https://packages.example.org/"))["code"] == "ALLOW"


def test_a_plus_in_a_url_is_a_plus(mirror: Mirror) -> None:
    assert told(ask(mirror, "/may?url=https://packages.example.org/c++"))["code"] == "ALLOW"


@pytest.mark.parametrize("query", [
    "", "?", "?method=GET", "?url=", "?url=https://a.example.org/&url=https://b.example.org/",
    "?url=x&agent=reviewer-1", "?url=https://a.example.org/?b=1&c=2", "?method=&url=x", "?method=GET%0D%0A&url=x",
    f"?method={'A' * 33}&url=x", "?method=G%20T&url=x"])
def test_a_question_that_is_none_is_told_how_to_ask(mirror: Mirror, query: str) -> None:
    answer = ask(mirror, f"/may{query}")

    assert answer.status_code == 400
    assert told(answer)["error"].startswith("ask /may?method=GET&url=")


def test_an_agent_sees_its_own_last_twenty_refusals_the_latest_first(mirror: Mirror) -> None:
    for number in range(25):
        mirror.note_refusal(refused(number))

    seen = told(ask(mirror, "/refusals"))["refusals"]
    assert [each["entry"] for each in seen] == [f"main/{number}" for number in range(24, 4, -1)]
    assert seen[0] == {"entry": "main/24", "time": "2027-01-15T08:00:00.250000Z", "method": "POST",
                       "host": "gist.example.org", "code": "RULE_DENY", "rule": "no-gists"}


def test_no_agent_sees_anothers_refusals(mirror: Mirror) -> None:
    mirror.note_refusal(refused(agent="coder-2", host="secret.example.org"))

    assert told(ask(mirror, "/refusals")) == {"refusals": []}
    assert b"secret" not in b"".join(ask(mirror, path).content or b"" for path in ("/", "/me", "/refusals"))


def test_nobody_sees_refusals_under_the_name_that_the_anonymous_share(mirror: Mirror) -> None:
    mirror.note_refusal(refused(agent="anonymous"))
    mirror.note_refusal(refused(agent=None))

    assert told(ask(mirror, "/refusals", agent="anonymous")) == {"refusals": []}


def test_a_refusal_that_stands_in_no_entry_pushes_none_out(mirror: Mirror) -> None:
    mirror.note_refusal(refused(7))
    for number in range(30):
        mirror.note_refusal(refused(number, entry=None))

    assert [each["entry"] for each in told(ask(mirror, "/refusals"))["refusals"]] == ["main/7"]


def test_only_so_many_agents_are_remembered_and_the_one_longest_at_peace_is_forgotten(mirror: Mirror) -> None:
    mirror.note_refusal(refused(agent="coder-1"))
    for number in range(REMEMBERED_AGENTS - 1):
        mirror.note_refusal(refused(agent=f"other-{number}"))
    mirror.note_refusal(refused(agent="coder-1"))
    mirror.note_refusal(refused(agent="one-more"))

    assert len(told(ask(mirror, "/refusals", agent="coder-1"))["refusals"]) == 2
    assert told(ask(mirror, "/refusals", agent="other-0"))["refusals"] == []
    assert len(told(ask(mirror, "/refusals", agent="other-1"))["refusals"]) == 1


def test_the_root_explains_itself_in_text_and_to_programs_in_json(mirror: Mirror) -> None:
    text, value = ask(mirror, "/"), ask(mirror, "/", accept="application/json")

    assert text.headers["content-type"] == "text/plain"
    assert "http://governor.internal/may" in text.text
    assert told(value)["help"] == text.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "X"])
@pytest.mark.parametrize("path", ["/", "/me", "/may", "/nowhere"])
def test_nothing_can_be_changed(mirror: Mirror, method: str, path: str) -> None:
    answer = ask(mirror, path, method)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/nowhere", "/me/", "/refusals/coder-2", "/%6de/x", "/ME"])
def test_there_is_nothing_else(mirror: Mirror, path: str) -> None:
    assert ask(mirror, path).status_code == 404
    assert "/refusals" in told(ask(mirror, path))["error"]


@pytest.mark.parametrize("path", ["/", "/me", "/may", "/refusals", "/nowhere"])
def test_a_head_request_gets_the_same_head_and_no_body(mirror: Mirror, path: str) -> None:
    whole, head = ask(mirror, path), ask(mirror, path, "HEAD")

    assert head.content == b""
    assert (head.status_code, head.headers["content-type"]) == (whole.status_code, whole.headers["content-type"])


@pytest.mark.parametrize("path", ["/", "/me", "/may", "/may?url=https://x.example.org/", "/refusals", "/nowhere"])
def test_no_answer_is_stored_on_the_way(mirror: Mirror, path: str) -> None:
    assert ask(mirror, path).headers["cache-control"] == "no-store"


def test_no_answer_tells_a_reason_that_is_not_for_agents_or_another_agents_rule(mirror: Mirror) -> None:
    answers = [ask(mirror, path).content or b"" for path in ("/", "/me", "/refusals")]
    answers += [json.dumps(may(mirror, "GET", url)).encode() for url in (
        "https://plans.example.org/", "https://gist.example.org/", "https://packages.example.org/")]

    said = b"".join(answers)
    assert b"March" not in said
    assert b"secret-plans" not in said
    assert b"read-packages" not in said


printable_query = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="#")).map(
    lambda text: quote_plus(text, safe="&=%:/?+[]@"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(query=st.one_of(printable_query, printable_query.map(lambda text: f"url={text}"),
                       printable_query.map(lambda text: f"method=GET&url=https://{text}"),
                       st.binary().map(lambda raw: "url=http://x.example.org/" + quote(raw))))
def test_whatever_is_asked_is_answered_with_json_on_one_line(mirror: Mirror, query: str) -> None:
    answer = Mirror.answer(mirror, RequestFacts(
        Agent("coder-1", "none"), "GET", "http", normal.host("governor.internal"), 80, normal.path("/may"), query))

    assert answer.status_code in (200, 400)
    assert told(answer)
    assert answer.text.isprintable()
