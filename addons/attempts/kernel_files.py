"""Files by which the kernel is set, and devices: opened for writing, and nothing written."""

from __future__ import annotations

import glob
import os
from functools import partial

from addons.attempts.attempt import Family, Seen, closed, not_here, opened, refused, words
from addons.attempts.surroundings import Surroundings

FAMILY = Family("kernel files")
_READ_ONLY = "EROFS, EACCES, EPERM or not there"
_MOST = 40


def _opened(_: Surroundings, patterns: tuple[str, ...], flags: int, what: str) -> Seen:
    """Whether one of the files opens so."""
    paths = [path for pattern in patterns for path in sorted(glob.glob(pattern))[:_MOST]]
    said = ""
    for path in paths:
        try:
            # Neither truncated nor made, and no terminal becomes ours.
            os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
        except OSError as fault:
            said = said or f"{path}: {words(fault)}"
        else:
            return opened(f"{path} opens for {what}")
    return closed(said or "none of them is there")


_writable = partial(_opened, flags=os.O_WRONLY, what="writing")
_readable = partial(_opened, flags=os.O_RDONLY, what="reading")

_WRITTEN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("forwarding", "turn forwarding on (net.ipv4.ip_forward)",
     ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")),
    ("source-routing", "have source routes accepted", ("/proc/sys/net/ipv4/conf/all/accept_source_route",)),
    ("core-pattern", "have the kernel run a program at a crash (kernel.core_pattern)",
     ("/proc/sys/kernel/core_pattern",)),
    ("modprobe", "have the kernel run a program in place of modprobe", ("/proc/sys/kernel/modprobe",)),
    ("hotplug", "have the kernel run a program at an event", ("/proc/sys/kernel/hotplug", "/sys/kernel/uevent_helper")),
    ("binfmt", "have the kernel run a program for files of a kind", ("/proc/sys/fs/binfmt_misc/register",)),
    ("sysctls", "set the kernel in any other way (/proc/sys)",
     ("/proc/sys/kernel/*", "/proc/sys/vm/*", "/proc/sys/user/*")),
    ("sysrq", "give the kernel a command (/proc/sysrq-trigger)", ("/proc/sysrq-trigger",)),
    ("interrupts", "move interrupts (/proc/irq)", ("/proc/irq/default_smp_affinity", "/proc/irq/*/smp_affinity")),
    ("sys-kernel", "write below /sys",
     ("/sys/kernel/*", "/sys/power/*", "/sys/module/*/parameters/*", "/sys/bus/*/drivers_probe")),
    ("tracing", "trace the kernel (tracefs, debugfs)", ("/sys/kernel/tracing/*", "/sys/kernel/debug/*")),
    ("bpf-files", "change pinned BPF programs", ("/sys/fs/bpf/*",)),
    ("links-in-sys", "set links by /sys", ("/sys/class/net/*/mtu", "/sys/class/net/*/flags")),
    ("release-agent", "have the kernel run a program when a cgroup ends (release_agent)",
     ("/sys/fs/cgroup/*/release_agent", "/sys/fs/cgroup/release_agent")),
    ("cgroup", "leave the cgroup for another",
     ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/*/cgroup.procs", "/sys/fs/cgroup/*/tasks")),
    ("efi", "change what the machine boots", ("/sys/firmware/efi/efivars/*",)),
    ("security", "change what security modules forbid",
     ("/sys/kernel/security/apparmor/.*", "/sys/fs/selinux/enforce")),
)
_READ: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("kcore", "read the memory of the kernel (/proc/kcore)", ("/proc/kcore",)),
    ("kmsg", "read the log of the kernel", ("/proc/kmsg", "/dev/kmsg")),
    ("memory-devices", "read the memory of the machine", ("/dev/mem", "/dev/kmem", "/dev/port")),
    ("pagemap", "read how memory is used (/proc/kpagecount)", ("/proc/kpagecount", "/proc/kpageflags")),
    ("disks", "read a disk past its file system",
     ("/dev/sd*", "/dev/vd*", "/dev/nvme*", "/dev/mmcblk*", "/dev/dm-*", "/dev/loop[0-9]*")),
    ("terminals", "read the terminals of others", ("/dev/tty[0-9]*", "/dev/vcs*", "/dev/console")),
    ("input", "read what is typed", ("/dev/input/*", "/dev/hidraw*")),
)
for name, way, patterns in _WRITTEN:
    FAMILY.add(f"write-{name}", way, _READ_ONLY, partial(_writable, patterns=patterns))
for name, way, patterns in _READ:
    FAMILY.add(f"read-{name}", way, _READ_ONLY, partial(_readable, patterns=patterns))
FAMILY.add(
    "device-kvm", "make a virtual machine (/dev/kvm)", "not there, or EACCES",
    partial(_opened, patterns=("/dev/kvm",), flags=os.O_RDWR, what="reading and writing"))
FAMILY.add(
    "device-vsock",
    "reach the hypervisor (/dev/vsock, /dev/vhost-*)",
    "not there, or EACCES",
    partial(
        _opened, patterns=("/dev/vsock", "/dev/vhost-*", "/dev/vmci", "/dev/ppp"), flags=os.O_RDWR,
        what="reading and writing"),
)
FAMILY.add(
    "device-mapper",
    "set up disks (/dev/loop-control, /dev/mapper/control, /dev/fuse)",
    "not there, or EACCES",
    partial(
        _opened, patterns=("/dev/loop-control", "/dev/mapper/control", "/dev/btrfs-control", "/dev/uinput"),
        flags=os.O_RDWR, what="reading and writing"),
)


@FAMILY.attempt("kernel-addresses", "read where the kernel lies in memory (/proc/kallsyms)", "zeros, or not there")
def addresses(_: Surroundings) -> Seen:
    try:
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
            line = file.readline()
    except OSError as fault:
        return refused(fault)
    if not line:
        return not_here("this kernel tells no symbols")
    return (
        closed("only zeros are shown") if int(line.split()[0], 16) == 0 else opened("addresses of the kernel are shown")
    )
