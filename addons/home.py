"""The home: the one private folder in which Governor keeps its keys, its log and what it needs to go on.

A home is made in place under a marker, `fresh`, which goes when the log has its first entries: whatever a crash left
half made before that is finished by the next start, and whatever is missing after it refuses to start.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from addons import ballast, durable, kept_states, keys, lineage, pins
from addons.errors import StartCode, StartRefused
from addons.key_source import KeySourceError
from addons.keys import SigningKey
from kernel import note, trust
from kernel.errors import NoteError, TrustError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAIN = "main"
"""The lane of a proxy in one process."""
SYSTEM_HOME = Path("/var/lib/governor")
FIRST_SEGMENT = "000000.jsonl"
_FOLDERS = ("ca", "keys", "audit", "audit/lanes", "audit/policies", "audit/state", "audit/receipts")


def home_folder(option: str | None) -> Path:
    """Where the home is: what was asked for, $GOVERNOR_HOME, /var/lib/governor for root, else the XDG state folder."""
    asked = option or os.environ.get("GOVERNOR_HOME")
    if asked:
        return Path(asked).expanduser()
    if os.geteuid() == 0:
        return SYSTEM_HOME
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "governor"


class Paths:
    """Where everything lies in a home."""

    __slots__ = ("folder",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def fresh(self) -> Path:
        """The marker of a home whose log has not begun."""
        return self.folder / "fresh"

    @property
    def control_sock(self) -> Path:
        return self.folder / "control.sock"

    @property
    def serving(self) -> Path:
        """Locked by the Governor that serves from the home."""
        return self.folder / "serving"

    @property
    def counting(self) -> Path:
        """Locked by whoever keeps accounts of the home: by one process, or shared by those of a ledger."""
        return self.folder / "counting"

    @property
    def runs(self) -> Path:
        """What the Governors of single commands have for as long as they run, a folder for each."""
        return self.folder / "runs"

    @property
    def agents(self) -> Path:
        return self.folder / "agents.json"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.yaml"

    @property
    def ca(self) -> Path:
        return self.folder / "ca"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def root_key(self) -> Path:
        return self.keys / "root.key"

    @property
    def ahead(self) -> Path:
        """Keys of lanes that are yet to begin."""
        return self.keys / "ahead"

    @property
    def request_names(self) -> Path:
        """The secret under which requests are named in the log."""
        return self.keys / "requests.secret"

    @property
    def submission_key(self) -> Path:
        """The key by which witnesses know the lanes of this home."""
        return self.keys / "witness.secret"

    @property
    def audit(self) -> Path:
        return self.folder / "audit"

    @property
    def trust(self) -> Path:
        return self.audit / "trust.json"

    @property
    def lock(self) -> Path:
        """Held while what all lanes share is changed: the beginning of the log, adoption, minimum.json."""
        return self.audit / "LOCK"

    @property
    def lanes(self) -> Path:
        return self.audit / "lanes"

    @property
    def policies(self) -> Path:
        return self.audit / "policies"

    @property
    def states(self) -> Path:
        """What the entries of lanes had made of the kernel's state at some time, by the digests that entries name."""
        return self.audit / "state"

    @property
    def receipts(self) -> Path:
        """What anchors answered."""
        return self.audit / "receipts"

    @property
    def anchors(self) -> Path:
        """Which anchors there are, and what is asked of them."""
        return self.folder / "anchors.yaml"

    @property
    def ballast(self) -> Path:
        return self.audit / "ballast"

    @property
    def vault(self) -> Path:
        return self.folder / "vault.db"

    @property
    def spool(self) -> Path:
        """Where long request bodies wait for their verdict, in files without names."""
        return self.folder / "spool"

    @property
    def minimum(self) -> Path:
        return self.folder / "minimum.json"

    def lane(self, name: str) -> Path:
        return self.lanes / name

    def state(self, digest: str) -> Path:
        return kept_states.file_of(self.states, digest)

    def lane_key(self, name: str) -> Path:
        """The key that signs the lane's newest segment."""
        return self.keys / f"{name}.key"

    def next_key(self, name: str) -> Path:
        """The key that a lane is about to go on with, from before it is certified until its segment has begun."""
        return self.keys / f"{name}.next"

    def ahead_key(self, name: str) -> Path:
        """The key with which a lane can begin without the root key."""
        return self.ahead / f"{name}.key"

    def ahead_certificate(self, name: str) -> Path:
        """What the root key says of that key."""
        return self.ahead / f"{name}.cert"


@dataclass(frozen=True, slots=True)
class Home:
    """An open home: checked, whole, and ours to write."""

    paths: Paths
    log_id: str
    root: note.VerifierKey
    brought: SigningKey | None = None
    """The root key, where it was brought from elsewhere for as long as this lives."""

    @classmethod
    def open(cls, folder: Path, root: Ed25519PrivateKey | None = None, *, keep_root: bool = True,
             giving_up: str | None = None) -> Self:
        """The home at `folder`, made with its pin when absent or empty; `StartRefused` when it is not whole.

        With `root` that key is the log's root, and it is copied in with `keep_root`; `KeySourceError` where the log has
        another. A lane that is being given up may lack its log.
        """
        paths = Paths(Path(os.path.realpath(folder)))
        try:
            if _absent_or_empty(paths.folder) or os.path.lexists(paths.fresh):
                _make(paths, root, keep_root)
            home = cls._existing(paths, giving_up)
            return home if root is None else home._with(root, keep_root)
        except OSError as fault:
            where = fault.filename or paths.folder
            text = f"{os.fsdecode(where)}: {fault.strerror}; the home {paths.folder} must be a folder you can write"
            raise StartRefused(StartCode.HOME_UNWRITABLE, text) from fault

    @classmethod
    def _existing(cls, paths: Paths, giving_up: str | None) -> Self:
        _check_folders(paths)
        stated = _trust(paths)
        _check_pins(paths, stated.log_id, stated.root)
        home = cls(paths, stated.log_id, stated.root)
        home._check_root()
        home._check_lanes(giving_up)
        ballast.keep(paths.ballast)
        return home

    def root_key(self) -> SigningKey:
        """The key that signs genesis and lane certificates, read for that alone; `StartRefused` where there is none."""
        if self.brought is not None:
            return self.brought
        self.demand_root()
        key = SigningKey.load(self.paths.root_key, self.root.name)
        if key.public != self.root.public:
            text = f"{self.paths.root_key} is not the root key in {self.paths.trust}; restore the home from a backup"
            raise StartRefused(StartCode.TAMPERED, text)
        return key

    def demand_root(self) -> None:
        """`StartRefused` where a lane that is new has nobody to certify its key."""
        if self.brought is None and not os.path.lexists(self.paths.root_key):
            text = f"a new lane needs the root key, and {self.paths.root_key} is not there"
            raise StartRefused(StartCode.HOME_INCOMPLETE, f"{text}; certify the lane with it: {self.certifying}")

    @property
    def certifying(self) -> str:
        """The command with which an operator has lanes certified ahead."""
        return f"governor init --home {self.paths.folder} --root-key SOURCE --lanes N"

    def lanes(self) -> tuple[str, ...]:
        """The names of the lanes whose log has begun."""
        return tuple(sorted(path.parent.name for path in self.paths.lanes.glob(f"*/{FIRST_SEGMENT}")))

    def minimum(self) -> dict[str, str]:
        """The newest signed checkpoint of each lane, as minimum.json has them."""
        try:
            minimum = trust.parse_minimum_file(self.paths.minimum.read_bytes())
        except FileNotFoundError:
            return {}
        except TrustError as fault:
            raise _damaged(self.paths.minimum, str(fault)) from fault
        if minimum.log_id != self.log_id:
            raise _damaged(self.paths.minimum, "it belongs to another log")
        return dict(minimum.notes)

    def raise_minimum(self, lane: str, checkpoint: str) -> None:
        """Make `checkpoint` what the next start of `lane` must reach, where it must not reach a larger one already."""
        with durable.locked(self.paths.lock):
            known = self.minimum()
            if _size(known.get(lane, "")) > _size(checkpoint):
                return
            minimum = trust.Minimum(self.log_id, known | {lane: checkpoint})
            durable.replace(self.paths.minimum, trust.minimum_file(minimum))

    def _with(self, root: Ed25519PrivateKey, keep: bool) -> Self:
        key = SigningKey(self.root.name, root)
        if key.public != self.root.public:
            raise KeySourceError(f"that is not the root key of {self.paths.folder}, which is {self.root}")
        if keep and not os.path.lexists(self.paths.root_key):
            SigningKey.keep(self.paths.root_key, self.root.name, root)
        if pins.read(self.log_id) is None:
            # A home that was made on another machine: whoever has its root key says that it is the right one.
            pins.write(pins.Pin(self.log_id, str(self.root), self.paths.folder))
        return replace(self, brought=key)

    def _check_root(self) -> None:
        """It may live elsewhere once the lanes have their keys. Here it is looked at and not read."""
        if os.path.lexists(self.paths.root_key):
            keys.check_private(self.paths.root_key)
        elif not os.path.lexists(self.paths.fresh) and not any(self.paths.keys.glob("*.key")):
            raise _incomplete(self.paths.folder, "has a log and no keys")

    def _check_lanes(self, giving_up: str | None) -> None:
        """A known lane is one with a key or with an entry in minimum.json; its log must be there, if it goes on."""
        # Read in the order opposite to that in which a lane begins, as another process may have one begin now.
        fresh = os.path.lexists(self.paths.fresh)
        known = {path.stem for path in self.paths.keys.glob("*.key")} - {"root"} | set(self.minimum())
        present = set(self.lanes())
        lost = {lane for lane in known - present - {giving_up} if not lineage.is_retired(self.paths, lane, self.root)}
        if lost:
            raise _incomplete(self.paths.folder, f"has lost the log of lane {', '.join(sorted(lost))}")
        if not present and giving_up is None and not fresh:
            raise _incomplete(self.paths.folder, "has keys and no log")


def _size(checkpoint: str) -> int:
    try:
        return note.stated_checkpoint(checkpoint).size
    except NoteError:
        return 0


def _damaged(path: Path, problem: str) -> StartRefused:
    return StartRefused(StartCode.TAMPERED, f"{path} is damaged ({problem}); restore it from a backup")


def _incomplete(folder: Path, problem: str) -> StartRefused:
    text = f"{folder} {problem}; restore it from a backup, or start over with another --home"
    return StartRefused(StartCode.HOME_INCOMPLETE, text)


def _absent_or_empty(folder: Path) -> bool:
    try:
        return not os.listdir(folder)
    except FileNotFoundError:
        return True


def _make(paths: Paths, root: Ed25519PrivateKey | None, keep_root: bool) -> None:
    """Make the home, or finish one that a crash left fresh. Each step is whole or absent, and done once."""
    pinned = pins.of_home(paths.folder)
    if pinned and not os.path.lexists(paths.fresh):
        text = f"{paths.folder} is absent or empty, but {pins.path(pinned[0].log_id)} says that a log lived there"
        hint = "restore it from a backup; if it was meant to go, remove that pin"
        raise StartRefused(StartCode.HOME_INCOMPLETE, f"{text}; {hint}")
    paths.folder.mkdir(parents=True, exist_ok=True, mode=durable.PRIVATE_FOLDER)
    if _absent_or_empty(paths.folder):
        # mkdir by hand leaves 0755; an empty folder holds nothing yet that others could have read.
        os.chmod(paths.folder, durable.PRIVATE_FOLDER)
    with durable.locked(paths.fresh):
        if os.path.lexists(paths.fresh):
            _furnish(paths, root, keep_root)


def _furnish(paths: Paths, root: Ed25519PrivateKey | None, keep_root: bool) -> None:
    durable.sync_folder(paths.folder)
    durable.sync_folder(paths.folder.parent)
    for name in _FOLDERS:
        durable.make_folder(paths.folder / name)
    if not paths.trust.exists():
        _make_root(paths, root, keep_root)
    if not paths.agents.exists():
        durable.replace(paths.agents, b"{}\n")
    ballast.keep(paths.ballast)
    stated = _trust(paths)
    if not any(pin.log_id == stated.log_id for pin in pins.of_home(paths.folder)):
        pins.write(pins.Pin(stated.log_id, str(stated.root), paths.folder))


def _make_root(paths: Paths, root: Ed25519PrivateKey | None, keep: bool) -> None:
    """The root key and what says publicly that it is. A key without trust.json has signed nothing: it is replaced."""
    if pins.of_home(paths.folder):
        raise _incomplete(paths.folder, f"is pinned and has lost {paths.trust.name}")
    # A log of its own, also under a key that has signed another: two logs of one name would look like one forked.
    name = note.root_name(secrets.token_hex(8))
    if root is None:
        key = SigningKey.create(paths.root_key, name)
    elif keep:
        key = SigningKey.keep(paths.root_key, name, root)
    else:
        paths.root_key.unlink(missing_ok=True)
        key = SigningKey(name, root)
    durable.replace(paths.trust, trust.trust_file(key.verifier))


def _check_folders(paths: Paths) -> None:
    for path in (paths.keys, paths.audit, paths.lanes, paths.trust, paths.agents):
        if not os.path.lexists(path):
            name = path.relative_to(paths.folder)
            raise _incomplete(paths.folder, f"is not empty and not a whole home: {name} is missing")
    for folder in (paths.folder, paths.keys, paths.audit, paths.lanes):
        status = os.lstat(folder)
        problem = durable.exposure(status) if stat.S_ISDIR(status.st_mode) else "is not a folder"
        if not problem and not os.access(folder, os.W_OK):
            problem = "is read-only"
        if problem:
            text = f"{folder} {problem}; it must be yours, writable, with mode 0700"
            raise StartRefused(StartCode.HOME_UNWRITABLE, text)


def _trust(paths: Paths) -> trust.TrustFile:
    try:
        return trust.parse_trust_file(paths.trust.read_bytes())
    except TrustError as fault:
        raise _damaged(paths.trust, str(fault)) from fault


def _check_pins(paths: Paths, log_id: str, root: note.VerifierKey) -> None:
    """The pin of this log must hold its root key, and a pin made for this folder must be one of this log."""
    pin = pins.read(log_id)
    if pin is not None and pin.verifier_key != str(root):
        text = f"{paths.trust} is not the root key pinned in {pins.path(log_id)}; restore the home from a backup"
        raise StartRefused(StartCode.TAMPERED, text)
    others = [other for other in pins.of_home(paths.folder) if other.log_id != log_id]
    if others and (pin is None or pin.home != paths.folder):
        text = f"{paths.folder} holds another log than the one pinned in {pins.path(others[0].log_id)}"
        raise StartRefused(StartCode.TAMPERED, f"{text}; restore it from a backup")
