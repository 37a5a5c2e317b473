"""Builds the wheel, installs it where the sources are out of reach, and runs tests there: with --all every fast one.

Byte for byte the wheel holds what the repository holds, so every day it is enough to run what installing can break:
the verbs, the files that come along, and the hold on mitmproxy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGED = ("addons", "kernel", "policies", "dashboards", "scripts/verify_log.py")
ALL = ("tests/kernel", "tests/addons")
SHARE = tuple(f"tests/addons/test_{name}.py" for name in (
    "agents_verbs", "audit_pyz", "audit_verbs", "bundling", "cli", "dashboards", "dispatch", "gate_trial", "init",
    "policy_files", "policy_verbs", "serve", "settings",
))


def main(arguments: list[str]) -> int:
    """The exit status of the tests, or 1 when the wheel is not what the repository holds."""
    with tempfile.TemporaryDirectory(prefix="governor-wheel-") as folder:
        wheel = build(Path(folder))
        problem = difference(wheel)
        if problem:
            print(f"the wheel differs from the repository: {problem}")
            return 1
        python = install(wheel, Path(folder) / "environment")
        return run_tests(python, Path(folder) / "elsewhere", ALL if "--all" in arguments else SHARE)


def build(folder: Path) -> Path:
    """The wheel of this checkout, made with the environment's own build tools."""
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
                   check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def difference(wheel: Path) -> str:
    """The first file in which wheel and repository differ; empty where they do not."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"governor_proxy/{path.relative_to(ROOT)}": path.read_bytes() for path in _sources()}
    # The launcher has its place at the top of the private folder.
    expected["governor_proxy/__init__.py"] = expected.pop("governor_proxy/addons/launcher.py")
    for name in sorted(packed.keys() | expected.keys()):
        if packed.get(name) != expected.get(name):
            return name
    return ""


def _sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PACKAGED],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    packaged = [path for name in PACKAGED for path in (ROOT / name, *(ROOT / name).rglob("*"))]
    return [path for path in packaged if path.is_file() and "__pycache__" not in path.parts]


def install(wheel: Path, environment: Path) -> Path:
    """An environment that holds the wheel and sees the locked dependencies, but not this checkout; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    # A folder named in a .pth file is searched, but its own .pth files, and so the one of this checkout, are not read.
    installed = Path(_ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run_tests(python: Path, folder: Path, chosen: tuple[str, ...]) -> int:
    """Run the chosen tests, copied to `folder`, with few random examples, against the installed wheel."""
    package = Path(_ask(python, "import governor_proxy; print(governor_proxy.__path__[0])"))
    folder.mkdir()
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("policies", "dashboards"):
        (folder / name).symlink_to(package / name)
    environment = {**os.environ, "PYTHONPATH": str(package), "GOVERNOR_TEST_SCALE": "0.05"}
    origin = _ask(python, "import addons, kernel; print(addons.__file__, kernel.__file__)", environment)
    if str(ROOT) in origin:
        print(f"the sources are within reach: {origin}")
        return 1
    workers = str((os.cpu_count() or 1) + 1)
    pytest = [str(python), "-m", "pytest", "-q", "-n", workers, "--dist", "loadfile", "-p", "no:cacheprovider"]
    fast = ["-m", "not e2e and not wheel and not checkout"]
    return subprocess.run([*pytest, *fast, *chosen], cwd=folder, env=environment, check=False).returncode


def _ask(python: Path, program: str, environment: dict[str, str] | None = None) -> str:
    return subprocess.run([str(python), "-c", program], env=environment, cwd="/", check=True, capture_output=True,
                          text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
