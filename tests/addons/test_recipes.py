"""What scripts/recipes promises: every file is told of, and says nothing that the product does not take."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from addons.cli import governor
from addons.client_trust.laid import REPLACING
from addons.client_trust.own_settings import ADDED_TO
from addons.kubernetes import proxy_pod
from kernel.version import VERSION

pytestmark = pytest.mark.checkout
RECIPES = Path(__file__).resolve().parents[2] / "scripts" / "recipes"
FOLDERS = sorted(path.name for path in RECIPES.iterdir() if path.is_dir())
CONTAINER, CI = RECIPES / "container", RECIPES / "ci"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_named_with_whether_it_was_run(folder):
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", (RECIPES / folder / "README.md").read_text(), re.MULTILINE)

    told = dict(rows)
    assert set(told) == {path.name for path in (RECIPES / folder).iterdir()} - {"README.md"}
    assert all(re.match(r"(not )?run here", text) for text in told.values())


def test_every_recipe_stands_in_the_readme_above_them():
    named = re.findall(r"^\| \[([a-z]+)\]\(([a-z]+)/README.md\) \|", (RECIPES / "README.md").read_text(), re.MULTILINE)

    assert sorted(name for name, _ in named) == FOLDERS
    assert all(name == link for name, link in named)


_COMMAND = re.compile(
    r"(?:^ *-? *|run: |/opt/governor/bin/|`|start \w+ \w+ )"
    r"(governor (?:run|audit|policy|serve|reload|init|doctor)\b[^`#]*)")


def commands(folder: Path) -> list[str]:
    """Each `governor ...` that files of a recipe run."""
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    return [match[1].strip() for line in lines if (match := _COMMAND.search(line))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_verb_and_option_in_it_is_one_of_the_product(folder):
    for command in commands(RECIPES / folder):
        words = [re.sub(r"[\[\]]", "", word) for word in shlex.split(command)[1:]]
        group: click.Command = governor
        context = click.Context(governor, info_name="governor")
        while isinstance(group, click.Group):
            found = group.get_command(context, words.pop(0))
            assert found is not None, command
            group = found
        # Whether a file is there is the run's business, which it is not.
        options = {option for parameter in group.params for option in parameter.opts}
        given = [word for word in words[: words.index("--") if "--" in words else None] if word.startswith("--")]
        of_mitmdump = {"--mode", "--set", "--listen-host", "--listen-port"} if group.name == "serve" else set()
        assert set(given) <= options | of_mitmdump, command


def test_the_ci_recipes_run_an_agent_and_keep_its_evidence():
    assert any(command.startswith("governor run") for command in commands(CI))
    assert sum(command.startswith("governor audit bundle") for command in commands(CI)) == 2


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((CONTAINER / "compose.yaml").read_text())["services"]


def test_no_container_can_gain_anything_and_one_alone_has_a_capability(services):
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "no"
    assert [name for name, service in services.items() if "cap_add" in service] == ["table"]


def test_the_agent_shares_governors_network_is_not_its_user_and_comes_behind_the_table(services):
    agent, uid = services["agent"], str(proxy_pod.UID)

    assert agent["network_mode"] == services["table"]["network_mode"] == "service:governor"
    assert agent["user"].partition(":")[0] not in (uid, "0")
    assert services["governor"]["user"] == f"{uid}:{uid}"
    assert f"meta skuid {uid} accept" in (CONTAINER / "agent.nft").read_text()
    assert agent["depends_on"] == {"table": {"condition": "service_completed_successfully"}}
    assert services["table"]["depends_on"] == {"governor": {"condition": "service_healthy"}}


def test_the_agent_sees_the_certificate_and_nothing_else_of_governors(services):
    assert services["agent"]["volumes"] == ["certificate:/run/governor:ro"]
    assert [name for name, service in services.items() if "secrets" in service] == ["home"]


def test_the_agent_is_given_every_variable_that_clients_trust(services):
    given = services["agent"]["environment"]

    assert {name for name, value in given.items() if value == "/run/governor/ca.pem"} == {*REPLACING, *ADDED_TO}


def instructions() -> list[tuple[str, str]]:
    text = (CONTAINER / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_not_roots_and_asks_its_health_without_a_shell():
    last = instructions()[max(place for place, (word, _) in enumerate(instructions()) if word == "FROM"):]
    found = dict(last)

    assert found["USER"] == f"{proxy_pod.UID}:{proxy_pod.UID}"
    assert found["ENTRYPOINT"] == '["governor"]'
    assert 'CMD ["python3"' in found["HEALTHCHECK"]
    assert "/healthz" in found["HEALTHCHECK"]
    assert f"GOVERNOR_HOME={proxy_pod.HOME} " in f"{found['ENV']} "


def test_the_version_in_the_recipes_is_this_one():
    texts = [path.read_text() for folder in FOLDERS for path in (RECIPES / folder).iterdir()]
    named = {version for text in texts
             for version in re.findall(r"(?:governor(?:-table)?:|governor-proxy==|VERSION=)([0-9][0-9.]*)", text)}

    assert named == {VERSION}


def test_the_extras_in_the_image_are_those_of_the_distribution():
    project = tomllib.loads((RECIPES.parents[1] / "pyproject.toml").read_text())["project"]

    assert "governor-proxy[redis,s3]" in (CONTAINER / "Containerfile").read_text()
    assert {"redis", "s3"} <= set(project["optional-dependencies"])
