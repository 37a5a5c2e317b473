"""The codec of entries: the fast one, or the kernel's own where the package that makes it fast is not installed.

Governor depends on that package; an auditor with nothing but `governor-audit.pyz` need not have it.
"""

from __future__ import annotations

try:
    from addons.fast_codec import encode, parse, read
except ModuleNotFoundError as absent:
    if absent.name != "orjson":
        raise
    from kernel.canonical import encode, parse, read

__all__ = ["encode", "parse", "read"]
