"""The two verifiers on one folder: the product's, and scripts/verify_log.py as a module."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from addons import verifying
from addons.audit_log import AuditLog, AuditLogError
from kernel.report import Report
from tests.logs import ROOT

ONE_FILE = Path(__file__).parents[1] / "scripts" / "verify_log.py"
NO_ANSWER = 2


@lru_cache
def one_file_verifier() -> Any:
    """The module scripts/verify_log.py."""
    spec = importlib.util.spec_from_file_location("verify_log", ONE_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report_of(home: Path, *, every_signature: bool = False, jobs: int = 1) -> Report | None:
    """What the product finds, None where it cannot read the log."""
    try:
        return verifying.verify_log(AuditLog.at(home), ROOT.verifier, every_signature=every_signature, jobs=jobs)
    except AuditLogError:
        return None


def product(home: Path, *, every_signature: bool = False) -> int:
    """The exit status of `governor audit verify`."""
    report = report_of(home, every_signature=every_signature)
    return NO_ANSWER if report is None else report.result.exit_code


def product_in_parts(home: Path) -> int:
    """The same, each segment for itself, as on many cores, yet in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifying, "_BYTES_A_JOB", 1)
        patch.setattr(verifying, "_run", lambda jobs, meter, walks: [walk.run() for walk in walks])
        report = report_of(home, jobs=64)
    return NO_ANSWER if report is None else report.result.exit_code


def one_file(home: Path) -> int:
    """The exit status of scripts/verify_log.py."""
    module = one_file_verifier()
    try:
        problems, _ = module.verify(home / "audit", module.Key(str(ROOT.verifier)))
    except OSError:
        return NO_ANSWER
    return int(problems[0][0]) if problems else 0


def remember_signatures(patch: pytest.MonkeyPatch) -> None:
    """Let both verifiers verify each signature once: of a log and its thousand damaged copies most are the same."""
    patch.setattr(verifying, "verify_signature", lru_cache(maxsize=2**16)(verifying.verify_signature))
    key = one_file_verifier().Key
    signed = key.signed
    patch.setattr(key, "__hash__", lambda self: hash(self.text), raising=False)
    patch.setattr(key, "signed", lru_cache(maxsize=2**16)(signed))


class Folder:
    """A home whose files are set again and again; only what differs is written."""

    def __init__(self, home: Path) -> None:
        self.home, self._files = home, dict[str, bytes]()
        (home / "audit" / "lanes").mkdir(parents=True)

    def put(self, files: dict[str, bytes]) -> Path:
        """The home with exactly these files."""
        for name in self._files.keys() - files.keys():
            (self.home / name).unlink()
        folders = {(self.home / name).parent for name in files}
        for name in self._files.keys() - files.keys():
            folder = (self.home / name).parent
            if folder.parent.name == "lanes" and folder not in folders and folder.is_dir():
                folder.rmdir()
        for name, data in files.items():
            if self._files.get(name) != data:
                (self.home / name).parent.mkdir(parents=True, exist_ok=True)
                (self.home / name).write_bytes(data)
        self._files = dict(files)
        return self.home
