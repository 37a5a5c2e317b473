"""`governor init`: one command from nothing to a home that starts."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from addons import ahead_keys, authority, package_sources, pins, policy_files
from addons.cli import run
from addons.errors import StartCode, StartRefused
from addons.home import Home
from addons.keys import SigningKey
from addons.lane import Lane
from addons.verbs.home import init
from kernel import note
from kernel.facts import Host
from tests.addons.logs import kinds, open_lane, report


@pytest.fixture(autouse=True)
def a_machine_with_one_index(monkeypatch: pytest.MonkeyPatch) -> None:
    index = package_sources.Source("pip", "https", Host("packages.example.org"), 443, "/etc/pip.conf")
    monkeypatch.setattr(package_sources, "search", lambda _: (index,))


def made(folder: Path, *options: str) -> dict[str, object]:
    result = CliRunner().invoke(init, ["--home", str(folder), "--json", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(folder: Path, *options: str) -> Result:
    result = CliRunner().invoke(init, ["--home", str(folder), *options])
    assert result.exit_code != 0
    return result


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> SigningKey:
    """A root key that was made elsewhere, in `root.pem`."""
    return SigningKey.create(tmp_path / "root.pem", "elsewhere")


def test_it_makes_a_home_that_starts_and_says_where_everything_is(tmp_path):
    told = made(tmp_path / "home")

    home = Home.open(tmp_path / "home")
    open_lane(home).close("done")
    assert told["home"] == str(home.paths.folder)
    assert told["log_id"] == home.log_id
    assert report(home).result == "verified"


def test_the_pin_is_the_verifier_key_of_the_root(tmp_path):
    told = made(tmp_path / "home")

    assert note.parse_verifier_key(str(told["pin"])).name == f"governor/{told['log_id']}"
    assert Path(str(told["pin_file"])).read_text().splitlines()[0] == told["pin"]
    assert Path(str(told["pin_file"])) == pins.path(str(told["log_id"]))


def test_the_ca_is_a_certificate_to_trust(tmp_path):
    told = made(tmp_path / "home")

    certificate = x509.load_pem_x509_certificate(Path(str(told["ca"])).read_bytes())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_starting_policy_loads(tmp_path):
    told = made(tmp_path / "home")

    assert told["policy_written"] is True
    assert policy_files.load_policy([Path(str(told["policy"]))]).policy.rules


def test_the_starting_policy_allows_what_the_machine_fetches_packages_from(tmp_path):
    told = made(tmp_path / "home")

    loaded = policy_files.load_policy([Path(str(told["policy"]))])
    assert "found-pip" in {rule.name for rule in loaded.policy.rules}
    assert "packages.example.org" in Path(str(told["policy"])).read_text()


def test_a_policy_that_is_there_is_never_overwritten(tmp_path):
    folder = tmp_path / "home"
    Home.open(folder)
    (folder / "policy.yaml").write_text("mine")

    assert made(folder)["policy_written"] is False
    assert (folder / "policy.yaml").read_text() == "mine"


def test_a_second_time_changes_nothing(tmp_path):
    first = made(tmp_path / "home")
    before = contents(tmp_path / "home")

    second = made(tmp_path / "home")

    assert second == first | {"policy_written": False}
    assert before == contents(tmp_path / "home")


def test_people_are_told_the_pin_and_what_to_do_next(tmp_path):
    result = CliRunner().invoke(init, ["--home", str(tmp_path / "home")], catch_exceptions=False)

    assert str(Home.open(tmp_path / "home").root) in result.stdout
    assert "governor serve" in result.stdout


def test_a_refusal_is_one_line_and_exit_1(tmp_path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "notes.txt").write_text("mine")

    status = run(["init", "--home", str(tmp_path)])

    assert status == 1
    assert capsys.readouterr().err.startswith("governor: refused to start: HOME_INCOMPLETE: ")


def test_the_root_key_is_made_in_the_home_where_none_is_given(tmp_path):
    told = made(tmp_path / "home")

    assert told["root_key"] == str(tmp_path / "home" / "keys" / "root.key")
    assert told["lanes_ahead"] == []


def test_a_root_key_from_elsewhere_is_copied_in_and_pinned(tmp_path, root):
    told = made(tmp_path / "home", "--root-key", str(tmp_path / "root.pem"))
    copy = Path(str(told["root_key"]))

    assert note.parse_verifier_key(str(told["pin"])).public == root.public
    assert copy.read_bytes() == (tmp_path / "root.pem").read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    open_lane(Home.open(tmp_path / "home")).close("done")
    assert report(Home.open(tmp_path / "home")).result == "verified"


def test_with_lanes_a_root_key_from_elsewhere_signs_and_stays_there(tmp_path, root):
    told = made(tmp_path / "home", "--root-key", str(tmp_path / "root.pem"), "--lanes", "3")
    (tmp_path / "root.pem").unlink()
    home = Home.open(tmp_path / "home")

    assert told["root_key"] is None
    assert told["lanes_ahead"] == ["main", "main-1", "w0", "w1", "w2"]
    assert kinds(home, "cli") == ["genesis", "lane_open", "close"]
    for lane in ("main", "cli", "w2", "main-1"):
        open_lane(Home.open(tmp_path / "home"), lane).close("done")
    assert report(home).result == "verified"
    assert report(home).keys[0].kid == note.VerifierKey(home.root.name, root.public).kid


def test_the_root_key_is_forgotten_once_it_has_signed(tmp_path, root, monkeypatch):
    held: list[SigningKey] = []

    def looking(*arguments: object) -> Path:
        gc.collect()
        held.extend(each for each in gc.get_objects() if isinstance(each, SigningKey) and each.public == root.public)
        return ensure(*arguments)  # type: ignore[arg-type]

    ensure = authority.ensure
    monkeypatch.setattr(authority, "ensure", looking)
    made(tmp_path / "home", "--root-key", str(tmp_path / "root.pem"), "--lanes", "1")

    assert held == [root]


def test_a_place_that_takes_no_keys_is_named(tmp_path):
    made(tmp_path / "home")
    (tmp_path / "home" / "keys" / "ahead").write_text("in the way")
    said = refused(tmp_path / "home", "--lanes", "1").exception

    assert isinstance(said, StartRefused)
    assert said.code is StartCode.HOME_UNWRITABLE
    assert "keys/ahead" in said.text


def test_with_lanes_a_root_key_that_was_made_here_can_be_moved_away(tmp_path):
    result = CliRunner().invoke(init, ["--home", str(tmp_path / "home"), "--lanes", "1"], catch_exceptions=False)
    key = tmp_path / "home" / "keys" / "root.key"

    assert f"move it off: {key}" in result.stdout
    assert "main, main-1, w0" in result.stdout
    key.unlink()
    open_lane(Home.open(tmp_path / "home")).close("done")
    assert report(Home.open(tmp_path / "home")).result == "verified"


def test_lanes_are_added_to_a_home_that_is_there_and_nothing_else_is_changed(tmp_path):
    made(tmp_path / "home", "--lanes", "1")
    root = (tmp_path / "home" / "keys" / "root.key").rename(tmp_path / "root.pem")
    open_lane(Home.open(tmp_path / "home")).close("done")
    open_lane(Home.open(tmp_path / "home"), "main-1").close("done")
    before = contents(tmp_path / "home")

    told = made(tmp_path / "home", "--root-key", str(root), "--lanes", "2")

    after = contents(tmp_path / "home")
    assert told["lanes_ahead"] == ["main-2", "w0", "w1"]
    assert {path.name for path in after.keys() - before.keys()} == {"main-2.key", "main-2.cert", "w1.key", "w1.cert"}
    assert {path: after[path] for path in before} == before


def test_the_key_of_another_log_changes_nothing(tmp_path, root):
    made(tmp_path / "home")
    before = contents(tmp_path / "home")
    said = refused(tmp_path / "home", "--root-key", str(tmp_path / "root.pem"), "--lanes", "2")

    assert "not the root key" in str(said.exception)
    assert contents(tmp_path / "home") == before


def test_two_homes_under_one_root_key_are_two_logs(tmp_path, root):
    first, second = (made(tmp_path / name, "--root-key", str(tmp_path / "root.pem")) for name in ("one", "two"))

    assert first["log_id"] != second["log_id"]


def test_a_key_that_is_none_makes_no_home(tmp_path):
    (tmp_path / "root.pem").write_text("not a key")
    said = refused(tmp_path / "home", "--root-key", str(tmp_path / "root.pem"))

    assert "not one private key in PKCS#8 PEM" in str(said.exception)
    assert not (tmp_path / "home").exists()


def test_a_home_that_was_made_on_another_machine_is_pinned_by_who_has_its_root_key(tmp_path, monkeypatch):
    made(tmp_path / "home", "--lanes", "1")
    root = (tmp_path / "home" / "keys" / "root.key").rename(tmp_path / "root.pem")
    carried = (tmp_path / "home").rename(tmp_path / "carried")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another machine"))
    before = CliRunner().invoke(init, ["--home", str(carried)], catch_exceptions=False)
    told = made(carried, "--root-key", str(root), "--lanes", "1")
    open_lane(Home.open(carried)).close("done")

    assert "not there" in before.stdout
    assert Path(str(told["pin_file"])).read_text() == f"{told['pin']}\n{carried}\n"
    assert told["root_key"] is None
    assert report(Home.open(carried)).result == "verified"


def test_lanes_without_any_root_key_are_refused_with_the_command_to_run(tmp_path):
    made(tmp_path / "home", "--lanes", "1")
    (tmp_path / "home" / "keys" / "root.key").unlink()

    assert "--root-key SOURCE --lanes N" in str(refused(tmp_path / "home", "--lanes", "2").exception)
    made(tmp_path / "home", "--lanes", "1")


@pytest.mark.parametrize("options", [("--root-passphrase", "p"), ("--lanes", "0"), ("--lanes", "1001")])
def test_options_that_make_no_sense_are_wrong_usage(tmp_path, options):
    assert refused(tmp_path / "home", *options).exit_code == 2
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("step", [(Lane, "open"), (Lane, "close"), (ahead_keys, "certify"), (SigningKey, "create")])
def test_a_ceremony_that_was_interrupted_is_finished_by_the_same_command(tmp_path, root, monkeypatch, step):
    ceremony = ("--root-key", str(tmp_path / "root.pem"), "--lanes", "1")

    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*step, dying)
        refused(tmp_path / "home", *ceremony)
    told = made(tmp_path / "home", *ceremony)
    (tmp_path / "root.pem").unlink()
    open_lane(Home.open(tmp_path / "home")).close("done")

    assert told["root_key"] is None
    assert note.parse_verifier_key(str(told["pin"])).public == root.public
    assert report(Home.open(tmp_path / "home")).result == "verified"


def test_an_interrupted_ceremony_does_not_start_without_its_root_key(tmp_path, root, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Lane, "open", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        refused(tmp_path / "home", "--root-key", str(tmp_path / "root.pem"), "--lanes", "1")

    assert run(["audit", "rotate", "--home", str(tmp_path / "home")]) == 1
    with pytest.raises(StartRefused) as caught:
        open_lane(Home.open(tmp_path / "home"))
    assert caught.value.code is StartCode.HOME_INCOMPLETE
    assert "--root-key SOURCE" in caught.value.text
