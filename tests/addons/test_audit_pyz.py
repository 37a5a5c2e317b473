"""governor-audit.pyz: the product's own answers, from a Python that has blake3 and cryptography and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons import audit_alone, audit_pyz, audit_start, build_info
from addons.verbs.audit import audit
from tests import logs, replay_logs
from tests.addons.replay_homes import POLICY, home, kept
from tests.logs import Lane, Log
from tests.vectors import make_vectors

VECTORS = Path(make_vectors.FOLDER)
EXPECTED = json.loads((VECTORS / "expected.json").read_text())
NEEDED = ("blake3", "cryptography")
# What cryptography itself imports.
DEPENDED_ON = ("cffi", "pycparser")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The file, and a folder with the packages that it names and no others."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / audit_pyz.NAME).write_bytes(audit_pyz.build())
    site = folder / "site"
    site.mkdir()
    for package in (*NEEDED, *DEPENDED_ON):
        for file in metadata.distribution(package).files:
            top = file.parts[0]
            if not (top.startswith(".") or (site / top).exists()):
                (site / top).symlink_to(Path(str(metadata.distribution(package).locate_file(top))))
    return folder


def run(alone, *arguments, site="site"):
    environment = {"PATH": os.environ["PATH"], "HOME": str(alone), "PYTHONPATH": str(alone / site)}
    command = [sys.executable, "-S", str(alone / audit_pyz.NAME), *map(str, arguments)]
    return subprocess.run(command, cwd=alone, env=environment, capture_output=True, text=True)


def test_the_same_installation_makes_the_same_bytes():
    assert audit_pyz.build() == audit_pyz.build()


def test_it_holds_the_whole_kernel_as_it_is_here_and_no_adapter_that_serves():
    packed = audit_pyz.files()
    kernel = {path.relative_to(audit_pyz.ROOT).as_posix() for path in (audit_pyz.ROOT / "kernel").rglob("*.py")}

    assert {name for name in packed if name.startswith("kernel/")} == kernel
    assert {"addons/audit_log.py", "addons/replaying.py", "yaml/LICENSE", "yaml/parser.py"} <= set(packed)
    assert not {"addons/enforcer.py", "addons/cli.py", "addons/lane.py", "addons/vault.py"} & set(packed)


def test_every_date_in_it_is_the_same_and_nothing_is_compressed(alone):
    with zipfile.ZipFile(alone / audit_pyz.NAME) as archive:
        members = archive.infolist()

    assert {(member.date_time, member.compress_type) for member in members} == {((1980, 1, 1, 0, 0, 0), 0)}
    assert [member.filename for member in members] == sorted(member.filename for member in members)


_EACH = """
import sys
sys.path.insert(0, sys.argv[1])
from addons.audit_alone import main
for folder in sys.argv[3:]:
    print(main(["verify", folder, "--trust", sys.argv[2]]), flush=True)
assert "orjson" not in sys.modules and "click" not in sys.modules and "rich" not in sys.modules
"""


def test_it_gives_the_answer_of_each_vector(alone):
    command = [sys.executable, "-S", "-c", _EACH, str(alone / audit_pyz.NAME), str(VECTORS / "root.key")]

    result = subprocess.run([*command, *(str(VECTORS / name) for name in EXPECTED)], capture_output=True, text=True,
                            env={"PYTHONPATH": str(alone / "site")})

    assert result.returncode == 0, result.stderr
    assert [int(line) for line in result.stdout.splitlines() if line.isdigit()] == [
        expected["exit"] for expected in EXPECTED.values()]


def test_it_says_in_json_what_the_product_says(alone):
    asked = [str(VECTORS / "three_keys"), "--trust", str(VECTORS / "root.key"), "--every-signature", "--json"]
    ours = CliRunner().invoke(audit, ["verify", *asked], standalone_mode=False)

    theirs = run(alone, "verify", *asked)

    assert (theirs.returncode, json.loads(theirs.stdout)) == (0, json.loads(ours.stdout))


def test_a_name_that_is_no_text_is_told_in_json(capsys, tmp_path):
    lanes = Log([Lane("main").open(first=True)]).write(tmp_path / "home") / "audit" / "lanes"
    (lanes / os.fsdecode(b"w\xff")).mkdir()

    assert audit_alone.main(["verify", str(tmp_path / "home"), "--json"]) == 1
    out = capsys.readouterr().out
    assert out.isascii()
    assert [each["lane"] for each in json.loads(out)["lanes"]] == ["main", "w\udcff"]


def test_it_replays_with_the_policy_the_tables_and_the_zones_that_the_product_has(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(replay_logs, "IDENTITY", build_info.kernel_identity())
    monkeypatch.setattr(logs, "KERNEL", build_info.kernel_identity())
    folder = home(tmp_path / "home", [replay_logs.Recorder(kept(POLICY)).random(40)], [POLICY])
    ours = CliRunner().invoke(audit, ["replay", str(folder), "--json"], standalone_mode=False)

    theirs = run(alone, "replay", folder, "--json")

    assert json.loads(theirs.stdout) == json.loads(ours.stdout)
    assert json.loads(theirs.stdout)["result"] == "equal"
    assert json.loads(theirs.stdout)["equal"] > 0


def test_what_is_absent_is_named_in_one_line(alone):
    (alone / "nothing").mkdir()

    result = run(alone, "verify", VECTORS / "valid", site="nothing")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "governor-audit: needs blake3 and cryptography (pip install blake3 cryptography)\n"


def test_an_older_python_is_told_so(monkeypatch):
    monkeypatch.setattr(audit_start.sys, "version_info", (3, 11, 9))

    assert audit_start.lacking() == "Python 3.12 or newer"


@pytest.mark.parametrize("arguments", [[], ["burn", "x"], ["verify"], ["verify", "absent"],
                                       ["verify", str(VECTORS / "valid"), "--trust", "nonsense"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    try:
        status = audit_alone.main(arguments)
    except SystemExit as ended:
        status = ended.code

    assert status == 2
    assert "governor-audit" in capsys.readouterr().err


def test_what_a_log_says_moves_no_cursor(capsys, tmp_path):
    Log([Lane("main").open(first=True)]).write(tmp_path / "home")
    segment = tmp_path / "home" / "audit" / "lanes" / "main" / "000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"lane":"main"', b'"lane":"\x1b[2J"', 1))

    assert audit_alone.main(["verify", str(tmp_path / "home")]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_fault_of_its_own_is_told_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(audit_alone, "verify_log", lambda *_, **__: 1 // 0)

    assert audit_alone.main(["verify", str(VECTORS / "valid")]) == 70
    assert capsys.readouterr().err.startswith("governor-audit: internal fault: ZeroDivisionError")
