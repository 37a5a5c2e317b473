"""The anchors that a home names, ready to be told, and where its sealed segments go."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from addons.anchors.file import FileAnchor
from addons.anchors.history import History
from addons.anchors.protocol import AnchorError
from addons.anchors.settings import FileTarget, S3Target, WitnessTarget
from addons.anchors.witness import WitnessAnchor

if TYPE_CHECKING:
    from addons.anchors.bucket import Bucket
    from addons.anchors.protocol import Anchor
    from addons.anchors.sealed import SealedStore
    from addons.anchors.settings import AnchorSettings, Target
    from addons.home import Home

# Longer than the half year for which the EU's AI Act has logs kept, with time to ask for them.
RETAIN = timedelta(days=400)


def anchors_of(settings: AnchorSettings, home: Home) -> list[Anchor]:
    """One anchor for each target; `AnchorError` where one cannot be had here."""
    return [_anchor(target, home) for target in settings.targets]


def sealed_store(settings: AnchorSettings, home: Home) -> SealedStore | None:
    """Where sealed segments go, None where they stay here; `AnchorError` where it cannot be had.

    Region, endpoint and retention are those of the anchor in the same bucket, where there is one.
    """
    if settings.segments is None:
        return None
    from addons.anchors.sealed import SealedStore

    bucket = settings.segments.split("/")[2]
    beside = (each for each in settings.targets if isinstance(each, S3Target) and each.target.split("/")[2] == bucket)
    said = next(beside, S3Target(settings.segments))
    return SealedStore(_bucket(settings.segments, said), home.root.name, _retain(said))


def _anchor(target: Target, home: Home) -> Anchor:
    match target:
        case FileTarget(path):
            return FileAnchor(path, home.paths.folder)
        case WitnessTarget(url, key):
            return WitnessAnchor(url, key, home, History(home.paths.lanes))
        case S3Target():
            from addons.anchors.s3 import S3Anchor

            return S3Anchor(_bucket(target.target, target), home.root.name, _retain(target))
        case _:
            assert_never(target)


def _bucket(url: str, said: S3Target) -> Bucket:
    from addons.anchors.bucket import Bucket, Location

    try:
        return Bucket(Location.parse(url, said.region, said.endpoint))
    except ValueError as problem:
        raise AnchorError(str(problem)) from None


def _retain(said: S3Target) -> timedelta:
    return RETAIN if said.retain_seconds is None else timedelta(seconds=said.retain_seconds)
