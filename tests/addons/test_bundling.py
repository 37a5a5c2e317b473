"""`governor audit bundle`: what goes in, what is signed, and what a verification of it finds."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from base64 import b64decode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from blake3 import blake3
from click.testing import CliRunner

from addons import audit_pyz, build_info, bundle_tar, bundling, codec
from addons import lane as lane_module
from addons.home import Home
from addons.lane import Lane as RealLane
from addons.verbs.audit import audit
from kernel import entry
from kernel.manifest import MANIFEST, Part, listing, split_manifest
from tests.addons import replay_homes
from tests.addons.logs import KERNEL, entries, open_lane
from tests.conftest import scaled
from tests.logs import POLICY, ROOT, START, Lane, Log, decision
from tests.replay_logs import KERNEL as KERNEL_DIGEST
from tests.replay_logs import Recorder

TOOLS = {"README.txt", "governor-audit.pyz", "verify_log.py", "SHA256SUMS", "MANIFEST.note"}


def governor(*arguments):
    return CliRunner().invoke(audit, [str(argument) for argument in arguments], standalone_mode=False)


def status(result):
    return result.return_value if result.exception is None else getattr(result.exception, "exit_code", 70)


def bundled(where, to, *options):
    result = governor("bundle", where, "--output", to, "--json", *options)
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def verified(where, *options):
    result = governor("verify", where, "--trust", str(ROOT.verifier), "--json", *options)
    assert result.exception is None, result.exception
    return result.return_value, json.loads(result.stdout)


def names(tar):
    with tarfile.open(tar) as archive:
        return archive.getnames()


def content(tar, name):
    with tarfile.open(tar) as archive:
        return archive.extractfile(name).read()


def repacked(tar, to, change):
    """The bundle with other members, packed as a bundle is; `change` takes and gives names and contents."""
    with tarfile.open(tar) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    with to.open("wb") as file:
        for name, data in change(members).items():
            bundle_tar.write(file, name, len(data), [data])
        bundle_tar.finish(file)
    return to


def stamp(seq):
    """The time of an entry of a lane of tests/logs.py."""
    return entry.timestamp(START + timedelta(milliseconds=37 * seq))


@pytest.fixture
def log(tmp_path):
    """A home's log without its keys: two lanes, one of them with a key in each of its six segments."""
    main = Lane("main").open(first=True).traffic(4).checkpoint()
    for _ in range(4):
        main.renew().traffic(3).checkpoint().traffic(2)
    other = Lane("w0").open(siblings=[main]).traffic(1).checkpoint()
    main.renew().traffic(2).checkpoint()
    folder = Log([main, other]).raise_minimum().write(tmp_path / "log")
    (folder / "audit" / "policies").mkdir()
    (folder / "audit" / "policies" / f"{POLICY}.yaml").write_text("version: 1\n")
    (folder / "audit" / "policies" / f"{'d1' * 32}.yaml").write_text("named by no entry\n")
    (folder / "audit" / "receipts" / "s3").mkdir(parents=True)
    (folder / "audit" / "receipts" / "s3" / "main-10.json").write_text("{}\n")
    (folder / "vault.db").write_bytes(b"SQLite format 3\0 hunter2 the value of a secret")
    return folder, main


@pytest.fixture
def home(tmp_path):
    """A home that can be written, with a closed lane `main`."""
    home = Home.open(tmp_path / "home")
    lane = open_lane(home)
    for number in range(5):
        lane.write_now("fault", entry.fault("request", f"Error{number}", "FAULT", None))
    lane.close("done")
    return home


def test_a_bundle_of_all_holds_the_log_byte_for_byte_and_what_verifies_it(log, tmp_path):
    folder, main = log

    bundled(folder, tmp_path / "b.tar")

    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("vault.db", f"{'d1' * 32}.yaml")]
    assert set(names(tmp_path / "b.tar")) == TOOLS | {
        str(path.relative_to(folder)) for path in kept} | {f"audit/lanes/{lane}/keys.jsonl" for lane in ("main", "w0")}
    for path in kept:
        assert content(tmp_path / "b.tar", str(path.relative_to(folder))) == path.read_bytes()
    assert content(tmp_path / "b.tar", "audit/lanes/main/keys.jsonl").count(b"key_rotate") == len(main.keys) - 1


def test_it_verifies_as_the_log_does_and_says_what_it_covers(log, tmp_path):
    folder, main = log
    bundled(folder, tmp_path / "b.tar")

    code, said = verified(tmp_path / "b.tar", "--every-signature")
    other, ours = verified(folder, "--every-signature")

    assert (code, other) == (0, 0)
    assert said.pop("bundle") == {"requested": {"since": None, "until": None}, "agent": None, "signed_by": None}
    assert said["covered"] == {"from": stamp(0), "to": stamp(len(main.lines) - 1)}
    assert said == ours


def test_unpacked_it_is_verified_as_packed_and_by_the_tools_of_the_system(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar")
    (tmp_path / "x").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "b.tar", "-C", tmp_path / "x"], check=True)

    listed = subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "x")

    assert listed.returncode == 0
    assert verified(tmp_path / "x") == verified(tmp_path / "b.tar")


def test_the_one_file_verifier_that_is_in_it_verifies_it(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar")
    (tmp_path / "x").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "b.tar", "-C", tmp_path / "x"], check=True)

    result = subprocess.run([os.sys.executable, "verify_log.py", "audit", "--trust", str(ROOT.verifier)],
                            cwd=tmp_path / "x", capture_output=True, text=True)

    assert (result.returncode, result.stderr) == (0, "")


def test_the_same_log_makes_the_same_bytes(log, tmp_path):
    for name in ("a.tar", "b.tar"):
        bundled(log[0], tmp_path / name)

    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize(("since", "until", "main", "other"), [
    pytest.param(None, 22, [0, 1], True, id="from the beginning"),
    pytest.param(22, None, [2, 3, 4, 5], False, id="to the end"),
    pytest.param(11, 33, [1, 2], False, id="out of the middle"),
    pytest.param(12, 12.5, [1], False, id="one moment"),
    pytest.param(59, None, [5], False, id="the last segment"),
    pytest.param(0, None, [0, 1, 2, 3, 4, 5], True, id="all, in so many words"),
])
def test_a_period_takes_the_segments_that_overlap_it_and_verifies(log, tmp_path, since, until, main, other):
    asked = ([] if since is None else ["--since", stamp(since)]) + ([] if until is None else ["--until", stamp(until)])

    bundled(log[0], tmp_path / "b.tar", *asked)

    segments = {f"audit/lanes/main/{number:06d}.jsonl" for number in main}
    assert {name for name in names(tmp_path / "b.tar") if name.endswith("0.jsonl") or "main/0" in name} == (
        segments | ({"audit/lanes/w0/000000.jsonl"} if other else set()))
    for every in ([], ["--every-signature"]):
        code, said = verified(tmp_path / "b.tar", *every)
        assert (code, said["first_failure"]) == (0, None)
        assert said["bundle"]["requested"] == {"since": since if since is None else stamp(since),
                                               "until": until if until is None else stamp(until)}
    assert governor("verify", tmp_path / "b.tar").return_value == 3


def test_a_period_without_entries_is_incomplete_and_not_verified(log, tmp_path):
    made = bundled(log[0], tmp_path / "b.tar", "--since", "2030-01-01T00:00:00Z")

    assert made["covered"] == {"from": None, "to": None}
    assert verified(tmp_path / "b.tar")[0] == 4


def test_a_byte_that_is_flipped_anywhere_in_a_file_of_it_is_found(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--since", stamp(11), "--until", stamp(33))
    good = (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "b.tar") as archive:
        spans = {member.name: (member.offset_data, member.size) for member in archive}
    bad = tmp_path / "bad.tar"
    for start, size in spans.values():
        for place in {*range(start, start + size, size // scaled(3) + 1), start + size - 1}:
            bad.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])

            assert verified(bad)[0] == 1, place


def test_a_byte_that_is_flipped_between_the_files_is_found(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--since", stamp(59))
    good = (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "b.tar") as archive:
        taken = [(member.offset_data, member.offset_data + member.size) for member in archive]
    between = [place for before, after in zip([(0, 0), *taken], [*taken, (len(good), 0)], strict=True)
               for place in range(before[1], after[0])]
    bad = tmp_path / "bad.tar"
    for place in between[:: 400 // scaled(1) + 1]:
        bad.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])

        assert status(governor("verify", bad, "--trust", str(ROOT.verifier))) in (1, 2), place


def test_a_bundle_that_was_cut_off_is_found(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--since", stamp(59))
    good = (tmp_path / "b.tar").read_bytes()
    for size in range(512, len(good), max(1, len(good) // scaled(20))):
        (tmp_path / "cut.tar").write_bytes(good[:size])

        assert verified(tmp_path / "cut.tar")[0] == 1, size


@pytest.mark.parametrize(("change", "told"), [
    pytest.param(lambda files: {n: d for n, d in files.items() if n != f"audit/policies/{POLICY}.yaml"},
                 f"audit/policies/{POLICY}.yaml is missing", id="taken out"),
    pytest.param(lambda files: {n: d for n, d in files.items() if n != "verify_log.py"}, "verify_log.py is missing",
                 id="the last one taken out"),
    pytest.param(lambda files: {n: d for n, d in files.items() if n != MANIFEST}, "MANIFEST.note: No such file",
                 id="without a manifest"),
    pytest.param(lambda files: files | {"audit/policies/more.yaml": b"x"}, "more.yaml was not put into", id="added"),
    pytest.param(lambda files: files | {"README.txt": b"trust me"}, "README.txt is not as it was", id="changed"),
    pytest.param(lambda files: files | {"SHA256SUMS": b""}, "SHA256SUMS is not the list", id="another list"),
    pytest.param(lambda files: files | {MANIFEST: b"what\n"}, "not a manifest", id="no manifest"),
    pytest.param(lambda files: files | {MANIFEST: b"\xff" * 9}, "not a manifest", id="no text"),
])
def test_what_differs_from_the_manifest_is_told(log, tmp_path, change, told):
    bundled(log[0], tmp_path / "b.tar")

    code, said = verified(repacked(tmp_path / "b.tar", tmp_path / "bad.tar", change))

    assert code == 1
    assert told in said["first_failure"]["reason"]


@pytest.mark.parametrize("member", [
    pytest.param({"name": "/etc/governor"}, id="absolute"),
    pytest.param({"name": "../outside"}, id="above"),
    pytest.param({"name": "audit/../../outside"}, id="above, hidden in the middle"),
    pytest.param({"name": "audit/.hidden"}, id="hidden"),
    pytest.param({"name": "audit//x"}, id="an empty part"),
    pytest.param({"name": "a/b/c/d/e/f"}, id="deep"),
    pytest.param({"name": "link", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, id="a symbolic link"),
    pytest.param({"name": "link", "type": tarfile.LNKTYPE, "linkname": "README.txt"}, id="a hard link"),
    pytest.param({"name": "pipe", "type": tarfile.FIFOTYPE}, id="a pipe"),
    pytest.param({"name": "disk", "type": tarfile.BLKTYPE, "devmajor": 8}, id="a device"),
    pytest.param({"name": "folder", "type": tarfile.DIRTYPE}, id="a folder"),
    pytest.param({"name": "README.txt"}, id="a file that is there already"),
    pytest.param({"name": "README.txt/x"}, id="a file below a file"),
    pytest.param({"name": "x", "mode": 0o4755}, id="another mode"),
    pytest.param({"name": "x", "uid": 7}, id="another owner"),
    pytest.param({"name": "x", "mtime": 7}, id="another time"),
    pytest.param({"name": "ä"}, id="another alphabet"),
    pytest.param({"name": "x" * 200}, id="a long name"),
])
def test_a_member_that_no_bundle_has_is_not_unpacked(tmp_path, member):
    info = tarfile.TarInfo()
    info.mode = 0o644
    for name, value in member.items():
        setattr(info, name, value)
    form = tarfile.USTAR_FORMAT if len(info.name) <= 100 else tarfile.GNU_FORMAT
    data = io.BytesIO(bundle_tar.header("README.txt", 0) + info.tobuf(form) + bytes(1024))
    (tmp_path / "into").mkdir()

    with pytest.raises(bundle_tar.NotAMember):
        bundle_tar.extract(data, tmp_path / "into", lambda _: None)

    assert [path.name for path in tmp_path.rglob("*")] == ["into", "README.txt"]


def test_a_size_that_the_file_has_not_is_refused_before_memory_is_taken(tmp_path):
    data = io.BytesIO(bundle_tar.header("x", 8**11 - 1) + b"little")

    with pytest.raises(bundle_tar.NotAMember, match="ends within a file"):
        bundle_tar.extract(data, tmp_path, lambda _: None)


def test_a_file_that_is_no_bundle_is_a_wrong_question(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"PK\3\4" * 500)

    assert status(governor("verify", tmp_path / "x.tar")) == 2


def test_a_disk_without_room_is_told_before_anything_is_unpacked(log, tmp_path, monkeypatch):
    bundled(log[0], tmp_path / "b.tar")
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.sys.modules["shutil"]._ntuple_diskusage(10, 5, 5))

    result = governor("verify", tmp_path / "b.tar")

    assert status(result) == 2
    assert "TMPDIR" in str(result.exception)


def test_nothing_of_the_vault_goes_in(tmp_path):
    recorder = Recorder(replay_homes.kept(replay_homes.POLICY)).random(scaled(60))
    folder = replay_homes.home(tmp_path / "home", [recorder], [replay_homes.POLICY])

    bundled(folder, tmp_path / "b.tar")

    data = (tmp_path / "b.tar").read_bytes()
    kept = [(recorder.salt(number, name), value) for number, values in recorder.values.items()
            for name, value in values.items()]
    assert kept
    assert not any("vault" in name or "sqlite" in name for name in names(tmp_path / "b.tar"))
    for salt, value in kept:
        assert salt not in data
        assert salt.hex().encode() not in data
        if name_of_path(value):
            assert codec.encode(value) not in data


def name_of_path(value):
    """Whether a value is a path long enough to stand nowhere else by chance."""
    return isinstance(value, str) and value.startswith("/") and len(value) > 12


def test_in_a_home_lane_cli_signs_and_an_entry_tells_of_it(home, tmp_path):
    made = bundled(home.paths.folder, tmp_path / "b.tar", "--operator", "ann")

    last = entries(home, "cli")[-2]
    note = content(tmp_path / "b.tar", MANIFEST)
    assert (last["type"], last["act"], last["operator"]) == ("operator", "audit bundle", "ann")
    assert last["reason"] == f"MANIFEST.note {sha256(note).hexdigest()}"
    assert made["entry"] == f"cli/{last['seq']}"
    result = governor("verify", tmp_path / "b.tar", "--json")
    assert result.return_value == 0
    assert json.loads(result.stdout)["bundle"]["signed_by"] == made["signed_by"]
    assert governor("verify", home.paths.folder).return_value == 0


def test_the_key_that_signs_stays_while_a_bundle_is_made(home, tmp_path, monkeypatch):
    monkeypatch.setattr(lane_module, "SEGMENT_SECONDS", 0)
    monkeypatch.setattr(lane_module, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(audit_pyz, "build", lambda: time.sleep(0.3) or b"")

    made = bundled(home.paths.folder, tmp_path / "b.tar")

    said = json.loads(governor("verify", tmp_path / "b.tar", "--json").stdout)
    assert (said["result"], said["bundle"]["signed_by"]) == ("verified", made["signed_by"])


def test_a_signature_that_was_taken_off_is_missed_and_one_that_was_changed_is_found(home, tmp_path):
    bundled(home.paths.folder, tmp_path / "b.tar")
    note = content(tmp_path / "b.tar", MANIFEST)

    def other(text):
        return lambda files: files | {MANIFEST: text}

    bare = split_manifest(note.decode())[0].unsigned().encode()
    off = repacked(tmp_path / "b.tar", tmp_path / "off.tar", other(bare))
    asked = repacked(tmp_path / "b.tar", tmp_path / "asked.tar", other(note.replace(
        b'"since":null', b'"since":"2026-01-01T00:00:00.000000Z"')))
    signed = repacked(tmp_path / "b.tar", tmp_path / "signed.tar", other(note.replace(b"cli ", b"main ")))

    assert json.loads(governor("verify", off, "--json").stdout)["bundle"]["signed_by"] is None
    assert "rests on the word of whoever made it" in governor("verify", off).stdout
    for bad in (asked, signed):
        result = governor("verify", bad, "--json")
        assert result.return_value == 1
        assert MANIFEST in json.loads(result.stdout)["first_failure"]["reason"]


def test_a_bundle_of_a_period_without_lane_cli_has_the_key_that_signed_it(home, tmp_path):
    bundled(home.paths.folder, tmp_path / "b.tar", "--until", entries(home)[0]["ts"].replace("Z", "+00:00")[:-6] + "Z",
            "--since", "2020-01-01T00:00:00Z")

    result = governor("verify", tmp_path / "b.tar", "--json")

    assert "audit/lanes/cli/keys.jsonl" in names(tmp_path / "b.tar")
    assert json.loads(result.stdout)["bundle"]["signed_by"] is not None


def test_a_log_that_is_being_written_is_bundled_at_any_moment(home, tmp_path):
    lane = RealLane.open(home, "main", kernel=KERNEL)
    try:
        for number in range(scaled(5)):
            lane.record("fault", entry.fault("request", "Late", "FAULT", None))
            bundled(home.paths.folder, tmp_path / f"{number}.tar")

            assert governor("verify", tmp_path / f"{number}.tar").return_value == 0
    finally:
        lane.close("done")


def test_a_state_that_a_writer_puts_away_meanwhile_is_left_out(judged, tmp_path, monkeypatch):
    tools, folder = bundling._tools, judged[0]

    def meanwhile(readme):
        for state in (folder / "audit" / "state").iterdir():
            state.unlink()
        return tools(readme)

    bundled(folder, tmp_path / "whole.tar")
    monkeypatch.setattr(bundling, "_tools", meanwhile)
    bundled(folder, tmp_path / "b.tar")

    assert any("audit/state/" in name for name in names(tmp_path / "whole.tar"))
    assert not any("audit/state/" in name for name in names(tmp_path / "b.tar"))
    assert json.loads(governor("verify", tmp_path / "b.tar", "--json").stdout)["first_failure"] is None


def test_a_damaged_home_is_bundled_unsigned_and_the_damage_is_found_in_it(home, tmp_path):
    segment = home.paths.lane("main") / "000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"Error2", b"Error9"))
    copy = tmp_path / "copy"
    home.paths.folder.rename(copy)

    made = bundled(copy, tmp_path / "b.tar")

    assert governor("verify", tmp_path / "b.tar", "--json").return_value == 1
    assert made["signed_by"] is None or made["unsigned"] is None


def receipts(tar):
    return [name for name in names(tar) if name.startswith("receipts/")]


def about(lane, agent):
    """The entries of a lane of tests/logs.py that are about an agent, and the outcomes of its decisions."""
    entries = [json.loads(line)["e"] for line in lane.lines]
    own = {f"{lane.name}/{each['seq']}" for each in entries if (each.get("agent") or {}).get("id") == agent}
    return [each["seq"] for each in entries if f"{lane.name}/{each['seq']}" in own or each.get("decision") in own]


def test_a_bundle_about_an_agent_has_its_entries_alone_each_with_a_receipt(log, tmp_path):
    folder, main = log

    made = bundled(folder, tmp_path / "b.tar", "--agent", "coder-1")
    code, said = verified(tmp_path / "b.tar")

    wanted = [f"receipts/main/{seq:016d}.tlog-proof" for seq in about(main, "coder-1")]
    assert [name for name in receipts(tmp_path / "b.tar") if "/main/" in name] == wanted
    assert not any(name.endswith((".jsonl", ".yaml", "checkpoints.note")) for name in names(tmp_path / "b.tar"))
    assert (code, said["entries"], said["first_failure"]) == (0, len(receipts(tmp_path / "b.tar")), None)
    assert (made["uncovered"], said["bundle"]["agent"]) == (0, "coder-1")
    for name in receipts(tmp_path / "b.tar"):
        assert b"claude-2" not in b64decode(content(tmp_path / "b.tar", name).split(b"\n")[1].split()[1])


def test_of_an_agent_a_period_takes_single_entries(log, tmp_path):
    folder, main = log
    since, until = 12, 40

    bundled(folder, tmp_path / "b.tar", "--agent", "coder-1", "--since", stamp(since), "--until", stamp(until))

    assert [name for name in receipts(tmp_path / "b.tar") if "/main/" in name] == [
        f"receipts/main/{seq:016d}.tlog-proof" for seq in about(main, "coder-1") if since <= seq < until]


def test_every_receipt_of_a_bundle_is_verified(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--agent", "coder-1")
    with tarfile.open(tmp_path / "b.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    for name in receipts(tmp_path / "b.tar"):
        _write_again(tmp_path / "bad.tar", files | {name: files[name].replace(b"index 1", b"index 2", 1)
                                                    if b"index 1" in files[name] else files[name][:-3] + b"A=\n"})

        code, said = verified(tmp_path / "bad.tar")

        assert (code, said["first_failure"]["segment"]) == (1, name)


def test_a_receipt_under_the_name_of_another_is_found(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--agent", "coder-1")
    with tarfile.open(tmp_path / "b.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    first, second = receipts(tmp_path / "b.tar")[:2]

    _write_again(tmp_path / "bad.tar", files | {first: files[second]})

    assert "not what its name says" in verified(tmp_path / "bad.tar")[1]["first_failure"]["reason"]


def test_a_receipt_of_another_log_than_the_bundle_says_is_found(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--agent", "coder-1")
    with tarfile.open(tmp_path / "b.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}

    _write_again(tmp_path / "bad.tar", files, log_id="f" * 16)
    code, said = verified(tmp_path / "bad.tar")

    assert (code, said["first_failure"]["reason"]) == (1, "it is a receipt of another log")


def test_a_receipt_that_lies_elsewhere_counts_for_nothing(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--agent", "coder-1")
    with tarfile.open(tmp_path / "b.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    name = receipts(tmp_path / "b.tar")[0]
    beside = name.replace("receipts/", "receipts/again/", 1)

    _write_again(tmp_path / "bad.tar", files | {beside: files[name]})
    code, said = verified(tmp_path / "bad.tar")

    assert (code, said["first_failure"]["segment"]) == (1, beside)


def _write_again(to, files, **said_else):
    """A bundle whose list and manifest say what its files are, as somebody makes it who has no key."""
    sums = "".join(f"{sha256(files[each]).hexdigest()}  {each}\n" for each in sorted(files)
                   if each not in (MANIFEST, "SHA256SUMS")).encode()
    said, _ = split_manifest(files[MANIFEST].decode())
    digest, size = listing(sums)
    again = replace(said, listing_sha256=digest, listing_bytes=size, **said_else).unsigned()
    with to.open("wb") as file:
        for name, data in (files | {"SHA256SUMS": sums, MANIFEST: again.encode()}).items():
            bundle_tar.write(file, name, len(data), [data])
        bundle_tar.finish(file)
    return to


@pytest.mark.parametrize(("options", "part", "gone"), [
    pytest.param((), Part(0, 46), slice(4, None), id="the end of a log that was asked for to its end"),
    pytest.param(("--since", stamp(0)), Part(0, 46), slice(4, None), id="the end of a period without one"),
    pytest.param((), Part(2, None), slice(2), id="the beginning of a log that was asked for from it on"),
    pytest.param(("--until", stamp(90)), Part(2, None), slice(2), id="the beginning of a period without one"),
])
def test_what_was_asked_for_cannot_be_left_out_by_saying_so(log, tmp_path, options, part, gone):
    bundled(log[0], tmp_path / "b.tar", *options)
    files = {name: content(tmp_path / "b.tar", name) for name in names(tmp_path / "b.tar")}
    for number in range(6)[gone]:
        del files[f"audit/lanes/main/{number:06d}.jsonl"]
    said, _ = split_manifest(files[MANIFEST].decode())

    code, told = verified(_write_again(tmp_path / "bad.tar", files, lanes={**said.lanes, "main": part}))
    assert verified(tmp_path / "b.tar")[0] == 0
    assert code == 1
    assert MANIFEST in told["first_failure"]["reason"]


def test_a_period_without_an_end_goes_to_the_end_though_the_clock_was_set_back(tmp_path):
    main = Lane("main").open(first=True).traffic(3).renew().traffic(1)
    main.add(decision("late") | {"ts": "2020-01-01T00:00:00.000000Z"})
    folder = Log([main.checkpoint()]).raise_minimum().write(tmp_path / "log")
    bundled(folder, tmp_path / "b.tar", "--since", stamp(0))

    assert verified(tmp_path / "b.tar")[0] == 0
    assert "audit/lanes/main/000001.jsonl" in names(tmp_path / "b.tar")


def test_entries_that_no_checkpoint_covers_are_left_out_and_counted(log, tmp_path):
    folder, main = log
    main.traffic(4)
    (folder / "audit" / "lanes" / "main" / "000005.jsonl").write_bytes(b"".join(main.lines[main.starts[-1] :]))

    made = bundled(folder, tmp_path / "b.tar", "--agent", "coder-1")

    assert made["uncovered"] == len([seq for seq in about(main, "coder-1") if seq >= 63])
    assert verified(tmp_path / "b.tar")[0] == 0


def test_an_agent_of_whom_nothing_is_told_makes_a_bundle_that_is_incomplete(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar", "--agent", "nobody")

    assert verified(tmp_path / "b.tar")[0] == 4


def test_a_bundle_about_an_agent_is_signed_in_a_home(home, tmp_path):
    made = bundled(home.paths.folder, tmp_path / "b.tar", "--agent", "a")

    said = json.loads(governor("verify", tmp_path / "b.tar", "--json").stdout)
    assert said["bundle"]["signed_by"] == made["signed_by"] is not None


# The kernel's own count of this process: what resource tells begins with what the one that started it had in memory.
_BUNDLED_AND_VERIFIED = """
import sys
from pathlib import Path
from addons.audit_alone import main
from addons.verbs.bundle import bundle
bundle([sys.argv[1], "--output", sys.argv[2]], standalone_mode=False)
print(main(["verify", sys.argv[2]]))
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def test_memory_does_not_grow_with_the_log(tmp_path):
    lane = Lane("main").open(first=True)
    folder = Log([lane]).write(tmp_path / "log")
    with (folder / "audit" / "lanes" / "main" / "000000.jsonl").open("ab") as file:
        file.writelines([lane.lines[-1] * 1000] * (scaled(20_000_000) // (1000 * len(lane.lines[-1]))))

    ran = subprocess.run([os.sys.executable, "-c", _BUNDLED_AND_VERIFIED, folder, tmp_path / "b.tar"], text=True,
                         capture_output=True, check=True)

    answer, mebibytes = [int(line) for line in ran.stdout.splitlines() if line.isdigit()]
    assert answer == 1
    assert mebibytes < 120
    assert (tmp_path / "b.tar").stat().st_size > scaled(19_000_000)


def test_a_torn_tail_stays_behind(log, tmp_path):
    folder = log[0]
    with (folder / "audit" / "lanes" / "w0" / "000000.jsonl").open("ab") as file:
        file.write(b'{"e":{"half')

    bundled(folder, tmp_path / "b.tar")

    assert b"half" not in content(tmp_path / "b.tar", "audit/lanes/w0/000000.jsonl")
    assert verified(tmp_path / "b.tar")[1]["torn_bytes"] == 0


def test_evidence_is_not_written_over_and_a_failure_leaves_nothing(log, tmp_path, monkeypatch):
    bundled(log[0], tmp_path / "b.tar")
    before = (tmp_path / "b.tar").read_bytes()

    again = governor("bundle", log[0], "--output", tmp_path / "b.tar")
    monkeypatch.setattr(bundle_tar, "finish", lambda _: 1 // 0)
    failed = governor("bundle", log[0], "--output", tmp_path / "c.tar")

    assert status(again) == 2
    assert (tmp_path / "b.tar").read_bytes() == before
    assert isinstance(failed.exception, ZeroDivisionError)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("c.tar")]


def test_nothing_that_lies_where_it_is_made_is_followed_or_shared(log, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "b.tar.partial").symlink_to(victim)
    (tmp_path / "c.tar.partial").write_bytes(b"another bundle that is being made")

    for name in ("b.tar", "c.tar"):
        result = governor("bundle", log[0], "--output", tmp_path / name)
        assert status(result) == 2
        assert "partial is there" in str(result.exception)
    assert victim.read_text() == "precious"
    assert (tmp_path / "c.tar.partial").read_bytes() == b"another bundle that is being made"


def test_it_is_readable_by_its_owner_alone(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar")

    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600


def test_replay_takes_a_bundle_as_it_takes_a_log(log, tmp_path):
    bundled(log[0], tmp_path / "b.tar")

    ours, theirs = governor("replay", log[0], "--json"), governor("replay", tmp_path / "b.tar", "--json")

    assert (theirs.return_value, theirs.stdout) == (ours.return_value, ours.stdout)


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A log in two segments, a state kept within the second, and the entries as they were recorded."""
    monkeypatch.setattr(build_info, "kernel_digest", lambda: KERNEL_DIGEST)
    recorder, raws = Recorder(replay_homes.kept(replay_homes.POLICY)).random(60), []
    recorder.write({"type": "segment_open"})
    recorder.random(15)
    recorder.keep_state(raws)
    recorder.random(40)
    lane = Lane("main").open(first=True)
    for each in recorder.entries[2:]:
        if each["type"] == "segment_open":
            lane.rotate()
        else:
            lane.add_raw(codec.encode({**each, "seq": lane.tree.size, "prev": lane.head}))
    folder = Log([lane.checkpoint()]).write(tmp_path / "judged")
    for name, data in [(f"state/{blake3(raw).hexdigest()}.json", raw) for raw in raws] + [
            (f"policies/{blake3(replay_homes.POLICY.encode()).hexdigest()}.yaml", replay_homes.POLICY.encode())]:
        (folder / "audit" / name).parent.mkdir(exist_ok=True)
        (folder / "audit" / name).write_bytes(data)
    return folder, lane, recorder.entries


def since_second(judged):
    """The time of the first entry behind the beginning of the second segment."""
    _, lane, recorded = judged
    return recorded[lane.starts[1] + 1]["ts"]


def test_a_period_is_replayed_from_the_first_state_that_is_in_it(judged, tmp_path):
    folder, lane, recorded = judged
    cut = next(each["at"] for each in recorded if each["type"] == "state_snapshot")
    bundled(folder, tmp_path / "b.tar", "--since", since_second(judged))

    replayed = json.loads(governor("replay", tmp_path / "b.tar", "--json").stdout)

    before, behind = (sum(each["type"] == "decision" for each in part)
                      for part in (recorded[lane.starts[1] : cut], recorded[cut:]))
    assert "audit/lanes/main/000000.jsonl" not in names(tmp_path / "b.tar")
    assert replayed["result"] == "partial"
    assert replayed["not_replayable"].pop("the state before it is not in this bundle") == before > 0
    assert replayed["divergent"] == 0
    assert replayed["equal"] + sum(replayed["not_replayable"].values()) == behind
    assert replayed["equal"] > 0


def test_what_is_told_of_the_policies_before_a_period_is_signed(judged, tmp_path):
    bundled(judged[0], tmp_path / "b.tar", "--since", since_second(judged))
    name = "audit/lanes/main/loads.jsonl"

    with tarfile.open(tmp_path / "b.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}

    def other(change):
        return _write_again(tmp_path / "other.tar", files | {name: change(files[name])})

    assert verified(other(lambda lines: lines))[0] == 0
    for change in (lambda lines: lines.replace(b"enforce", b"observe"), lambda lines: lines * 2, lambda lines: b"{}\n",
                   lambda lines: lines[:-1]):
        code, said = verified(other(change))

        assert code == 1
        assert "loads.jsonl" in said["first_failure"]["reason"]


@pytest.mark.parametrize("options", [["absent"], ["--since", "yesterday"], ["--operator", "a\nb"]])
def test_a_wrong_question_is_told(log, tmp_path, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = options if options == ["absent"] else [log[0], *options]

    assert status(governor("bundle", *arguments)) == 2
    assert not list(tmp_path.glob("*.tar*"))


def test_help_tells_an_auditor_what_to_do_with_it():
    said = CliRunner().invoke(audit, ["bundle", "--help"]).stdout

    assert "governor-audit.pyz verify" in said
    assert "Nothing of the vault" in " ".join(said.split())
