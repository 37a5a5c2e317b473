"""What a rule or limits item says of sizes, rates and numbers, from text to `Terms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kernel.document import Node, Reader
from kernel.facts import UPGRADES
from kernel.llm_terms import Llm
from kernel.measures import NOTHING_SAID, Terms, WebSocketMeasures
from kernel.policy import Conditions, UrlPattern
from kernel.quantity import count, positive_size, rate, size
from kernel.vocabulary import GRANT_TERMS, SIZES, WEBSOCKET

_UPGRADE_METHOD = "GET"


def grant_terms(reader: Reader, found: Mapping[str, Node], said: Llm | None = None) -> Terms:
    """What an allow with these keys says; `said` is its `llm:`."""
    if not found.keys() & GRANT_TERMS and (said is None or not said.has_measures):
        return NOTHING_SAID
    if "stream-request" in found:
        for key in found.keys() & {"json", "form", "llm"}:
            message = f'"{key}:" means nothing beside "stream-request:": the body passes before it could be read'
            reader.error("E112", found[key], message, "take one of them out, or make two rules")
    said = said or Llm()
    return replace(
        _sizes(reader, found),
        max_output_tokens=said.max_output_tokens,
        min_output_tokens=said.min_output_tokens,
        websocket=_websocket(reader, found["websocket"]) if "websocket" in found else None,
        stream_request="stream-request" in found and is_yes(reader, found["stream-request"], "stream-request"),
    )


def limit_terms(reader: Reader, node: Node, found: Mapping[str, Node], said: Llm | None) -> Terms:
    """What an item of limits says: one cap at least. `said` is its `llm:`."""
    longest = None if said is None else said.max_output_tokens
    if longest is None and not found.keys() & (SIZES | {"in-flight"}):
        hint = "say max-request:, max-response:, max-url:, in-flight: or llm: {max-output-tokens: N}"
        reader.error("E104", node, "an item of limits without a cap limits nothing", hint)
    if said is not None and said.min_output_tokens is not None:
        message = '"min-output-tokens:" means nothing in an item of limits: it caps nothing'
        reader.error("E112", found["llm"], message, "it stands in an allow")
    return replace(_sizes(reader, found), max_output_tokens=longest,
                   in_flight=reader.value(found, "in-flight", "E209", count))


def check_upgrades(reader: Reader, found: Mapping[str, Node], where: Conditions) -> None:
    """An allow speaks of WebSockets with its scheme and with `websocket:`, or not at all."""
    covered = where.schemes or frozenset(item.scheme for item in where.to or () if isinstance(item, UrlPattern))
    websocket = found.get("websocket")
    if websocket is None:
        if covered & UPGRADES:
            node = found["schemes"] if "schemes" in found else found["to"]
            message = f'an allow for {" and ".join(sorted(covered & UPGRADES))} needs "websocket:"'
            hint = "add websocket: {max-frame: 1MB, max-rate: 100/second}, or websocket: {} for no cap"
            reader.error("E104", node, message, hint)
    elif not covered & UPGRADES:
        hint = "take it out, or write schemes: wss; in a URL pattern wss:// is the scheme"
        reader.error("E112", websocket, '"websocket:" means nothing in an allow for neither ws nor wss', hint)
    elif where.methods is not None and _UPGRADE_METHOD not in where.methods:
        message = f'"websocket:" means nothing in an allow without {_UPGRADE_METHOD}: a WebSocket is asked for with it'
        reader.error("E112", websocket, message, f"add {_UPGRADE_METHOD} to methods")


def _sizes(reader: Reader, found: Mapping[str, Node]) -> Terms:
    return Terms(
        max_request=reader.value(found, "max-request", "E209", size),
        max_response=reader.value(found, "max-response", "E209", positive_size),
        max_url=reader.value(found, "max-url", "E209", positive_size),
    )


def _websocket(reader: Reader, node: Node) -> WebSocketMeasures:
    found = reader.mapping(node, WEBSOCKET) or {}
    frame = reader.value(found, "max-frame", "E209", positive_size)
    return WebSocketMeasures(frame, reader.value(found, "max-rate", "E209", rate))


def is_yes(reader: Reader, node: Node, key: str) -> bool:
    """True where a key that is yes or left out says yes."""
    said = reader.text(node, key)
    if said not in ("yes", None):
        reader.error("E102", node, f"{key} is yes, or is left out")
    return said == "yes"
