"""`governor init`: one command from nothing to a home that starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from addons import package_sources, pins, policy_files
from addons.cli import run
from addons.home import Home
from addons.verbs.home import init
from kernel import note
from kernel.facts import Host
from tests.addons.logs import open_lane, report


@pytest.fixture(autouse=True)
def a_machine_with_one_index(monkeypatch: pytest.MonkeyPatch) -> None:
    index = package_sources.Source("pip", "https", Host("packages.example.org"), 443, "/etc/pip.conf")
    monkeypatch.setattr(package_sources, "search", lambda _: (index,))


def made(folder: Path) -> dict[str, object]:
    result = CliRunner().invoke(init, ["--home", str(folder), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


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
    before = {path: path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()}

    second = made(tmp_path / "home")

    assert second == first | {"policy_written": False}
    assert before == {path: path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()}


def test_people_are_told_the_pin_and_what_to_do_next(tmp_path):
    result = CliRunner().invoke(init, ["--home", str(tmp_path / "home")], catch_exceptions=False)

    assert str(Home.open(tmp_path / "home").root) in result.stdout
    assert "governor serve" in result.stdout


def test_a_refusal_is_one_line_and_exit_1(tmp_path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "notes.txt").write_text("mine")

    status = run(["init", "--home", str(tmp_path)])

    assert status == 1
    assert capsys.readouterr().err.startswith("governor: refused to start: HOME_INCOMPLETE: ")
