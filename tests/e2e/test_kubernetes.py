"""The containers of `governor init --kubernetes`, run by their own commands in what their pods would give them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from addons.kubernetes.workload import Placement
from addons.verbs.kubernetes import emit
from tests.addons.test_kubernetes import CODER
from tests.e2e.process import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap, which stands in for a container, is absent"),
]
LAUNCHER = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from addons.cli import main; main()"
PROGRAMS = {"governor": [sys.executable, "-P", "-c", LAUNCHER], "python3": [sys.executable, "-P"]}
START_SECONDS = 60


class Pod:
    """The volumes of a pod as folders, and its containers run over a root that is read-only, without capabilities."""

    def __init__(self, folder: Path, spec: dict[str, Any], policy: Path) -> None:
        self._folder, self._spec = folder, spec
        for volume in spec["volumes"]:
            (folder / volume["name"]).mkdir()
        with contextlib.suppress(FileExistsError):
            (folder / "governor-home").mkdir()
        # As the kubelet lays out what comes from a Secret or a ConfigMap: files are links into a folder of a version.
        key = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True).stdout
        self._projected("governor-root-key", "root.key", key)
        self._projected("governor-policy", "policy.yaml", policy.read_bytes())

    def _projected(self, volume: str, name: str, content: bytes) -> None:
        version = self._folder / volume / "..2026"
        version.mkdir()
        (version / name).write_bytes(content)
        (version / name).chmod(0o444)
        (self._folder / volume / "..data").symlink_to("..2026")
        (self._folder / volume / name).symlink_to(f"..data/{name}")

    def command(self, name: str) -> list[str]:
        """How the container is run here."""
        [container] = [part for part in (*self._spec.get("initContainers", ()), *self._spec["containers"])
                       if part["name"] == name]
        uid = str(container["securityContext"]["runAsUser"])
        program, *arguments = container["command"]
        words = ["bwrap", "--unshare-user", "--unshare-pid", "--uid", uid, "--gid", uid, "--ro-bind", "/", "/",
                 "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--tmpfs", "/var/lib", "--tmpfs", "/etc",
                 "--cap-drop", "ALL", "--die-with-parent", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin",
                 "--setenv", "PYTHONDONTWRITEBYTECODE", "1"]
        for variable in container["env"]:
            words += ["--setenv", variable["name"], variable["value"]]
        for mount in container["volumeMounts"]:
            how = "--ro-bind" if mount.get("readOnly") else "--bind"
            if mount["mountPath"] != "/tmp":  # the interpreter of these tests may lie below /tmp
                words += [how, str(self._folder / mount["name"]), mount["mountPath"]]
        return [*words, "--remount-ro", "/etc", "--remount-ro", "/run", *PROGRAMS[program], *arguments]

    def run(self, name: str) -> str:
        done = subprocess.run(self.command(name), capture_output=True, text=True, check=False, timeout=START_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(self.command(name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def pod_of(tmp_path: Path, placement: Placement) -> Pod:
    manifest, output = tmp_path / "deployment.yaml", tmp_path / "out"
    manifest.write_text(CODER)
    emit(manifest, placement, output, overwrite=False, as_json=True)
    name = "governor.yaml" if placement is Placement.GATEWAY else "patch-deployment-coder.yaml"
    [spec] = [made["spec"]["template"]["spec"] for made in yaml.safe_load_all((output / name).read_text())
              if "template" in made.get("spec", {})]
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    return Pod(volumes, spec, output / "policy.yaml")


def answered(path: str) -> bool:
    """Whether the probe's path says yes in the time of a start."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:9464{path}", timeout=2) as answer:
            return answer.status == 200
        time.sleep(0.1)
    return False


def asked(*proxy: str) -> str:
    return subprocess.run(["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", *proxy,
                           "http://denied.example.org/"], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def ports_free() -> None:
    for port in (9464, 15080):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)
        except urllib.error.HTTPError:
            pass
        except OSError:
            continue
        pytest.skip(f"something else listens on {port}, which is the port in the manifests")


def test_a_gateway_starts_from_a_mounted_secret_and_again_on_the_same_volume(tmp_path, ports_free):
    pod = pod_of(tmp_path, Placement.GATEWAY)

    for _ in range(2):
        pod.run("governor-init")
        with pod.running("governor"):
            assert answered("/readyz")
            assert answered("/healthz")
            assert asked("-x", "http://127.0.0.1:15080") == "407"
    home = tmp_path / "volumes" / "governor-home" / "home"
    assert not (home / "keys" / "root.key").exists()
    assert (home / "audit" / "lanes" / "main" / "000000.jsonl").stat().st_size > 0


def test_a_sidecar_hands_out_its_certificate_serves_its_pod_and_writes_its_log_out(tmp_path, ports_free):
    pod = pod_of(tmp_path, Placement.SIDECAR)

    pod.run("governor-init")
    pod.run("governor-ca")
    given = [path.name for path in (tmp_path / "volumes" / "governor-ca").iterdir()]
    with pod.running("governor"), pod.running("governor-log") as log:
        assert answered("/readyz")
        assert asked("-x", "http://127.0.0.1:15080") == "403"
        assert log.stdout is not None
        for line in log.stdout:
            if "denied.example.org" in line or '"verdict":"deny"' in line:
                break
        else:
            raise AssertionError("the log ended without the refusal")
    assert given == ["ca.pem"]
    assert "PRIVATE KEY" not in (tmp_path / "volumes" / "governor-ca" / "ca.pem").read_text()
