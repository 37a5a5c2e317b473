"""`governor ca`: the CA shown, given to clients, put into stores, and replaced with an overlap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from addons import authority, build_info, takeover
from addons.client_trust import installing
from addons.client_trust.certificates import at
from addons.client_trust.installing import Kind, Store
from addons.home import Home
from addons.lane import Lane
from addons.verbs.ca import ca

needs_certutil = pytest.mark.skipif(shutil.which("certutil") is None, reason="certutil is not installed")
CA = authority.CERTIFICATE_FILE


@pytest.fixture
def run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`governor ca` on a home with a CA, as a user who has nothing else."""
    authority.ensure(home.paths.ca, datetime.now(UTC))
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in [*os.environ]:
        if "CERT" in name or "_CA" in name or name in ("JAVA_TOOL_OPTIONS", "PHP_INI_SCAN_DIR", "WGETRC"):
            monkeypatch.delenv(name)

    def called(*arguments: str) -> Result:
        return CliRunner().invoke(ca, [*arguments, "--home", str(home.paths.folder)])

    return called


def signing(home: Home) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home.paths.ca / authority.KEY_FILE).read_bytes())


def told(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_show_tells_the_fingerprint_the_days_and_the_file(run, home) -> None:
    shown = told(run("show", "--json"))

    (only,) = shown["certificates"]
    assert shown["path"] == str(home.paths.ca / CA)
    assert (only["role"], only["days_left"], only["trusted_by"]) == ("signing", 89, [])
    assert only["sha256"] == signing(home).fingerprint(hashes.SHA256()).hex()
    assert only["sha256"] in run("show").stdout


def test_show_ends_with_1_where_the_ca_has_ended(run, home) -> None:
    for file in home.paths.ca.iterdir():
        file.unlink()
    authority.ensure(home.paths.ca, datetime.now(UTC) - timedelta(days=91))

    assert run("show").exit_code == 1


def test_show_says_how_a_home_that_only_runs_have_used_gets_its_ca(run, home) -> None:
    (home.paths.ca / authority.KEY_FILE).unlink()

    result = run("show")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "governor init" in str(result.exception or result.stderr)


def test_show_of_a_folder_that_is_no_home_makes_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(ca, ["show", "--home", str(tmp_path / "none")])

    assert result.exit_code == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("folder", ["plain", "it's a \"folder\" of $HOME"])
def test_what_env_prints_for_a_shell_sets_what_json_tells(run, tmp_path: Path, folder: str) -> None:
    place = ("--output", str(tmp_path / folder))
    script = run("env", *place, "--shell").stdout
    variables = told(run("env", *place, "--json"))["variables"]

    ran = subprocess.run(["sh", "-c", f"{script}\nenv -0"], capture_output=True, check=True,
                         env={"PATH": os.environ["PATH"]})

    seen = dict(each.split("=", 1) for each in ran.stdout.decode().split("\0") if "=" in each)
    assert variables.items() <= seen.items()
    assert Path(seen["SSL_CERT_FILE"]).is_file()


def test_env_speaks_other_forms_too(run, home) -> None:
    bundle = home.paths.ca / "trust" / "bundle.pem"
    folder = bundle.parent

    assert f"set -gx SSL_CERT_FILE '{bundle}';" in run("env", "--shell", "fish").stdout
    assert f"$env:SSL_CERT_FILE = '{bundle}'" in run("env", "--shell", "powershell").stdout
    assert f"# docker run --env-file THIS --volume {folder}:{folder}:ro IMAGE\nSSL_CERT_FILE={bundle}\n" in run(
        "env", "--docker").stdout
    assert f'[Service]\nEnvironment="SSL_CERT_FILE={bundle}"\n' in run("env", "--systemd").stdout


def test_a_systemd_unit_is_given_nothing_to_expand(run, tmp_path: Path) -> None:
    said = run("env", "--systemd", "--output", str(tmp_path / 'a%h"b')).stdout

    assert f'Environment="SSL_CERT_FILE={tmp_path}/a%%h\\"b/bundle.pem"' in said


def test_two_forms_at_once_are_wrong_usage(run) -> None:
    assert run("env", "--docker", "--systemd").exit_code == 2


def test_env_for_others_is_in_a_folder_that_they_can_read(run, tmp_path: Path) -> None:
    run("env", "--output", str(tmp_path / "new" / "trust"))

    files = [path for path in (tmp_path / "new" / "trust").rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    assert (tmp_path / "new" / "trust").stat().st_mode & 0o777 == 0o755


def test_rotate_hands_out_the_successor_and_stands_in_the_log(run, home) -> None:
    before = signing(home)
    told(run("env", "--json"))

    rotated = told(run("rotate", "--overlap", "12h", "--reason", "a laptop is gone", "--json"))

    handed_out = set(at(home.paths.ca / CA))
    assert [each["role"] for each in rotated["certificates"]] == ["signing", "successor"]
    assert signing(home) == before
    assert len(handed_out) == 2
    assert handed_out <= set(at(home.paths.ca / "trust" / "bundle.pem"))
    overlap = datetime.fromisoformat(rotated["signs_from"]) - datetime.now(UTC)
    assert timedelta(hours=11) < overlap <= timedelta(hours=12)
    (entry,) = takeover.acts(home, 0)
    assert (entry["act"], entry["reason"], entry["by"]) == ("ca rotate", "a laptop is gone", rotated["entry"])


def test_rotate_now_signs_with_the_successor_and_hands_out_the_old_one(run, home) -> None:
    before = signing(home)

    rotated = told(run("rotate", "--now", "--json"))

    assert [each["role"] for each in rotated["certificates"]] == ["signing", "previous"]
    assert rotated["signs_from"] is None
    assert signing(home) != before
    assert before.public_bytes(Encoding.DER) in set(at(home.paths.ca / CA))


def test_a_compromised_ca_is_not_handed_out_any_more(run, home) -> None:
    told(run("env", "--json"))
    told(run("rotate", "--now", "--json"))

    rotated = told(run("rotate", "--compromised", "--json"))

    (only,) = at(home.paths.ca / CA)
    assert [each["role"] for each in rotated["certificates"]] == ["signing"]
    assert only == signing(home).public_bytes(Encoding.DER)
    assert list(at(home.paths.ca / "trust" / "extra.pem")) == [only]


def test_a_rotation_that_cannot_be_written_down_is_not_done(run, home) -> None:
    held = Lane.open(home, "cli", kernel=build_info.kernel_identity())
    try:
        result = run("rotate", "--now")
    finally:
        held.close("done")

    assert result.exit_code != 0
    assert len(list(at(home.paths.ca / CA))) == 1


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose store is made anew by a command that notes how it was called."""
    root = tmp_path / "root"
    (root / "usr/local/share/ca-certificates").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "update-ca-certificates"
    command.write_text(f'#!/bin/sh\necho "update $*" >> {tmp_path}/calls\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    real = installing.stores
    monkeypatch.setattr(installing, "stores", lambda home, _=None: real(home, root))
    return root / "usr/local/share/ca-certificates"


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def test_trust_puts_each_ca_into_the_systems_store_once_and_takes_it_out(
        run, system: Path, tmp_path: Path, home) -> None:
    (system / "theirs.crt").write_text("theirs")
    told(run("rotate", "--json"))
    first, again = told(run("trust", "--system", "--json")), told(run("trust", "--system", "--json"))
    inside = {der for file in system.glob("governor-*.crt") for der in at(file)}
    removed = told(run("trust", "--remove", "--system", "--json"))

    assert [each["changed"] for (each,) in (first, again, removed)] == [True, False, True]
    assert inside == set(at(home.paths.ca / CA))
    assert [file.name for file in system.iterdir()] == ["theirs.crt"]
    assert calls(tmp_path) == ["update ", "update --fresh"]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(run, system: Path, tmp_path: Path) -> None:
    said = run("trust", "--dry-run")

    assert said.exit_code == 0
    assert f"put the CA into {system}, then update-ca-certificates: would be done" in said.stdout
    assert list(system.iterdir()) == []
    assert calls(tmp_path) == []
    assert not (tmp_path / "user/.pki").exists()


def test_a_store_that_cannot_be_changed_ends_with_1_and_says_how_it_can(run, system: Path, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(installing, "put", refused)
    result = run("trust", "--system")

    assert result.exit_code == 1
    assert "is root's" in result.stderr


@needs_certutil
def test_trust_makes_the_users_database_where_there_is_none_and_takes_the_ca_out_again(
        run, system: Path, tmp_path: Path) -> None:
    done = told(run("trust", "--user", "--json"))
    again = told(run("trust", "--user", "--json"))
    shown = told(run("show", "--json"))["certificates"][0]["trusted_by"]
    told(run("trust", "--user", "--remove", "--json"))

    database = tmp_path / "user/.pki/nssdb"
    assert ([each["changed"] for each in done], [each["changed"] for each in again]) == ([True], [False])
    assert shown == [str(database)]
    assert "governor" not in subprocess.run(
        ["certutil", "-L", "-d", f"sql:{database}"], capture_output=True, text=True, check=True).stdout


def test_without_certutil_the_users_store_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(installing.StoreRefused, match="libnss3-tools"):
        Store(Kind.USER, tmp_path / "nssdb", "certutil").add([b"der"])


def test_firefoxs_profiles_are_stores_of_the_user(tmp_path: Path) -> None:
    profile = tmp_path / ".mozilla/firefox/abc.default"
    profile.mkdir(parents=True)
    (profile / "cert9.db").touch()

    assert profile in [store.folder for store in installing.stores(tmp_path, tmp_path)]
