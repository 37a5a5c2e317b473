"""Entries as OCSF events: valid by the schema's own rules, and saying what the entry says."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import canonical, entry, ocsf, ocsf_event
from kernel.merkle import Tree
from kernel.verdict import Action, Code
from kernel.version import VERSION
from tests.kernel.ocsf_rules import SCHEMA, faults

HASH = "ab" * 32
KERNEL = entry.kernel_identity("1.0.0", "5a" * 32)
FLOW = "0193b6c1-5a5a-7bbb-8ccc-000000000001"
STAMP = "2026-01-02T03:04:05.678901Z"


def event(body: dict[str, Any]) -> dict[str, Any]:
    whole = entry.common(str(body.get("type")), 7, "cd" * 32, STAMP, 1_000, "main") | body
    made: dict[str, Any] = ocsf.event(whole, HASH)
    return made


def decision(**changes: Any) -> dict[str, Any]:
    facts = entry.request_facts("GET", "https", "api.example.org", 443, "ee" * 32, "192.0.2.7", 12, "text/plain")
    facts |= changes.pop("facts", {})
    given = {"stage": "request", "flow": FLOW, "agent": "coder-1", "by": "cert", "policy": "c0" * 32, "facts": facts,
             "groups": ["r"], "verdict": "allow", "rule": "r", "code": "ALLOW", "reason": "rule r", "mode": "enforce"}
    return entry.decision(**given | changes)


BODIES: dict[str, dict[str, Any]] = {
    "genesis": entry.genesis("00" * 8, "governor/x", "key", STAMP, "1.0.0"),
    "lane_open": entry.lane_open("key", "cert", KERNEL, [entry.sibling("w0", 3, "ab" * 32)]),
    "segment_open": entry.segment_open("000001.jsonl", Tree()),
    "state_snapshot": entry.state_snapshot(3, "d5" * 32, 4096, 2, 3),
    "policy_load": entry.policy_load("c0" * 32, ["default.yaml", "team.yaml"], "enforce", KERNEL),
    "decision": decision(),
    "outcome": entry.outcome(FLOW, "main/6", "completed", 200, 312, 20480),
    "connection": entry.connection("192.0.2.9", "malformed", "MALFORMED"),
    "refusals": entry.refusals("coder-1", {"RATE_LIMITED": 40, "DEFAULT_DENY": 2}, STAMP, STAMP),
    "fault": entry.fault("request", "ValueError", "FAULT", FLOW),
    "halt": entry.halt("coder-1", "OVERRISK", "risk", "main/6", ["192.0.2.9", "2001:db8::1"]),
    "operator": entry.operator("agents halt", "coder-1", "asked by the team", "ann", "control:ann"),
    "clock": entry.clock(STAMP, STAMP),
    "config": entry.config({"mode": "regular"}, {"mitmproxy": "12.2.3"}),
    "recovery": entry.recovery("000000.jsonl", 4096, 17, "ef" * 32),
    "close": entry.close("stopped"),
    "key_rotate": {"type": "key_rotate", "key": "governor/x/main+01020304+AAAA", "proof": "AAAA", "reason": "size"},
    "key_compromised": {"type": "key_compromised", "of": "main", "kid": "01020304", "entries": 7, "head": "ab" * 32,
                        "reason": "stolen", "operator": "ann", "by": "cli", "statement": "AAAA"},
    "anchor": {"type": "anchor", "kind": "s3", "target": "s3://bucket/prefix", "of": "main", "size": 7,
               "root": "ab" * 32, "proof": {"version": "x"}},
    "lease": entry.lease("granted", "5ec0ffee", 7, ("team", "usd", "coder-1"), 81920, 3_000_000, 500),
    "lease of a later version": {"type": "lease", "budget": "b", "amount": 3},
    "erase": {"type": "erase", "reason": "asked"},
    "heartbeat": {"type": "heartbeat"},
    "preventive": entry.preventive("coder-2", "throttle", STAMP, "coder-1", ["coder-1", "coder-2"], 1, "main/6",
                                   "on-halt", degraded=True),
    "what a later version writes": {"type": "spin", "how": {"fast": True}},
}
CLASSES = {
    "decision": 4002, "outcome": 4002, "connection": 4001, "halt": 2004, "preventive": 2004, "fault": 2004,
    "recovery": 2004,
    "key_compromised": 2004, "operator": 3004, "policy_load": 3004, "config": 3004, "key_rotate": 3004,
    "lane_open": 6002, "close": 6002,
}


@pytest.mark.parametrize("name", BODIES)
def test_every_type_of_entry_becomes_a_valid_event_of_its_class(name):
    made = event(BODIES[name])

    assert faults(made) == []
    assert made["class_uid"] == CLASSES.get(name, 0)


@pytest.mark.parametrize("name", BODIES)
def test_every_event_names_its_entry(name):
    made = event(BODIES[name])

    assert made["metadata"]["uid"] == HASH
    assert (made["metadata"]["log_name"], made["metadata"]["sequence"]) == ("main", 7)
    assert made["metadata"]["original_event_uid"] == "main/7"
    assert made["metadata"]["event_code"] == BODIES[name]["type"]
    assert made["time"] == datetime.fromisoformat(STAMP).timestamp() * 1000 // 1 == 1767323045678


@pytest.mark.parametrize("name", BODIES)
def test_all_that_an_entry_says_is_in_its_event(name):
    said = json.dumps(event(BODIES[name]))

    for text in _texts(BODIES[name]):
        assert json.dumps(text)[1:-1] in said


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for name, item in value.items() if name not in ("from", "to") for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_a_decision_is_told_whole():
    made = event(decision())

    assert made == {
        "class_uid": 4002, "class_name": "HTTP Activity", "category_uid": 4, "category_name": "Network Activity",
        "activity_id": 3, "activity_name": "Get", "type_uid": 400203, "type_name": "HTTP Activity: Get",
        "severity_id": 1, "severity": "Informational", "time": 1767323045678,
        "metadata": {
            "version": "1.8.0", "product": {"name": "Governor", "vendor_name": "Governor", "version": VERSION},
            "profiles": ["host", "security_control"], "uid": HASH, "original_event_uid": "main/7",
            "correlation_uid": FLOW, "log_name": "main", "log_version": "1", "sequence": 7, "event_code": "decision",
        },
        "http_request": {
            "uid": FLOW, "http_method": "GET", "body_length": 12,
            "url": {"url_string": "https://api.example.org", "scheme": "https", "hostname": "api.example.org",
                    "port": 443},
        },
        "dst_endpoint": {"hostname": "api.example.org", "ip": "192.0.2.7", "port": 443},
        "actor": {"app_name": "coder-1"}, "firewall_rule": {"uid": "r"}, "policy": {"uid": "c0" * 32},
        "action_id": 1, "action": "Allowed", "disposition_id": 1, "disposition": "Allowed", "is_alert": False,
        "status_id": 1, "status": "Success", "status_code": "ALLOW", "status_detail": "rule r",
        "unmapped": {
            "prev": "cd" * 32, "mono_us": 1000, "stage": "request", "agent": {"by": "cert"}, "groups": ["r"],
            "in": {"path$c": "ee" * 32, "content_type": "text/plain"}, "pre": entry.EMPTY_SET, "post": entry.EMPTY_SET,
            "draws": [], "verdict": "allow", "mode": "enforce",
        },
    }


@pytest.mark.parametrize(("changes", "action", "disposition", "severity"), [
    pytest.param({}, 1, 1, 1, id="allowed"),
    pytest.param({"code": "TUNNEL", "stage": "connect"}, 1, 1, 1, id="a tunnel"),
    pytest.param({"verdict": "throttle"}, 1, 1, 2, id="let through at its rate"),
    pytest.param({"verdict": "throttle", "code": "RATE_LIMITED"}, 2, 2, 2, id="above its rate"),
    pytest.param({"verdict": "ask", "code": "APPROVAL_PENDING"}, 2, 2, 2, id="not approved yet"),
    pytest.param({"verdict": "deny", "code": "RULE_DENY"}, 2, 2, 3, id="denied"),
    pytest.param({"verdict": "deny", "code": "IDENTITY_REFUSED"}, 2, 26, 3, id="nobody known"),
    pytest.param({"verdict": "deny", "code": "FAULT"}, 2, 27, 3, id="a fault"),
    pytest.param({"verdict": "halt", "code": "RULE_HALT"}, 2, 2, 4, id="halted"),
    pytest.param({"verdict": "deny", "code": "RULE_DENY", "mode": "observe"}, 3, 17, 3, id="on trial: it passed"),
    pytest.param({"mode": "observe"}, 1, 1, 1, id="on trial, and allowed anyway"),
    pytest.param({"verdict": "allow", "code": "ORIGIN_FAILED"}, 2, 2, 1, id="an allow that passed nothing"),
    pytest.param({"verdict": "perhaps", "code": "NEW"}, 2, 2, 3, id="unknown: no pass is claimed"),
])
def test_what_was_done_about_a_request_has_the_schemas_numbers(changes, action, disposition, severity):
    made = event(decision(**changes))

    assert faults(made) == []
    assert (made["action_id"], made["disposition_id"], made["severity_id"]) == (action, disposition, severity)
    assert made["is_alert"] is (changes.get("verdict") == "halt")


@pytest.mark.parametrize("verdict", Action)
@pytest.mark.parametrize("code", Code)
def test_every_verdict_with_every_code_is_a_valid_event_that_passes_only_what_passed(verdict, code):
    made = event(decision(verdict=str(verdict), code=str(code)))

    assert faults(made) == []
    assert (made["action"] == "Allowed") is (verdict in ("allow", "throttle") and code in ("ALLOW", "TUNNEL"))


@pytest.mark.parametrize(("stage", "method", "activity"), [
    ("request", "GET", (3, "Get")), ("message", "GET", (3, "Get")), ("request", "PATCH", (9, "Patch")),
    ("connect", "CONNECT", (1, "Connect")), ("connect", None, (1, "Connect")), ("request", None, (0, "Unknown")),
    ("request", "PROPFIND", (99, "PROPFIND")), ("request", "a\nb", (99, "a\nb")),
])
def test_the_activity_is_the_method(stage, method, activity):
    made = event(decision(stage=stage, facts={"method": method}))

    assert (made["activity_id"], made["activity_name"]) == activity
    assert faults(made) == []


def test_a_host_that_is_a_commitment_is_told_as_its_domain_and_never_as_a_url():
    made = event(decision(facts={"host": "example.org", "host$c": "dd" * 32}))

    assert made["dst_endpoint"] == {"domain": "example.org", "ip": "192.0.2.7", "port": 443}
    assert "url" not in made["http_request"]
    assert made["unmapped"]["in"]["host$c"] == "dd" * 32


def test_an_outcome_tells_its_answer_and_its_traffic_seen_from_the_agent():
    made = event(entry.outcome(FLOW, "main/6", "cut", 200, 312, 20480, part=2, code="BUDGET_EXHAUSTED"))

    assert made["traffic"] == {"bytes": 20792, "bytes_out": 312, "bytes_in": 20480}
    assert made["http_response"] == {"code": 200}
    assert (made["disposition"], made["status"], made["status_code"]) == ("Dropped", "Failure", "BUDGET_EXHAUSTED")
    assert made["unmapped"]["decision"] == "main/6"
    assert made["metadata"]["correlation_uid"] == FLOW


@pytest.mark.parametrize("result", ["completed", "aborted", "cut", "failed", "unknown", "not_sent", "later"])
@pytest.mark.parametrize("status", [None, 204])
def test_every_result_is_a_valid_event(result, status):
    assert faults(event(entry.outcome(FLOW, "main/6", result, status))) == []


@pytest.mark.parametrize(("act", "status", "severity"), [
    ("granted", "Success", 1), ("settled", "Success", 1), ("refused", "Failure", 1), ("lost", "Failure", 2)])
def test_a_lease_says_what_became_of_it_and_whose_it_is(act, status, severity):
    made = event(entry.lease(act, "5ec0ffee", 7, ("team", "usd", "coder-1"), 81920, 3_000_000, 500))

    assert (made["activity_name"], made["status"], made["severity_id"]) == (f"Lease {act}", status, severity)
    assert made["actor"] == {"app_name": "coder-1"}
    assert (made["unmapped"]["lease"], made["unmapped"]["amount"], made["unmapped"]["elsewhere"]) == (7, 3_000_000, 500)
    assert faults(made) == []


@pytest.mark.parametrize(("act", "activity"), [
    ("agents add", "Create"), ("agents rotate", "Update"), ("agents remove", "Delete"), ("agents halt", "Deactivate"),
    ("agents release", "Activate"), ("agents quarantine", "Suspend"), ("clock accept", "Update"), ("reload", "Update"),
    ("ca rotate", "Update"), ("agents praise", "agents praise"),
])
def test_an_act_says_who_did_what_to_whom(act, activity):
    made = event(entry.operator(act, "coder-1" if act.startswith("agents") else None, "why", "ann", "control:ann"))

    assert made["activity_name"] == activity
    assert made["actor"] == {"user": {"name": "ann", "type_id": 2, "type": "Admin"}, "invoked_by": "control:ann"}
    assert made["entity"]["name"] == ("coder-1" if act.startswith("agents") else act.split()[0])
    assert faults(made) == []


@pytest.mark.parametrize(("client", "name"), [
    ("192.0.2.9", "ip"), ("2001:db8::9", "ip"), ("fe80::1%eth0", "name"), ("192.0.2.9:80", "name"),
    ("a socket", "name"),
])
def test_a_client_is_told_as_an_address_where_it_is_one_that_means_the_same_elsewhere(client, name):
    made = event(entry.connection(client, "malformed", "MALFORMED"))

    assert made["src_endpoint"] == {name: client}
    assert faults(made) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_$", max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(BODIES)), st.data())
def test_whatever_stands_in_an_entry_the_event_is_valid_and_one_line(name, data):
    body = dict(BODIES[name])
    for field in data.draw(st.sets(st.sampled_from([*body, "ts", "seq", "lane", "v"]))):
        body[field] = data.draw(JSON)
    if name == "decision" and isinstance(body["in"], dict) and body["in"]:
        facts = data.draw(st.sets(st.sampled_from(sorted(body["in"]))))
        body["in"] = body["in"] | {field: data.draw(JSON) for field in facts}

    made = event(body)

    assert faults(made) == []
    assert b"\n" not in canonical.encode(made)


def test_the_checker_sees_what_is_wrong_with_an_event():
    good = event(decision())
    without = {name: value for name, value in good.items() if name not in ("http_request", "severity_id")}
    wrong = good | {"activity_id": 8, "disposition_id": 55, "surplus": 1, "dst_endpoint": {"port": 7}, "time": "now"}
    plain = good | {"metadata": good["metadata"] | {"profiles": []}}

    assert {"severity_id is required", ": one of http_request, http_response is required"} <= set(faults(without))
    assert {"activity_id is 'Trace', and its name says 'Get'", "disposition_id: 55 is not in its enumeration",
            "surplus is no attribute", "time: 'now' is no timestamp_t", "type_uid is not class_uid * 100 + activity_id",
            } <= set(faults(wrong))
    assert any(fault.startswith("dst_endpoint.: one of") for fault in faults(wrong))
    assert "actor belongs to the profile host, which the event does not name" in faults(plain)


def test_the_reviewed_schema_is_the_version_that_events_name():
    assert SCHEMA["version"] == ocsf_event.SCHEMA
