"""A policy in sentences: nothing that a policy says is left out, and stars and dots are spelled out."""

from __future__ import annotations

from dataclasses import fields

import pytest

from kernel.measures import Terms
from kernel.policy import Conditions
from kernel.prose import in_words
from tests.addons.policies import compiled

HEAD = "version: 1\nagents: {coders: [claude-*, codex-1]}\nrules:\n"


def told(text: str) -> dict[str, list[str]]:
    return {each.title: [said.text for said in each.sentences] for each in in_words(compiled(text).policy)}


def rule(keys: str, verb: str = "deny") -> str:
    """What is said of one rule."""
    (sentence,) = [said.text for each in in_words(compiled(f"{HEAD}  - {{{verb}: it, {keys}}}\n").policy)
                   for said in each.sentences if said.rule == "it"]
    return sentence


@pytest.mark.parametrize(("keys", "sentence"), [
    ("to: x.com", "Refused: any request to x.com."),
    ("to: .x.com", "Refused: any request to x.com and everything below it."),
    ('to: "*.x.com"', "Refused: any request to everything below x.com (not x.com itself)."),
    ("to: 10.0.0.0/8", "Refused: any request to whatever leads to the addresses in 10.0.0.0/8."),
    ("to: 10.1.2.3", "Refused: any request to whatever leads to the address 10.1.2.3."),
    ("to: metadata", "Refused: any request to whatever leads to the metadata addresses."),
    ('to: "https://.x.com:8443/a/**"',
     "Refused: any request to x.com and everything below it (over https, port 8443, path /a and everything below it)."),
    ("methods: writes", "Refused: writing (DELETE, PATCH, POST or PUT)."),
    ("methods: [GET, PUT]", "Refused: GET or PUT requests."),
    ('paths: ["/a", "/b/**", "/**"]', "Refused: any request, where the path is /a, /b and everything below it or any."),
    ("ports: [80, 8000-8001]", "Refused: any request, on port 80 or 8000 to 8001."),
    ("address: 10.0.0.0/8", "Refused: any request, where the name leads to the addresses in 10.0.0.0/8."),
    ("to: x.com, except: [{methods: GET}, {from: coders, paths: /a}]",
     "Refused: any request to x.com; except GET requests; except where the path is /a, by coders."),
    ('json: {amount: ["<= 5", "10..20", "> 99", absent], "user.name": ["b*", "*"]}',
     ("Refused: any request, where the JSON body's amount is at most 5, from 10 to 20, above 99 or absent and the JSON "
      "body's user.name is \"b*\" or anything that can be read.")),
    ('content-types: [text/plain, absent], query: {q: ["< 5", ">= 7"]}, headers: {x-a: b}, form: {f: c}',
     ("Refused: any request, where the query's q is below 5 or at least 7, where the header x-a is \"b\", where the "
      "content type is \"text/plain\" or absent, where the form's f is \"c\".")),
    (('to: x.com, when: {days: [mon, sun], hours: "22:00-06:00", timezone: UTC, not-on: 2026-12-25}, '
      'expires: 2026-12-31'),
     ("Refused: any request to x.com, on Monday and Sunday from 22:00 to 06:00 by the clocks of UTC but not on "
      "2026-12-25, until 2027-01-01T00:00:00Z.")),
    ("to: x.com, when: {days: [mon-wed, fri, sat], timezone: UTC}",
     "Refused: any request to x.com, on Monday to Wednesday, Friday and Saturday by the clocks of UTC."),
    ("to: x.com, when: {not-on: [2026-12-24, 2026-12-25], timezone: UTC}, quiet: yes",
     ("Refused: any request to x.com, on every day by the clocks of UTC but not on 2026-12-24 or 2026-12-25. "
      "It is no news: one in an hour is written down, and the others are counted.")),
    ("to: x.com, observe: yes, expires: 2099-12-31",
     ("Refused: any request to x.com, until 2100-01-01T00:00:00Z. "
      "It is on trial: nothing is refused for it, and that it holds is written down.")),
    ("to: x.com, tell: ask ana, why: it leaked",
     'Refused: any request to x.com. The agent is told: "ask ana". Why: it leaked.'),
])  # fmt: skip
def test_a_refusal_says_all_that_it_covers(keys, sentence):
    assert rule(keys) == sentence


def test_a_policy_on_trial_says_so_first():
    first, *_ = told("mode: observe\nuntil: 2026-12-31\n")["In general"]

    assert first.startswith("Until 2027-01-01T00:00:00Z this policy is on trial: what its rules refuse passes")


@pytest.mark.parametrize(("keys", "sentence"), [
    ("to: x.com, methods: reads", "Allowed: reading (GET, HEAD or OPTIONS) to x.com, over https."),
    ("to: x.com, methods: any, max-request: 0", "Allowed: any request to x.com, over https. Without a body."),
    ("to: x.com, methods: [POST], max-request: 32MB, max-response: 1GiB, max-url: 1025, stream-request: yes",
     ("Allowed: POST requests to x.com, over https. A request's body at most 32 MB, an answer's body at most 1 GiB, "
     "a URL at most 1025 bytes, the body goes out while it is still coming in.")),
    ("to: x.com, methods: [GET], websocket: {max-frame: 1MB, max-rate: 100/second}",
     ("Allowed: GET requests to x.com, over wss. The connection may become a WebSocket with messages of at most 1 MB "
     "and at most 100 messages a second.")),
    ("to: x.com, methods: [GET], ports: 8443", "Allowed: GET requests to x.com, over https, on port 8443."),
    ("to: 10.1.2.3, methods: [GET]", "Allowed: GET requests to the address 10.1.2.3, over https."),
])  # fmt: skip
def test_a_grant_says_all_that_it_allows(keys, sentence):
    assert rule(keys, "allow") == sentence


CONDITIONS = {
    "agents": "from: coders", "to": "to: x.com", "address": "address: 10.0.0.0/8", "methods": "methods: [GET]",
    "schemes": "schemes: http", "ports": "ports: 1", "paths": "paths: /a",
    "query": "query: {a: b}", "headers": "headers: {a: b}", "content_types": "content-types: text/plain",
    "json": "json: {a: b}", "form": "form: {a: b}", "llm": "llm: {}",
    "when": "when: {days: mon, timezone: UTC}", "expires": "expires: 2030-01-01",
}
TERMS = {
    "max_request": "max-request: 1", "max_response": "max-response: 1", "max_url": "max-url: 1",
    "in_flight": "in-flight: 1", "websocket": "websocket: {}", "stream_request": "stream-request: yes",
    "max_output_tokens": "llm: {max-output-tokens: 8k}", "min_output_tokens": "llm: {min-output-tokens: 1}",
}


# No policy says what `llm` is written out as before anything is matched.
@pytest.mark.parametrize("name", [field.name for field in fields(Conditions) if field.name not in ("calls", "in_path")])
def test_every_condition_is_heard_in_an_exception(name):
    assert rule(f"to: y.com, except: {{{CONDITIONS[name]}}}") != rule("to: y.com, except: {ports: 9}")
    assert "except ." not in rule(f"to: y.com, except: {{{CONDITIONS[name]}}}")


@pytest.mark.parametrize("name", [field.name for field in fields(Terms)])
def test_every_measure_is_heard(name):
    if name == "in_flight":
        (said,) = told(f"version: 1\nlimits: [{{{TERMS[name]}}}]\n")["Caps on what is allowed"]
        assert said == "For any request. At most 1 at a time."
    else:
        scheme = ", schemes: [https, wss]" if name == "websocket" else ""
        assert rule(f"to: x.com, methods: any, {TERMS[name]}{scheme}", "allow").count(".") > 2


def test_agents_are_told_apart_by_the_names_of_their_groups():
    found = told(f"""{HEAD}
  - {{deny: one, from: coders, to: a.com}}
  - {{deny: two, from: [coders, bob], to: b.com}}
  - {{deny: three, to: c.com}}
  - {{deny: four, from: coders, to: d.com}}
""")

    assert {title: len(said) for title, said in found.items() if title != "In general"} == {
        "coders (claude-* and codex-1)": 2, "coders (claude-* and codex-1) and bob": 1, "Every agent": 1}


def test_a_policy_is_told_whole():
    found = told("""\
version: 1
contact: "#ops"
identity: {anonymous: allow}
never:
  - to: [metadata]
limits:
  - {for: coder-*, to: x.com, in-flight: 4}
assert:
  - denied: {from: ana, to: "https://x.com/", method: POST, address: 10.1.2.3}
""")

    assert any("anonymous" in said for said in found["In general"])
    assert any("#ops" in said for said in found["In general"])
    assert any("name of an agent" in said for said in found["In general"])
    assert found["Never, whatever a rule allows"] == ["Never: any request to whatever leads to the metadata addresses."]
    assert found["Caps on what is allowed"] == [
        "For any request to x.com by coder-*. At most 4 at a time."]
    assert found["Checked at each load"] == [
        "The request ana POST https://x.com/, at the address 10.1.2.3, must be refused."]
