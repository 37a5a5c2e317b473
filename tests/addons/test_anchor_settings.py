"""anchors.yaml: taken whole or refused whole, every problem with its file, line and column."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.anchors.settings import (
    AnchorSettings,
    AnchorSettingsError,
    FileTarget,
    Requirement,
    S3Target,
    WitnessTarget,
    read_settings,
)
from kernel.cosignature import WitnessKey

KEY = WitnessKey("w.example.org", bytes(32))
WHOLE = f"""\
anchors:
  - file: /mnt/elsewhere/governor.notes
  - s3: s3://bucket/prefix
    region: eu-central-1
    endpoint: https://s3.example.org
    retain: 400d
  - witness: https://w.example.org
    key: {KEY}
every: 30s
require: 1 of [s3, witness] within 10m
otherwise: stop
segments: s3://bucket/segments
"""


def read(tmp_path: Path, text: str) -> AnchorSettings:
    file = tmp_path / "anchors.yaml"
    file.write_text(text)
    return read_settings(file, tmp_path / "home")


def test_everything_that_can_be_said_is_read(tmp_path):
    assert read(tmp_path, WHOLE) == AnchorSettings(
        (FileTarget(Path("/mnt/elsewhere/governor.notes")),
         S3Target("s3://bucket/prefix", "eu-central-1", "https://s3.example.org", 400 * 86400),
         WitnessTarget("https://w.example.org", KEY)),
        30, Requirement(1, ("s3", "witness"), 600), stops=True, segments="s3://bucket/segments")


def test_without_the_file_there_are_no_anchors_and_little_needs_no_more_words(tmp_path):
    assert read_settings(tmp_path / "anchors.yaml", tmp_path) == AnchorSettings()
    assert read(tmp_path, "anchors: [file: /mnt/x]\n") == AnchorSettings((FileTarget(Path("/mnt/x")),))


BASE = "anchors:\n  - file: /mnt/x\n"
WITNESS = f"anchors:\n  - witness: https://w.example.org\n    key: {KEY}\n"


@pytest.mark.parametrize(("text", "place", "problem"), [
    pytest.param("", "1:1", "says nothing", id="nothing"),
    pytest.param("anchors: [a\n", "1:10", "never closed", id="no YAML"),
    pytest.param("- a\n", "1:1", "keys and values", id="a list"),
    pytest.param("every: 60s\n", "1:1", 'needs "anchors:"', id="no anchors"),
    pytest.param("anchors: []\n", "1:10", "no anchor is named", id="an empty list"),
    pytest.param("anchors: /mnt/x\n", "1:10", "a list", id="no list"),
    pytest.param(BASE + "evry: 60s\n", "3:1", 'did you mean "every"', id="an unknown key"),
    pytest.param(BASE + "every: 60\n", "3:8", "say the unit", id="no unit"),
    pytest.param(BASE + "every: 0s\n", "3:8", "no time at all", id="no time"),
    pytest.param("anchors:\n  - fil: /mnt/x\n", "2:5", 'did you mean "file"', id="a misspelt kind"),
    pytest.param("anchors:\n  - {file: /x, s3: s3://bucket}\n", "2:5", "one of file, s3 or witness", id="two kinds"),
    pytest.param(BASE + "    key: x\n", "3:10", "means nothing for a file anchor", id="another kind's key"),
    pytest.param("anchors:\n  - file: x/notes\n", "2:11", "from / on", id="a relative path"),
    pytest.param("anchors:\n  - file: HOME/notes\n", "2:11", "in the home", id="a path in the home"),
    pytest.param(BASE + "  - file: /mnt/x\n", "3:5", "stands twice", id="an anchor twice"),
    pytest.param("anchors:\n  - s3: bucket/prefix\n", "2:9", "s3://bucket/prefix", id="no bucket"),
    pytest.param("anchors:\n  - s3: s3://b/../c\x01\n", "2:20", "invisible", id="what nobody sees"),
    pytest.param("anchors:\n  - {s3: s3://bucket, retain: 1}\n", "2:31", "not a duration", id="no retention"),
    pytest.param("anchors:\n  - witness: https://w.example.org\n", "2:5", 'needs "key:"', id="no key"),
    pytest.param(WITNESS.replace("+", "-"), "3:10", "not a verifier key", id="a bad key"),
    pytest.param(WITNESS.replace("https", "ftp"), "2:14", "no http or https address", id="another scheme"),
    pytest.param(WITNESS.replace("//w", "//u:pass@w"), "2:14", "has no user", id="a password in the address"),
    pytest.param(WITNESS.replace("example.org\n", "example.org/?a=b\n", 1), "2:14", "no ?", id="a query"),
    pytest.param(WITNESS.replace("example.org\n", "example.org:x\n", 1), "2:14", "no http", id="a port of letters"),
    pytest.param(BASE + "require: 1 of witness within 10m\n", "3:10", "is no requirement", id="no brackets"),
    pytest.param(BASE + "require: 1 of [tsa] within 10m\n", "3:10", "no kind of anchor", id="an unknown kind"),
    pytest.param(BASE + "require: 1 of [s3] within 10m\n", "3:10", "there are 0", id="more than there are"),
    pytest.param(BASE + "require: 0 of [file] within 10m\n", "3:10", "is no requirement", id="none"),
    pytest.param(BASE + "require: 1 of [file] within 10\n", "3:10", "say the unit", id="no unit in the requirement"),
    pytest.param(BASE + "otherwise: stop\n", "3:12", 'is said of a "require:"', id="otherwise to nothing"),
    pytest.param(BASE + "require: 1 of [file] within 1m\notherwise: halt\n", "4:12", "alert and stop", id="halt"),
])
def test_what_is_wrong_is_told_at_its_place(tmp_path, text, place, problem):
    with pytest.raises(AnchorSettingsError) as told:
        read(tmp_path, text.replace("HOME", str(tmp_path / "home")))

    assert f"{tmp_path}/anchors.yaml:{place}: " in str(told.value)
    assert problem in str(told.value)


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(AnchorSettingsError) as told:
        read(tmp_path, "anchors:\n  - file: x\nevery: 1\nrequire: 2\n")

    assert [f":{line}:" in str(told.value) for line in (2, 3, 4)] == [True] * 3


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(0, len(WHOLE)))
def test_every_text_is_taken_or_told(tmp_path_factory, text, at):
    folder = tmp_path_factory.getbasetemp()
    for written in (text, WHOLE[:at] + text + WHOLE[at:]):
        with contextlib.suppress(AnchorSettingsError):
            read(folder, written)
