"""The anchors that a home names, ready to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from addons.anchors.file import FileAnchor
from addons.anchors.history import History
from addons.anchors.protocol import AnchorError
from addons.anchors.settings import FileTarget, S3Target, WitnessTarget
from addons.anchors.witness import WitnessAnchor

if TYPE_CHECKING:
    from addons.anchors.protocol import Anchor
    from addons.anchors.settings import AnchorSettings, Target
    from addons.home import Home


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
            raise AnchorError(f"{target.target}: this version has no S3 anchors")
        case _:
            assert_never(target)
