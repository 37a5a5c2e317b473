"""The vocabulary: an attempt to get round the enforcement, its family, and what was seen of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addons.attempts.surroundings import Surroundings


class Result(StrEnum):
    """What an attempt came to."""

    CLOSED = "closed"
    OPEN = "open"
    NOT_POSSIBLE = "not possible here"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attempt saw, in words. `silent`: nothing said no, nothing came back either, which is weaker."""

    result: Result
    what: str
    silent: bool = False


type Take = Callable[[Surroundings], Seen]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out. `take` goes it, harmlessly, within two seconds, in a process that may be spoilt."""

    name: str
    family: str
    way: str
    expected: str
    take: Take


@dataclass(frozen=True, slots=True)
class Family:
    """Attempts of one kind."""

    name: str
    attempts: list[Attempt] = field(default_factory=list)

    def attempt(self, name: str, way: str, expected: str) -> Callable[[Take], Take]:
        """Make the function below one of the family's attempts."""

        def enrol(take: Take) -> Take:
            self.add(name, way, expected, take)
            return take

        return enrol

    def add(self, name: str, way: str, expected: str, take: Take) -> None:
        """The same, for attempts that differ in a parameter alone."""
        self.attempts.append(Attempt(name, self.name, way, expected, take))


def closed(what: str) -> Seen:
    """Something said no."""
    return Seen(Result.CLOSED, what)


def silent(what: str) -> Seen:
    """Nothing said no, and nothing came back."""
    return Seen(Result.CLOSED, what, silent=True)


def opened(what: str) -> Seen:
    """The way leads out."""
    return Seen(Result.OPEN, what)


def not_here(why: str) -> Seen:
    """What the attempt needs is not there."""
    return Seen(Result.NOT_POSSIBLE, why)


# The kernel, or the hardware under it, lacks what is asked for.
_LACKING = frozenset({
    errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT, errno.ENODEV, errno.ENXIO,
    errno.ENOTSUP, errno.ENOENT,
})


def refused(fault: OSError) -> Seen:
    """What an error of the system says about a way: closed, or not there at all."""
    said = words(fault)
    return not_here(said) if fault.errno in _LACKING else closed(said)


def words(fault: OSError) -> str:
    """An error with its short name, as a reader looks it up."""
    if fault.errno is None:
        return str(fault)
    return f"{errno.errorcode.get(fault.errno, fault.errno)} ({os.strerror(fault.errno)})"


def worst(seen: Iterable[Seen], nothing: str) -> Seen:
    """Of several ways the one that leads out; else what is known of them, the weakest evidence first."""
    each = list(seen)
    for wanted in (
        lambda one: one.result is Result.OPEN, lambda one: one.silent, lambda one: one.result is Result.CLOSED,
    ):
        for one in each:
            if wanted(one):
                return one
    return each[0] if each else not_here(nothing)
