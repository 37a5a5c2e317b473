"""The parts of a JSON Schema: the forms that a value of a policy can have.

An editor may read `443`, `yes` or `1.5` as a number or a truth value, so every value may be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kernel.document import Keys

Schema = dict[str, Any]
Described = tuple[Schema, str]
"""The form of what stands under a key, and what the key is for."""

_SCALAR = ["string", "number", "boolean"]
_ABOVE_ZERO = "0*[1-9][0-9]*"


def text(pattern: str = "") -> Schema:
    return {"type": _SCALAR, "minLength": 1, **({"pattern": pattern} if pattern else {})}


def words(one: Schema) -> Schema:
    return {"anyOf": [one, {"type": "array", "minItems": 1, "items": one}]}


def items(name: str) -> Schema:
    return {"type": "array", "items": ref(name)}


def ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def names(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def one_of(options: Iterable[str]) -> Schema:
    return {"enum": sorted(options)}


def mapping(keys: Keys, described: Mapping[str, Described]) -> Schema:
    """An object with these keys, those of a later version among them, and no others."""
    properties = {name: {**described[name][0], "description": described[name][1]}
                  for name in sorted(keys.now | keys.ahead)}
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": list(keys.required)} if keys.required else found


def with_one_of(keys: Keys, described: dict[str, Described], *needed: str) -> Schema:
    """An object that says at least one of the keys."""
    return {**mapping(keys, described), "anyOf": [{"required": [key]} for key in needed]}


NAME = text("^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")
GLOBS = words(text("^[A-Za-z0-9_*]([A-Za-z0-9_*./:@-]{0,126}[A-Za-z0-9_*])?$"))
YES: Schema = {"enum": ["yes", True]}
YES_OR_NO: Schema = {"enum": ["yes", "no", True, False]}
SIZE = text("^[0-9]+([KMG]i?B)?$")
POSITIVE_SIZE = text(f"^{_ABOVE_ZERO}([KMG]i?B)?$")
COUNT = text(f"^{_ABOVE_ZERO}$")
TALLY = text(f"^{_ABOVE_ZERO}[kMG]?$")
MONEY = text(r"^(?=.*[1-9])[0-9]+(\.[0-9]{1,6})?$")
DURATION = text(f"^{_ABOVE_ZERO}[smhd]$")
PERCENTAGE = text(f"^{_ABOVE_ZERO}%$")
RATE = text(f"^{_ABOVE_ZERO}/(second|minute|hour|day)$")
