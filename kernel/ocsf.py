"""An entry of the log as an event of the Open Cybersecurity Schema Framework (OCSF), for a SIEM.

Nothing is added to what the entry says and nothing of it is lost: what the schema has no place for stands under
`unmapped` as it stood in the entry. kernel/README.md, section "OCSF", has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from kernel.canonical import Value
from kernel.normal import OWN_PORTS
from kernel.ocsf_event import (
    BASE,
    ENTITY,
    FINDING,
    HTTP,
    LIFECYCLE,
    NETWORK,
    OTHER,
    Activity,
    Event,
    Object,
    Source,
    known,
    milliseconds,
)
from kernel.taking import Taking
from kernel.verdict import Action, Code

_UNKNOWN = (0, "Unknown")
_METHODS = {
    "CONNECT": (1, "Connect"),
    "DELETE": (2, "Delete"),
    "GET": (3, "Get"),
    "HEAD": (4, "Head"),
    "OPTIONS": (5, "Options"),
    "POST": (6, "Post"),
    "PUT": (7, "Put"),
    "TRACE": (8, "Trace"),
    "PATCH": (9, "Patch"),
}
_ACTIVATE = (10, "Activate")
_UPDATE = (3, "Update")
_ACTS = {
    "agents add": (1, "Create"),
    "agents rotate": _UPDATE,
    "agents remove": (4, "Delete"),
    "agents halt": (11, "Deactivate"),
    "agents halt all": (11, "Deactivate"),
    "agents release": _ACTIVATE,
    "agents release all": _ACTIVATE,
    "agents quarantine": (12, "Suspend"),
    "clock accept": _UPDATE,
    "ca rotate": _UPDATE,
    "reload": _UPDATE,
}
_ENDINGS = {"no_request": (2, "Close"), "refused": (5, "Refuse")}
_FAIL = (4, "Fail")
_CREATE = (1, "Create")
_START, _STOP = (3, "Start"), (4, "Stop")

_PASSING = (Code.ALLOW, Code.TUNNEL)
_PASSING_VERDICTS = (Action.ALLOW, Action.THROTTLE)
_ERRORS = (
    Code.FAULT,
    Code.DEADLINE,
    Code.AUDIT_UNAVAILABLE,
    Code.POOL_UNREACHABLE,
    Code.CLOCK_JUMP,
    Code.CONTRACT_VIOLATION,
)
_UNAUTHORIZED = (Code.IDENTITY_REQUIRED, Code.IDENTITY_REFUSED, Code.IDENTITY_CONFLICT)
_VERDICTS = {"allow": 1, "throttle": 2, "ask": 2, "deny": 3, "halt": 4}
# Of each result of a flow that was let through: severity, disposition, status.
_RESULTS = {
    "completed": (1, 1, 1),
    "aborted": (1, 1, 2),
    "cut": (3, 6, 2),
    "failed": (2, 27, 2),
    "not_sent": (1, 16, 1),
}

_LAST_PORT = 65535


def event(entry: Mapping[str, Value], hashed: str) -> Object:
    """The event that an entry with this hash (hex) is. Total: whatever an entry holds, it is a valid one."""
    source = Source(entry, hashed)
    mapping = _MAPPINGS.get(source.kind)
    mapped = mapping(source) if mapping else None
    if mapped is None:
        source = Source(entry, hashed)
        mapped = _base(source)
    return mapped.whole(source)


def _decision(source: Source) -> Event | None:
    fields, facts = source.fields, source.fields.part("in")
    activity = _activity(fields.peek("stage"), facts.peek("method"))
    verdict, code, flow = fields.peek("verdict"), fields.text("code"), fields.text("flow")
    mapped = Event(HTTP, activity, _VERDICTS.get(verdict or "", 3), flow=flow)
    destination = _destination(facts)
    mapped.says = known({
        "http_request": _request(facts, flow, destination),
        "dst_endpoint": destination,
        "actor": _agent(fields.part("agent").text("id")),
        "firewall_rule": _uid(fields.text("rule")),
        "policy": _uid(fields.text("policy")),
    })
    passed = verdict in _PASSING_VERDICTS and code in _PASSING
    on_trial = fields.peek("mode") == "observe" and not passed
    action, disposition = _control(code, passed=passed, on_trial=on_trial)
    mapped.controlled(action, disposition, alert=verdict == Action.HALT and not on_trial)
    mapped.ended(2 if action == 2 else 1, code, fields.text("reason"))
    return mapped if "http_request" in mapped.says else None


def _activity(stage: str | None, method: str | None) -> Activity:
    if stage == "connect":
        return _METHODS["CONNECT"]
    return _UNKNOWN if method is None else _METHODS.get(method, (OTHER, method))


def _control(code: str | None, *, passed: bool, on_trial: bool) -> tuple[int, int]:
    """The action and the disposition of a decision."""
    if passed:
        return 1, 1
    if on_trial:
        return 3, 17
    if code in _ERRORS:
        return 2, 27
    return (2, 26) if code in _UNAUTHORIZED else (2, 2)


def _request(facts: Taking, flow: str | None, destination: Object | None) -> Object | None:
    method = facts.text("method") if facts.peek("method") in _METHODS else None
    asked = known({
        "uid": flow,
        "http_method": method,
        "body_length": facts.number("body_bytes"),
        "url": _url(facts, destination or {}),
    })
    return asked or None


def _url(facts: Taking, destination: Object) -> Object | None:
    """The URL without its path, which the log holds as a commitment; none where the host is one, too."""
    host, port = destination.get("hostname"), destination.get("port")
    scheme = facts.peek("scheme")
    if not isinstance(host, str) or scheme is None:
        return None
    facts.text("scheme")
    at_port = "" if port in (None, OWN_PORTS.get(scheme)) else f":{port}"
    return known({"url_string": f"{scheme}://{host}{at_port}", "scheme": scheme, "hostname": host, "port": port})


def _destination(facts: Taking) -> Object | None:
    host, address = facts.peek("host"), facts.peek("address")
    # Beside a commitment to the host stands the registrable domain only.
    of_host = "domain" if facts.peek("host$c") else "hostname"
    if host is None and not _is_address(address):
        return None
    if _is_address(address):
        facts.text("address")
    else:
        address = None
    return known({of_host: facts.text("host"), "ip": address, "port": facts.number("port", _LAST_PORT)})


def _outcome(source: Source) -> Event | None:
    fields = source.fields
    flow, status, result = fields.text("flow"), fields.number("status"), fields.text("result")
    severity, disposition, ended = _RESULTS.get(result or "", (2, 0, 0))
    mapped = Event(HTTP, (OTHER, "Outcome"), severity, flow=flow)
    mapped.says = known({
        "http_request": known({"uid": flow}) or None,
        "http_response": None if status is None else {"code": status},
        "traffic": _traffic(fields),
    })
    mapped.controlled(1, disposition)
    mapped.ended(ended, fields.text("code"), result)
    return mapped if flow is not None or status is not None else None


def _traffic(fields: Taking) -> Object | None:
    sent, received = fields.number("bytes_up"), fields.number("bytes_down")
    if sent is None and received is None:
        return None
    return known({"bytes": (sent or 0) + (received or 0), "bytes_out": sent, "bytes_in": received})


def _connection(source: Source) -> Event | None:
    client = source.fields.text("client")
    if client is None:
        return None
    result, code = source.fields.text("result"), source.fields.text("code")
    mapped = Event(NETWORK, _ENDINGS.get(result or "", _FAIL), 1 if code is None else 2)
    mapped.says = {"src_endpoint": {"ip" if _is_address(client) else "name": client}}
    if code is not None:
        mapped.controlled(2, 2)
    mapped.ended(1 if result == "no_request" else 2, code, result)
    return mapped


def _refusals(source: Source) -> Event:
    """Many refusals of many codes are no activity of the schema: a base event that counts."""
    fields = source.fields
    mapped = Event(BASE, (OTHER, "Refusals"), 2)
    mapped.says = known({
        "actor": _agent(fields.text("agent")),
        "count": fields.counts("counts"),
        "start_time": milliseconds(fields.peek("from")),
        "end_time": milliseconds(fields.peek("to")),
    })
    mapped.controlled(2, 2)
    return mapped


def _lease(source: Source) -> Event:
    """What a ledger says of a budget is no activity of the schema, either."""
    act = source.fields.text("act") or "unknown"
    mapped = Event(BASE, (OTHER, f"Lease {act}"), 2 if act == "lost" else 1)
    mapped.says = known({"actor": _agent(source.fields.text("for"))})
    mapped.ended(1 if act in ("granted", "settled") else 2, None, act)
    return mapped


def _halt(source: Source) -> Event:
    fields = source.fields
    reason = fields.text("reason")
    mapped = _finding(source, "An agent was halted", 4, reason)
    evidences: list[Value] = [{"src_endpoint": {"ip": address}} for address in _addresses(fields.texts("sources"))]
    mapped.says |= known({
        "actor": _agent(fields.text("agent")),
        "firewall_rule": _uid(fields.text("rule")),
        "evidences": evidences or None,
    })
    mapped.controlled(2, 2, alert=True)
    return mapped


def _preventive(source: Source) -> Event:
    fields = source.fields
    mapped = _finding(source, "An agent was held back because another one was halted", 3, fields.text("do"))
    mapped.says |= known({"actor": _agent(fields.text("agent"))})
    mapped.controlled(2, 2, alert=True)
    return mapped


def _fault(source: Source) -> Event:
    code = source.fields.text("code")
    mapped = _finding(source, "A fault of Governor was answered with a refusal", 3, code)
    mapped.flow = source.fields.text("flow")
    mapped.controlled(2, 27, alert=True)
    return mapped


def _recovery(source: Source) -> Event:
    return _finding(source, "An unfinished write was put aside and cut off the log", 3, None)


def _key_compromised(source: Source) -> Event:
    mapped = _finding(source, "A signing key of the log was compromised", 5, source.fields.text("reason"))
    mapped.controlled(3, 19, alert=True)
    return mapped


def _finding(source: Source, title: str, severity: int, code: str | None) -> Event:
    mapped = Event(FINDING, _CREATE, severity)
    info: Object = {"uid": source.hash, "title": title, "created_time": source.time, "types": [source.kind]}
    mapped.says = known({"finding_info": info, "message": title, "status_id": 1, "status": "New", "status_code": code})
    return mapped


def _operator(source: Source) -> Event:
    fields = source.fields
    act, agent = fields.text("act") or "unknown", fields.text("agent")
    operator, by = fields.text("operator"), fields.text("by")
    mapped = Event(ENTITY, _ACTS.get(act, (OTHER, act)), 2)
    user: Object | None = None if operator is None else {"name": operator, "type_id": 2, "type": "Admin"}
    actor = known({"user": user, "invoked_by": by})
    entity = _entity("AI agent", name=agent) if agent else _entity("Governor", name=act.partition(" ")[0])
    mapped.says = known({"entity": entity, "actor": actor or None, "comment": fields.text("reason")})
    mapped.ended(1, act, None)
    return mapped


def _policy_load(source: Source) -> Event:
    digest, files = source.fields.text("policy"), source.fields.texts("files")
    policy = known({"uid": digest, "name": ", ".join(files) or None, "is_applied": True})
    mapped = Event(ENTITY, _ACTIVATE, 2)
    entity: Object = {"type_id": 5, "type": "Policy", "policy": policy if len(policy) > 1 else {"name": "unknown"}}
    mapped.says = {"entity": entity}
    return mapped


def _config(_source: Source) -> Event:
    return Event(ENTITY, _UPDATE, 1, {"entity": _entity("Configuration", name="settings")})


def _key_rotate(source: Source) -> Event:
    key = source.fields.text("key") or "unknown"
    return Event(ENTITY, _UPDATE, 1, {"entity": _entity("Signing key", uid=key)})


def _entity(kind: str, **names: Value) -> Object:
    return {"type_id": OTHER, "type": kind, **names}


def _lane_open(source: Source) -> Event:
    version = source.fields.part("kernel").text("version")
    app = known({"name": "Governor", "vendor_name": "Governor", "version": version})
    return Event(LIFECYCLE, _START, 1, {"app": app})


def _close(source: Source) -> Event:
    mapped = Event(LIFECYCLE, _STOP, 1, {"app": {"name": "Governor", "vendor_name": "Governor"}})
    mapped.ended(1, None, source.fields.text("reason"))
    return mapped


def _base(source: Source) -> Event:
    return Event(BASE, (OTHER, source.kind), 3 if source.kind == "clock" else 1)


_MAPPINGS = {
    "decision": _decision,
    "outcome": _outcome,
    "connection": _connection,
    "refusals": _refusals,
    "lease": _lease,
    "halt": _halt,
    "preventive": _preventive,
    "fault": _fault,
    "recovery": _recovery,
    "key_compromised": _key_compromised,
    "operator": _operator,
    "policy_load": _policy_load,
    "config": _config,
    "key_rotate": _key_rotate,
    "lane_open": _lane_open,
    "close": _close,
}


def _agent(agent: str | None) -> Object | None:
    return None if agent is None else {"app_name": agent}


def _uid(text: str | None) -> Object | None:
    return None if text is None else {"uid": text}


def _addresses(texts: list[str]) -> list[str]:
    return [text for text in texts if _is_address(text)]


def _is_address(text: str | None) -> bool:
    try:
        address = ip_address(text or "")
    except ValueError:
        return False
    # A zone may be of any length and means nothing on another machine.
    return address.version == 4 or address.scope_id is None
