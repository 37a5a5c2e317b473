"""The installed wheel governs the same traffic as the checkout, with the sources out of reach."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts import wheel_check
from tests.e2e import process
from tests.e2e.origins import serving

pytestmark = [pytest.mark.e2e, pytest.mark.wheel, pytest.mark.checkout]

MITMDUMP = "#!{python}\nfrom mitmproxy.tools.main import mitmdump\nmitmdump()\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of commands of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = wheel_check.build(folder)
    assert not wheel_check.difference(wheel)
    commands = wheel_check.install(wheel, folder / "environment").parent
    mitmdump = commands / "mitmdump"
    mitmdump.write_text(MITMDUMP.format(python=commands / "python"))
    mitmdump.chmod(0o755)
    return commands


def script_of(commands: Path) -> Path:
    shown = subprocess.run([commands / "governor", "script"], cwd="/", capture_output=True, text=True, check=True)
    return Path(shown.stdout.strip())


def test_the_script_it_names_lies_in_its_private_folder(installed):
    script = script_of(installed)

    assert script.parts[-3:] == ("governor_proxy", "addons", "governor.py")
    assert script.is_relative_to(installed.parent)


@pytest.mark.parametrize("serve", [True, False], ids=["governor serve", "mitmdump -s"])
def test_it_governs_http_and_https(installed, serve, tmp_path, certificate, monkeypatch):
    monkeypatch.setattr(process, "BIN", installed)
    root = script_of(installed).parents[1]
    with (serving() as plain, serving(chain=certificate[0]) as tls,
          process.started(tmp_path, serve=serve, trust=certificate[1], root=root) as governor):
        statuses = [governor.run("curl", "-s", "-o", os.devnull, "-w", "%{http_code}", f"{origin.url}{path}").stdout
                    for origin in (plain, tls) for path in ("/ok", "/denied/x")]

    assert statuses == ["200", "403", "200", "403"]
    assert plain.seen.lines == tls.seen.lines == ["GET /ok"]
