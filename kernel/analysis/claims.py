"""Assertions about many requests, proved or refuted with one of them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from kernel.analysis.language import TooHard
from kernel.analysis.region import Region
from kernel.analysis.shapes import Shapes
from kernel.findings import Finding, Severity
from kernel.question import most_generous

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.analysis.box import Box
    from kernel.findings import Witness
    from kernel.policy import Policy, Rule

_NARROWER = "narrow the assertion, or make several of it"


def refuted(policy: Policy) -> Iterator[Finding]:
    """A P801 for each claim of a policy that does not hold, or that cannot be proved. Times are taken as for assertions
    about one request."""
    if not policy.claims:
        return
    generous = most_generous(policy)
    try:
        region = Region(generous, Shapes([generous], more=policy.claims))
    except TooHard:
        region = None
    for claim in policy.claims:
        yield from _judged(claim, region)


def _judged(claim: Rule, region: Region | None) -> Iterator[Finding]:
    must = "allowed" if claim.verb.grants else "denied"
    try:
        if region is None or region.vague:
            raise TooHard
        region.boxes.allowance.renew()
        box = next(_against(claim, region), None)
    except TooHard:
        yield _finding(claim, f"it cannot be proved that all of it is {must}", hint=_NARROWER)
        return
    if not region.shapes.of(claim):
        yield _finding(claim, "no request is meant: two of its keys exclude each other")
    elif box is not None:
        names = [entry.rule.name for entry in region.grants.near(box) if region.boxes.meet(box, entry.box)]
        by = f" (rule {names[0]})" if names and must == "denied" else ""
        message = f"all of it must be {must}, and here is a request that is not{by}"
        yield _finding(claim, message, names=names[:1], witness=region.witness(box))


def _against(claim: Rule, region: Region) -> Iterator[Box]:
    """What speaks against the claim: what of it passes, or does not pass."""
    if not claim.verb.grants:
        meeting = (region.boxes.meet(box, entry.box)
                   for box in region.shapes.of(claim) for entry in region.grants.near(box))
        return chain.from_iterable(region.passing(both) for both in meeting if both is not None)
    return chain.from_iterable(_kept_from(box, region) for box in region.shapes.opened(claim))


def _kept_from(box: Box, region: Region) -> Iterator[Box]:
    yield from region.boxes.left(box, region.granting(box))
    for refusal in region.refusing(box):
        both = region.boxes.meet(box, refusal)
        if both is not None:
            yield both


def _finding(
    claim: Rule, message: str, *, hint: str = "", names: Iterable[str] = (), witness: Witness | None = None
) -> Finding:
    return Finding("P801", Severity.ERROR, claim.position, message, hint, tuple(names), witness)
