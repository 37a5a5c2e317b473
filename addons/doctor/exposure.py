"""Who can read the keys: other users by their modes, an agent by where the home lies or by being the same user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from addons.control import user_name
from addons.doctor.check import Check, State
from addons.home import Paths

_PUBLIC = {"mitmproxy-ca-cert.pem", "mitmproxy-ca-cert.p12", "mitmproxy-ca-cert.cer", "mitmproxy-dhparam.pem"}
_MOST_NAMED = 3


def checks(paths: Paths) -> Iterator[Check]:
    """Nothing where there is no home."""
    if not paths.folder.is_dir():
        return
    yield from _modes(paths)
    yield from _place(paths.folder)


def _modes(paths: Paths) -> Iterator[Check]:
    owner = paths.folder.stat().st_uid
    exposed = [path for path in _secrets(paths) if _open_to_others(path, owner)]
    if exposed:
        named = ", ".join(str(path) for path in exposed[:_MOST_NAMED])
        more = f" and {len(exposed) - _MOST_NAMED} more" if len(exposed) > _MOST_NAMED else ""
        yield Check("keys", State.FAIL, f"others can read or change {named}{more}", f"chmod -R go= {paths.folder}")
    elif owner == 0:
        yield Check("keys", State.OK, "only root can read the keys: no agent may run as root outside of governor run")
    else:
        yield Check(
            "keys",
            State.OK,
            f"only {user_name(owner)} can read the keys; an agent of that user can, too, outside of "
            "governor run, which hides the home",
        )


def _secrets(paths: Paths) -> Iterator[Path]:
    yield paths.folder
    for folder in (paths.keys, paths.ca, paths.ahead):
        if folder.is_dir():
            yield folder
            yield from (path for path in folder.iterdir() if path.name not in _PUBLIC and path.is_file())
    yield from (path for path in (paths.vault, paths.agents, paths.control_sock) if os.path.lexists(path))


def _open_to_others(path: Path, owner: int) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid not in (owner, 0) or bool(stat.S_IMODE(status.st_mode) & 0o077)


def _place(home: Path) -> Iterator[Check]:
    here = Path.cwd().resolve()
    if here == home or (here in home.parents and here not in (Path("/"), Path.home().resolve())):
        yield Check(
            "place", State.FAIL,
            f"the home lies inside the working directory {here}: an agent started here has your keys",
            "keep it elsewhere: governor init --home ~/.local/state/governor, and remove this one once its log is kept")
