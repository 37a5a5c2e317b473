"""The version of Governor: the distribution, `governor --version`, `build_info` and the kernel named in entries."""

VERSION = "0.1.0"
