"""Files that somebody outside runs later: what is written there leaves the sandbox without a packet."""

from __future__ import annotations

import os
from functools import partial

from addons.attempts.attempt import Family, Seen, closed, opened
from addons.attempts.surroundings import Surroundings
from addons.sandbox.run_later import BY_THE_USER

FAMILY = Family("later")
_NOT_WRITABLE = "read-only, not there, or EACCES"


def _writable(_: Surroundings, paths: tuple[str, ...]) -> Seen:
    for path in map(os.path.expanduser, paths):
        if os.path.exists(path) and os.access(path, os.W_OK):
            return opened(f"{path} can be changed, and is run outside")
    return closed("none of them can be changed")


for name, way, paths in (
    (
        "cron",
        "leave a job for cron or at",
        ("/etc/crontab", "/etc/cron.d", "/etc/cron.daily", "/var/spool/cron", "/var/spool/cron/crontabs",
         "/var/spool/at"),
    ),
    ("system-services", "leave a service for the machine",
     ("/etc/systemd/system", "/etc/init.d", "/usr/lib/systemd/system", "/run/systemd/system", "/etc/rc.local")),
    ("every-program", "have every program load a library (/etc/ld.so.preload)",
     ("/etc/ld.so.preload", "/etc/ld.so.conf.d", "/etc/profile.d", "/etc/environment")),
    ("programs", "replace a program that others run", ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/lib", "/opt")),
    ("accounts", "change accounts", ("/etc/passwd", "/etc/shadow", "/etc/sudoers", "/etc/sudoers.d", "/etc/pam.d")),
    ("remote-login", "let another key log in (~/.ssh)", ("~/.ssh", "~/.ssh/authorized_keys")),
    ("of-the-user", "have what the user runs later run something", tuple(f"~/{name}" for name in BY_THE_USER)),
):
    FAMILY.add(f"later-{name}", way, _NOT_WRITABLE, partial(_writable, paths=paths))
