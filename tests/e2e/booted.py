"""A machine of its own for a unit: systemd as the first process of fresh namespaces, with Governor installed there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.process import ROOT

_SYSTEMD = Path("/lib/systemd/systemd")
# Where cgroup2 lies: on Debian, and on a machine that has the first version beside it.
_GROUPS = next((path for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
                if (path / "cgroup.controllers").exists()), None)
needs_systemd = pytest.mark.skipif(
    os.geteuid() != 0 or not _SYSTEMD.exists() or shutil.which("unshare") is None
    or _GROUPS is None or not os.access(_GROUPS, os.W_OK),
    reason="systemd as first process of a namespace needs root, systemd, unshare and a cgroup2 that can be written to")
_BOOT_SECONDS = 20
# Nothing of the machine is changed: /proc/sys (but for its own network's) and /sys are read-only, /dev and all that is
# written lie in memory, and none of the machine's own units is there to be started: its udev would change the modes of
# devices that all share.
_BOOT = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
mkdir /run/net
mount --bind /proc/sys/net /run/net
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount --move /run/net /proc/sys/net
umount -R /sys/fs/cgroup
mount -o remount,ro,bind /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/etc /run/systemd/system
for part in passwd group nsswitch.conf hosts ssl ld.so.cache localtime alternatives; do
    if [ -e "/etc/$part" ]; then cp -aL "/etc/$part" /run/etc/; fi
done
mkdir -p /run/etc/systemd/system
mount --bind /run/etc /etc
mkdir /run/dev /run/dev/pts /run/dev/shm
for node in null zero full random urandom tty; do
    touch "/run/dev/$node"
    mount --bind "/dev/$node" "/run/dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts /run/dev/pts
ln -s pts/ptmx /run/dev/ptmx
ln -s /proc/self/fd /run/dev/fd
mount --rbind /run/dev /dev
mount -t tmpfs tmpfs /opt
mkdir -p /opt/governor/bin /opt/governor/python /opt/governor/packages /opt/governor/code
mount --rbind "$1" /opt/governor/python
mount --rbind "$2" /opt/governor/packages
mount --rbind "$3" /opt/governor/code
mount -t tmpfs tmpfs /var
mkdir -p /var/lib /var/log
mkdir -m 1777 /var/tmp
mount -t tmpfs -o mode=1777 tmpfs /tmp
cat > /opt/governor/bin/governor <<'END'
#!/bin/sh
export LD_LIBRARY_PATH=/opt/governor/python/lib PYTHONPATH=/opt/governor/code:/opt/governor/packages
export PYTHONDONTWRITEBYTECODE=1
exec /opt/governor/python/bin/python3 -P -c 'from addons.cli import main; main()' "$@"
END
chmod 0755 /opt/governor/bin/governor
mount -t tmpfs tmpfs /usr/lib/systemd/system
for target in idle sysinit basic shutdown network-online multi-user; do
    printf '[Unit]\\nDefaultDependencies=no\\n' > "/usr/lib/systemd/system/$target.target"
done
export container=test
exec /lib/systemd/systemd --system --unit=idle.target --log-target=console --log-level=notice --show-status=false
"""


@dataclass(frozen=True)
class Machine:
    """A booted systemd, by the number that its first process has outside."""

    pid: int

    def run(self, *command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command in it, whatever became of it."""
        return subprocess.run(["nsenter", "--target", str(self.pid), "--all", *command], input=given, text=True,
                              capture_output=True, check=False, timeout=150)

    def ask(self, *command: str, given: str | None = None) -> str:
        """A command that has to succeed."""
        done = self.run(*command, given=given)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def shows(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.ask("systemctl", "show", "--value", "--property", what, unit).strip()


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """One with Governor under /opt/governor and no unit of it yet; everything of it is gone at the end."""
    assert _GROUPS is not None
    group = _GROUPS / f"governor-test-{os.getpid()}"
    group.mkdir()
    places = [sys.base_prefix, sysconfig.get_path("purelib"), str(ROOT)]
    entering = f"echo $$ > {group}/cgroup.procs; "
    apart = 'exec unshare -m -p -f -n -u -i -C --kill-child=KILL sh -c "$0" boot "$@"'
    outer = subprocess.Popen(["sh", "-c", entering + apart, _BOOT, *places], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    try:
        machine = Machine(_first_process(outer.pid))
        deadline = time.monotonic() + _BOOT_SECONDS
        while machine.run("systemctl", "is-active", "idle.target").stdout.strip() != "active":
            assert time.monotonic() < deadline, "systemd did not come up"
            time.sleep(0.1)
        yield machine
    finally:
        with contextlib.suppress(ProcessLookupError):
            outer.send_signal(signal.SIGKILL)
        outer.wait()
        _remove(group)


def _first_process(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline:
        if words := children.read_text().split():
            return int(words[0])
        time.sleep(0.02)
    raise AssertionError("unshare started nothing")


def _remove(group: Path) -> None:
    """A cgroup goes when its last process has gone, which the end of its namespace sees to."""
    deadline = time.monotonic() + _BOOT_SECONDS
    for folder in sorted((path for path in [group, *group.rglob("*")] if path.is_dir()), reverse=True):
        while folder.exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            assert time.monotonic() < deadline, f"{folder} is still in use"
            time.sleep(0.05)
