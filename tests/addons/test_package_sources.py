"""Where pip, npm, cargo and apt fetch from, read from a machine that the test furnishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from addons.package_sources import Machine, ask, found_rules, search, with_found_rules
from addons.policy_files import load_policy, shipped_policy
from kernel.facts import Host


class Furnished:
    """A machine of files below `root`, variables and answers of tools."""

    def __init__(self, root: Path) -> None:
        self.root, self.environment, self.answers = root, {}, {}

    def file(self, path: str, text: str) -> Path:
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)
        return whole

    def found(self):
        machine = Machine(self.environment, self.root / "home/u", self.root, lambda c: self.answers.get(c[0]))
        return search(machine)

    def urls(self) -> list[str]:
        return [f"{s.tool} {s.scheme}://{s.host.name}:{s.port}" for s in self.found()]


@pytest.fixture
def machine(tmp_path):
    return Furnished(tmp_path)


def test_a_machine_that_says_nothing_has_no_sources(machine):
    assert machine.found() == ()


def test_folders_of_another_user_say_nothing(machine, monkeypatch):
    machine.file("home/u/.cargo/registry/index/index.example.org-1949cf8c6b5b557f/x", "")

    def refuse(path: Path):
        raise PermissionError(13, "Permission denied", str(path))

    for look in ("iterdir", "is_dir", "read_bytes"):
        monkeypatch.setattr(Path, look, refuse)
    assert machine.found() == ()


@pytest.mark.parametrize(("path", "text", "expected"), [
    pytest.param("etc/pip.conf", "[global]\nindex-url = https://pip.example.org/simple\n",
                 ["pip https://pip.example.org:443"], id="pip, for all users"),
    pytest.param("home/u/.config/pip/pip.conf", "[install]\nextra_index_url =\n  https://a.example.org/s\n"
                 "  http://b.example.org:8080/s\n",
                 ["pip https://a.example.org:443", "pip http://b.example.org:8080"], id="pip, two more indexes"),
    pytest.param("etc/pip.conf", "[global]\nfind-links = /opt/wheels\ntrusted-host = x.example.org\n", [],
                 id="pip, a folder"),
    pytest.param("etc/pip.conf", "not a configuration\n", [], id="pip, a broken file"),
    pytest.param("home/u/.npmrc", "registry=https://npm.example.org/\n@acme:registry = https://acme.example.org/npm\n"
                 "//npm.example.org/:_authToken=secret\n",
                 ["npm https://npm.example.org:443", "npm https://acme.example.org:443"], id="npm, a scope"),
    pytest.param("home/u/.npmrc", "registry=${MIRROR}\n", [], id="npm, a variable"),
    pytest.param("home/u/.cargo/config.toml", '[registries.acme]\nindex = "sparse+https://cargo.example.org/index/"\n'
                 '[source.mirror]\nregistry = "https://mirror.example.org/git"\n[source.local]\ndirectory = "x"\n',
                 ["cargo https://cargo.example.org:443", "cargo https://mirror.example.org:443"], id="cargo"),
    pytest.param("home/u/.cargo/config.toml", "registries = 1\n[source\n", [], id="cargo, a broken file"),
    pytest.param("home/u/.cargo/config.toml", 'registries = "x"\nsource = [1]\n', [], id="cargo, other shapes"),
    pytest.param("home/u/.cargo/registry/index/index.example.org-1949cf8c6b5b557f/x", "",
                 ["cargo https://index.example.org:443"], id="cargo, what it has fetched"),
    pytest.param("etc/apt/sources.list", "# deb http://no.example.org x\n"
                 "deb [arch=amd64 signed-by=/k] http://apt.example.org/debian stable main\ndeb-src file:/x y z\n",
                 ["apt http://apt.example.org:80"], id="apt, the old format"),
    pytest.param("etc/apt/sources.list.d/x.sources", "Types: deb\nURIs: http://a.example.org/d\n https://b.example.org/d\n"
                 "Suites: x\n\nTypes: deb\nEnabled: no\nURIs: http://off.example.org/\n",
                 ["apt http://a.example.org:80", "apt https://b.example.org:443"], id="apt, the new format"),
])
def test_a_configuration_file_is_read_as_the_tool_reads_it(machine, path, text, expected):
    machine.file(path, text)

    assert machine.urls() == expected


def test_variables_are_read_and_named(machine):
    machine.environment = {
        "PIP_INDEX_URL": "https://pip.example.org/simple",
        "npm_config_registry": "https://npm.example.org",
        "CARGO_REGISTRIES_ACME_INDEX": "sparse+https://cargo.example.org/",
    }

    assert [(source.tool, source.place) for source in machine.found()] == [
        ("pip", "$PIP_INDEX_URL"), ("npm", "$npm_config_registry"), ("cargo", "$CARGO_REGISTRIES_ACME_INDEX")]


def test_a_tool_is_asked_for_what_it_does_without_configuration(machine):
    machine.answers = {"python3": "https://pip.example.org/simple https://files.example.org\n",
                       "npm": "https://npm.example.org/\n"}

    assert machine.urls() == ["pip https://pip.example.org:443", "pip https://files.example.org:443",
                              "npm https://npm.example.org:443"]


def test_pip_is_not_asked_where_its_index_is_configured(machine):
    machine.file("etc/pip.conf", "[global]\nindex-url = https://own.example.org/simple\n")
    machine.answers = {"python3": "https://pip.example.org/simple\n"}

    assert machine.urls() == ["pip https://own.example.org:443"]


@pytest.mark.parametrize("command", [["no-such-tool-here"], ["false"], ["sh", "-c", "exit 3"]])
def test_a_tool_that_cannot_say_is_skipped(command):
    assert ask(command) is None


def test_a_tool_that_can_say_is_heard():
    assert ask(["echo", "https://npm.example.org/"]) == "https://npm.example.org/\n"


SECRETS = ["https://user:s3cret@pip.example.org/simple", "https://t0ken@pip.example.org/s3cret/simple?key=s3cret",
           "https://user:s3cret@@pip.example.org/", "https://user:s3cret/pip.example.org/"]


@pytest.mark.parametrize("url", SECRETS)
def test_no_credential_of_a_url_is_copied(machine, url):
    machine.environment = {"PIP_INDEX_URL": url}

    text = found_rules(machine.found())

    assert "s3cret" not in text
    assert "t0ken" not in text


def test_one_host_stands_once_with_the_first_place_that_names_it(machine):
    machine.environment = {"PIP_INDEX_URL": "https://pip.example.org/a"}
    machine.file("etc/pip.conf", "[global]\nextra-index-url = https://PIP.example.org:443/b\n")

    (source,) = machine.found()

    assert (source.host, source.place) == (Host("pip.example.org"), "$PIP_INDEX_URL")


def test_the_found_rules_load_in_the_starting_policy_and_allow_reading_alone(machine, tmp_path):
    lines = "deb http://apt.example.org/debian x y\ndeb http://10.1.2.3:8000/d x y\n"
    apt = machine.file("etc/apt/sources.list", lines)
    machine.environment = {"PIP_INDEX_URL": "https://pip.example.org/simple"}
    shipped = shipped_policy("default").read_text()
    policy = tmp_path / "policy.yaml"

    policy.write_text(with_found_rules(shipped, machine.found()))
    loaded = load_policy([policy])

    found = [rule for rule in loaded.policy.rules if rule.name.startswith("found-")]
    assert [rule.name for rule in found] == ["found-pip", "found-apt"]
    assert all(rule.where.methods == {"GET", "HEAD"} for rule in found)
    assert loaded.findings == ()
    assert len(loaded.policy.nevers) == 1
    text = policy.read_text()
    assert f'      - "http://apt.example.org/**"  # {apt}\n' in text
    assert f'      - "http://10.1.2.3:8000/**"  # {apt}; an inside address: see `address:` and `never:`\n' in text
    assert '      - "pip.example.org"  # $PIP_INDEX_URL\n' in text


def test_without_a_find_the_policy_stays_as_it_is(machine):
    shipped = shipped_policy("default").read_text()

    assert with_found_rules(shipped, machine.found()) == shipped
