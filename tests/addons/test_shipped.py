"""What lies beside Governor's code is found wherever that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import kernel
import kernel.step
from addons.shipped import kernel_sources


def test_every_module_that_decides_is_in_the_digest_of_the_kernel() -> None:
    """Those of its folders, too: what a call of a model may draw is reckoned in one."""
    root, sources = Path(kernel.__path__[0]), dict(kernel_sources())
    loaded = {name: Path(module.__file__) for name, module in sys.modules.items()
              if name.split(".")[0] == "kernel" and module.__file__ is not None}

    assert {file.relative_to(root).as_posix() for file in loaded.values()} <= set(sources)
    assert sources["llm/spend.py"] == (root / "llm" / "spend.py").read_bytes()
