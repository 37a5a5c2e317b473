"""What a reading of a policy finds: coded, placed, in plain words, with a witness where one exists."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kernel.policy import Position


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Witness:
    """A request that shows a finding: it can be given to `governor policy explain` as it stands.

    `at` is the second since 1970 at which it is made; None where that does not matter.
    """

    agent: str
    method: str
    url: str
    address: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `code` is E..., W... or I...; kernel/README.md lists them all."""

    code: str
    severity: Severity
    position: Position
    message: str
    hint: str = ""
    rules: tuple[str, ...] = ()
    witness: Witness | None = None

    def __str__(self) -> str:
        said = f"{self.position}: {self.code} {self.message}"
        return f"{said} ({self.hint})" if self.hint else said


CATALOGUE: dict[str, str] = {
    "E100": "The file is not YAML of the kind that Governor reads: syntax, encoding, anchors, tags, size or depth.",
    "E101": "A key stands twice in one mapping.",
    "E102": "A value has another form than its key wants.",
    "E103": "A key is not known here.",
    "E104": "Something that must be said is missing.",
    "E105": "A word in `to` looks like the name of a destination or range, and none has it.",
    "E106": "A name is not allowed: its characters, or a word with a meaning of its own.",
    "E107": "A name is used for two things.",
    "E108": "Two keys of one rule speak of the same thing.",
    "E109": "The policy is of another version of the language.",
    "E110": "A rule has two verbs.",
    "E111": "No file is given.",
    "E112": "A key stands where it means nothing.",
    "E180": "A key, verb or value belongs to the language, and this version cannot enforce it.",
    "E201": "A host pattern or address range in `to` is not valid.",
    "E202": "An address range is not valid.",
    "E203": "A path pattern is not valid.",
    "E204": "A URL pattern is not valid.",
    "E205": "An agent id or id pattern is not valid.",
    "E206": "A port or port range is not valid.",
    "E207": "A method is not valid.",
    "E208": "A scheme is not valid.",
    "E209": "A size, count or rate is not valid.",
    "E210": "A comparison of a field is not valid.",
    "E211": "The name of a field is not valid.",
    "E212": "A date or time is not valid.",
    "E213": "A time zone is not known here.",
    "E214": "A day of the week is not valid.",
    "E215": "A span of hours is not valid.",
    "E405": "A whole secret stands in the policy.",
    "E220": "An amount of money is not valid.",
    "E221": "A number, perhaps with k, M or G, is not valid.",
    "E222": "A duration is not valid.",
    "E223": "A percentage is not valid.",
    "E224": "The window of a budget is not valid.",
    "E225": "What a threshold, a counter or a halt leads to is not valid.",
    "E226": "A word is none of those that the key knows: detectors, profiles, reasons of a halt, record types.",
    "E227": "A header that a rule would add is not valid, or is none that a rule may set.",
    "E228": "A name, or a pattern of names, of models, tools, repositories, fields, keys or approvers is not valid.",
    "E229": "A name in `depends` is no group and no agent of a group.",
    "E230": "The file of the CA for clients is missing, cannot be read, or holds no CA that is still valid.",
    "E502": "A budget of money does not say what happens when it is used up.",
    "E601": "A halt can spread in a circle and halt everybody in it.",
    "W105": "A word in `to` is read as a host of one label, and no destination has that name.",
    "W120": "A word in `from` is no group, no id of a group and no registered agent.",
    "W121": "`from` names `anonymous`, and the identity section lets nobody be anonymous.",
    "W122": "A rule names an agent that its file, by `for`, does not bind.",
    "W207": "A method is close to a well-known one, but is not it.",
    "W306": "A rule or exception has expired and has no effect, or a trial is over.",
    "W307": "The policy is on trial: what its rules refuse passes until a day.",
    "W310": "A rule for a model API lets none of the calls through with which its clients begin.",
    "W311": "A rule names a model without a price, and a budget of money or tokens lets nobody ask it.",
    "W501": "A budget, counter, rate or cascade can never be reached, or promises more than there is.",
    "W503": "A budget that begins anew halts its agents for good.",
    "W602": "A halt can reach more agents than `blast-radius` lets a process hold back: the rest is only slowed down.",
    "I108": "In an allow, a range in `to` covers only requests whose host is an address.",
    "W301": "An allow has no effect: what refuses covers all of it.",
    "W302": "A rule is not needed: no verdict changes without it.",
    "W303": "A deny refuses nothing that an allow of the same host allows.",
    "I304": "A deny refuses a part of what an allow allows.",
    "W305": "A rule matches no request.",
    "W401": "An allow is wide: every host, every public address, or names that anybody can register.",
    "E402": "An allow names inside addresses, and a never refuses all of them.",
    "E403": "An allow lets something be written to where anybody can fetch it; a warning where the rule says why.",
    "W404": "An allow lets clear text, or every port, out to the public internet.",
    "P801": "An assertion does not hold, or cannot be proved.",
    "P802": "An assertion names something that no request can be.",
}
"""Every code that a finding can have, one sentence each."""
