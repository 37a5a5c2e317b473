"""The policy of one run: that of files, of a few words on the command line, or either on trial for a day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from addons import policy_files
from addons.errors import GovernorError
from kernel.ports import granted
from kernel.vocabulary import WELL_KNOWN_METHODS

_WORDS = re.compile(r"(?:(?P<methods>[A-Za-z]+(?:,[A-Za-z]+)*)\s+)?(?P<place>\S+)")
_SETS = ("reads", "writes", "any")
_TRIAL_DAYS = 1
# A client that looks for a proxy's certificate or a redirect begins there, whatever the rules say of it.
_ALWAYS = ((80, 80), (443, 443))


class PolicyWordsError(GovernorError):
    """What `--allow` says cannot be read, or does not go with the other options."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """`files` are read by Governor, in the place of which it is given `text` where that is not None. `name` is what the
    summary calls it.
    """

    name: str
    files: tuple[Path, ...]
    text: bytes | None
    ports: tuple[tuple[int, int], ...]
    """The ports of TCP, from and to, that lead to Governor."""


def chosen(home_policy: Path, files: Sequence[Path], allowed: Sequence[str], today: date, *,
           observe: bool) -> RunPolicy:
    """The policy of a run. Raises `PolicyError`, `PolicyMissing` or `PolicyWordsError`."""
    if allowed and files:
        raise PolicyWordsError("--allow makes a policy of its own and goes with no --policy; write the rule into it")
    if observe and len(files) > 1:
        raise PolicyWordsError("--observe goes with one policy; write mode: observe and until: into the uppermost file")
    meant = tuple(files) or ((home_policy,) if home_policy.exists() else (policy_files.shipped_policy("default"),))
    text = in_words(allowed) if allowed else None
    if observe:
        text = _on_trial(policy_files.read_file(meant[0]) if text is None else text, today)
    if text is None:
        compiled = policy_files.load_policy(meant)
    else:
        compiled = policy_files.read_policy([("--allow" if allowed else str(meant[0]), text)])
    ports = {*_ALWAYS, *((span.first, span.last) for span in granted(compiled.policy))}
    name = "--allow" if allowed else "+".join(file.name for file in meant)
    named = () if text is not None else tuple(file.resolve() for file in files)
    return RunPolicy(name, named, text, tuple(sorted(ports)))


def in_words(allowed: Sequence[str]) -> bytes:
    """The policy that lets through just what was said: `"GET api.example.org/v1/**"`. Raises `PolicyWordsError`."""
    rules = "".join(_rule(number, words) for number, words in enumerate(allowed, 1))
    return f"version: 1\nrules:\n{rules}".encode()


def _rule(number: int, words: str) -> str:
    found = _WORDS.fullmatch(words.strip())
    if found is None or found["place"] in WELL_KNOWN_METHODS:
        raise PolicyWordsError(f'--allow {words!r}: write METHODS HOST/PATH, as in "GET api.example.org/v1/**"')
    methods, place = found["methods"] or "reads", found["place"]
    methods = methods.lower() if methods.lower() in _SETS else f"[{methods.upper()}]"
    if "://" not in place:
        place = f"https://{place}"
    scheme, _, rest = place.partition("://")
    if "/" not in rest:
        rest += "/**"
    quoted = f"{scheme}://{rest}".replace('"', "%22")
    return f'  - allow: allowed-{number}\n    to: "{quoted}"\n    methods: {methods}\n'


def _on_trial(text: bytes, today: date) -> bytes:
    end = today + timedelta(days=_TRIAL_DAYS)
    return text.rstrip() + f"\nmode: observe\nuntil: {end.isoformat()}\n".encode()
