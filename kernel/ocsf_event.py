"""An event of OCSF, the Open Cybersecurity Schema Framework: its classes, the names of its numbers, what all have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kernel.canonical import Value
from kernel.taking import Taking
from kernel.version import VERSION

type Object = dict[str, Value]
type Activity = tuple[int, str]

SCHEMA = "1.8.0"
"""The version of the schema (2026-03-16) whose numbers these are."""


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the schema, and the category that it is in."""

    uid: int
    name: str
    category_uid: int
    category_name: str


BASE = Class(0, "Base Event", 0, "Uncategorized")
FINDING = Class(2004, "Detection Finding", 2, "Findings")
ENTITY = Class(3004, "Entity Management", 3, "Identity & Access Management")
NETWORK = Class(4001, "Network Activity", 4, "Network Activity")
HTTP = Class(4002, "HTTP Activity", 4, "Network Activity")
LIFECYCLE = Class(6002, "Application Lifecycle", 6, "Application Activity")

OTHER = 99

_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
_STATUSES = {0: "Unknown", 1: "Success", 2: "Failure"}
_ACTIONS = {1: "Allowed", 2: "Denied", 3: "Observed"}
_DISPOSITIONS = {
    0: "Unknown",
    1: "Allowed",
    2: "Blocked",
    6: "Dropped",
    16: "No Action",
    17: "Logged",
    19: "Alert",
    26: "Unauthorized",
    27: "Error",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Source:
    """An entry that is being mapped: what each entry says of itself, and the fields of its own."""

    def __init__(self, entry: Mapping[str, Value], hashed: str) -> None:
        self.fields, self.hash = Taking(entry), hashed
        self.kind = self.fields.text("type") or "unknown"
        self.lane, self.seq = self.fields.text("lane"), self.fields.number("seq")
        self.version = self.fields.number("v")
        self.time = milliseconds(self.fields.text("ts")) or 0

    @property
    def name(self) -> str | None:
        return None if self.lane is None or self.seq is None else f"{self.lane}/{self.seq}"


@dataclass(slots=True)
class Event:
    """An event before what all events have. `says` are the attributes of its own."""

    kind: Class
    activity: Activity
    severity: int
    says: Object = field(default_factory=dict)
    flow: str | None = None

    def controlled(self, action: int, disposition: int, *, alert: bool = False) -> None:
        """What Governor did about it: the profile security_control."""
        self.says |= {
            "action_id": action,
            "action": _ACTIONS[action],
            "disposition_id": disposition,
            "disposition": _DISPOSITIONS[disposition],
            "is_alert": alert,
        }

    def ended(self, status: int, code: str | None, detail: str | None) -> None:
        """How it came out."""
        ended: Object = {"status_id": status, "status": _STATUSES[status], "status_code": code, "status_detail": detail}
        self.says |= known(ended)

    def whole(self, source: Source) -> Object:
        """The event of an entry, with all that was not taken from it under `unmapped`."""
        (activity, activity_name), kind = self.activity, self.kind
        of_type = "Other" if activity == OTHER else activity_name
        return known({
            "class_uid": kind.uid,
            "class_name": kind.name,
            "category_uid": kind.category_uid,
            "category_name": kind.category_name,
            "activity_id": activity,
            "activity_name": activity_name,
            "type_uid": kind.uid * 100 + activity,
            "type_name": f"{kind.name}: {of_type}",
            "severity_id": self.severity,
            "severity": _SEVERITIES[self.severity],
            "time": source.time,
            "metadata": self._metadata(source),
            **self.says,
            "unmapped": source.fields.left() or None,
        })

    def _metadata(self, source: Source) -> Object:
        # The one class that has an actor of its own needs no profile for it.
        profiles: list[Value] = ["host"] if "actor" in self.says and self.kind is not ENTITY else []
        if "action_id" in self.says:
            profiles.append("security_control")
        product: Object = {"name": "Governor", "vendor_name": "Governor", "version": VERSION}
        return known({
            "version": SCHEMA,
            "product": product,
            "profiles": profiles or None,
            "uid": source.hash,
            "original_event_uid": source.name,
            "correlation_uid": self.flow,
            "log_name": source.lane,
            "log_version": None if source.version is None else str(source.version),
            "sequence": source.seq,
            "event_code": source.kind,
        })


def known(fields: Mapping[str, Value]) -> Object:
    """The fields without those that are None: the schema has attributes, or has them not."""
    return {name: value for name, value in fields.items() if value is not None}


def milliseconds(stamp: str | None) -> int | None:
    """A timestamp of the log in milliseconds since 1970; None where it is none."""
    try:
        moment = datetime.fromisoformat(stamp or "")
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(milliseconds=1) if moment.tzinfo is not None else None
