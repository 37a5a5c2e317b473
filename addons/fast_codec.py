"""The fast codec: the contract of kernel/canonical.py, with orjson doing the work."""

from __future__ import annotations

import orjson

from kernel.canonical import Value, bounded, check
from kernel.errors import CanonicalError

_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


def encode(value: Value) -> bytes:
    """The one canonical form of `value`, or CanonicalError."""
    # orjson writes NaN as null, floats as they come, and knows types that are no JSON.
    check(value)
    return bounded(dump(value))


def parse(raw: bytes) -> Value:
    """The value whose canonical form is exactly `raw`, or CanonicalError."""
    value = read(bounded(raw))
    # Numbers with a fraction, an exponent or too many digits were read as floats, which `check` refuses.
    check(value)
    if dump(value) != raw:
        raise CanonicalError("not in canonical form")
    return value


def read(raw: bytes) -> Value:
    """The value of JSON whose bytes are proved otherwise, or CanonicalError. Nothing is said of its form."""
    try:
        value: Value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CanonicalError(f"not JSON: {error}") from None
    return value


def dump(value: Value) -> bytes:
    """`value` spelled canonically, whatever its size and depth; CanonicalError where it is no JSON."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise CanonicalError(f"no canonical form: {error}") from None
