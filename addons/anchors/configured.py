"""The anchors that a home names, ready to be told."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from addons.anchors.bucket import Bucket, Location
from addons.anchors.file import FileAnchor
from addons.anchors.history import History
from addons.anchors.protocol import AnchorError
from addons.anchors.s3 import S3Anchor
from addons.anchors.settings import FileTarget, S3Target, WitnessTarget
from addons.anchors.witness import WitnessAnchor
from kernel.note import root_name

if TYPE_CHECKING:
    from addons.anchors.protocol import Anchor
    from addons.anchors.settings import AnchorSettings, Target
    from addons.home import Home

# Longer than the half year for which the EU's AI Act has logs kept, with time to ask for them.
RETAIN_SECONDS = 400 * 86400


def anchors_of(settings: AnchorSettings, home: Home) -> list[Anchor]:
    """One anchor for each target; `AnchorError` where one cannot be had here."""
    if settings.segments is not None:
        raise AnchorError(f"segments: {settings.segments}: this version sends no sealed segments")
    return [_anchor(target, home) for target in settings.targets]


def _anchor(target: Target, home: Home) -> Anchor:
    match target:
        case FileTarget(path):
            return FileAnchor(path, home.paths.folder)
        case WitnessTarget(url, key):
            return WitnessAnchor(url, key, home, History(home.paths.lanes))
        case S3Target():
            return _s3(target, home)
        case _:
            assert_never(target)


def _s3(target: S3Target, home: Home) -> S3Anchor:
    try:
        location = Location.parse(target.target, target.region, target.endpoint)
    except ValueError as error:
        raise AnchorError(str(error)) from None
    retain = timedelta(seconds=target.retain_seconds or RETAIN_SECONDS)
    return S3Anchor(Bucket(location), root_name(home.log_id), retain)
