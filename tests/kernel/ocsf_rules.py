"""What the OCSF schema asks of an event, from the reviewed part of it in `ocsf-1.8.0.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "ocsf-1.8.0.json").read_text())
_TYPES = {"integer_t": int, "long_t": int, "port_t": int, "timestamp_t": int, "boolean_t": bool, "string_t": str,
          "username_t": str, "hostname_t": str, "url_t": str, "ip_t": str}


def faults(event: Mapping[str, Any]) -> list[str]:
    """All that an event breaks of the schema; nothing where it is a valid one."""
    shape = SCHEMA["classes"].get(str(event.get("class_uid")))
    if shape is None:
        return [f"class {event.get('class_uid')} is not one of the reviewed"]
    attributes = SCHEMA["classes"]["0"]["attributes"] | shape["attributes"]
    profiles = event.get("metadata", {}).get("profiles", [])
    found = list(_object("", event, {**shape, "attributes": attributes}, profiles))
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        found.append("type_uid is not class_uid * 100 + activity_id")
    if event["metadata"]["version"] != SCHEMA["version"]:
        found.append("metadata.version is not that of the reviewed schema")
    return found


def _object(at: str, value: Mapping[str, Any], shape: Mapping[str, Any], profiles: list[str]) -> Iterator[str]:
    attributes = shape["attributes"]
    for name, rule in attributes.items():
        if rule.get("required") and name not in value:
            yield f"{at}{name} is required"
    if "at_least_one" in shape and not any(name in value for name in shape["at_least_one"]):
        yield f"{at}: one of {', '.join(shape['at_least_one'])} is required"
    for name, item in value.items():
        if name not in attributes:
            yield f"{at}{name} is no attribute"
        else:
            yield from _attribute(f"{at}{name}", item, attributes[name], profiles)
            yield from _sibling(f"{at}{name}", name, value, attributes[name])


def _attribute(at: str, value: Any, rule: Mapping[str, Any], profiles: list[str]) -> Iterator[str]:
    if rule.get("profile", "host") not in profiles and "profile" in rule:
        yield f"{at} belongs to the profile {rule['profile']}, which the event does not name"
    if isinstance(value, list) is not rule.get("array", False):
        yield f"{at}: a list where none stands, or none where one does"
        return
    for item in value if isinstance(value, list) else [value]:
        yield from _item(at, item, rule, profiles)


def _item(at: str, value: Any, rule: Mapping[str, Any], profiles: list[str]) -> Iterator[str]:
    kind = rule["type"].removeprefix("object:")
    if kind in SCHEMA["objects"]:
        yield from _object(f"{at}.", value, SCHEMA["objects"][kind], profiles)
    elif kind in _TYPES and (type(value) is not _TYPES[kind] or value == ""):
        yield f"{at}: {value!r} is no {kind}"
    elif kind == "ip_t":
        ip_address(value)
    elif kind == "port_t" and not 0 <= value <= 65535:
        yield f"{at}: {value} is no port"
    if "enum" in rule and str(value) not in rule["enum"]:
        yield f"{at}: {value!r} is not in its enumeration"


def _sibling(at: str, name: str, value: Mapping[str, Any], rule: Mapping[str, Any]) -> Iterator[str]:
    """`activity_name` beside `activity_id`, `action` beside `action_id`: the caption, or any text beside 99."""
    plain = name.removesuffix("_id").removesuffix("_uid")
    said = value.get(f"{plain}_name", value.get(plain)) if name != plain else None
    if "enum" in rule and said is not None and value[name] != 99 and said != rule["enum"].get(str(value[name])):
        yield f"{at} is {rule['enum'].get(str(value[name]))!r}, and its name says {said!r}"
