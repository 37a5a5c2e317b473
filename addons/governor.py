"""The script for mitmproxy: `mitmdump -s addons/governor.py`."""

import os
import sys
from pathlib import Path

# mitmproxy keeps a script's folder first on the import path for as long as it runs; a file of ours must never stand in
# for a module of somebody else's. The folder above holds `addons` and `kernel`.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
if str(_here.parent) not in sys.path:
    sys.path.insert(0, str(_here.parent))

try:
    from addons.enforcer import Enforcer
except BaseException as fault:  # noqa: BLE001
    print(f"governor: refused to start: VERSION: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
    # mitmproxy would serve whoever waits at its port while it ends.
    os._exit(1)

addons = [Enforcer()]
