"""All attempts, family by family."""

from __future__ import annotations

from addons.attempts import (
    datagrams,
    descriptors,
    echoes,
    explicit_proxy,
    governor_files,
    host_ports,
    kernel_files,
    link_settings,
    mounts,
    name_questions,
    namespaces,
    other_processes,
    privileges,
    raw_packets,
    socket_kinds,
    startup_files,
    streams,
    system_calls,
    unix_sockets,
    web,
)
from addons.attempts.attempt import Attempt, Family

FAMILIES: tuple[Family, ...] = (
    streams.FAMILY, web.FAMILY, explicit_proxy.FAMILY, name_questions.FAMILY, datagrams.FAMILY, echoes.FAMILY,
    raw_packets.FAMILY, socket_kinds.FAMILY, host_ports.FAMILY, link_settings.FAMILY, unix_sockets.FAMILY,
    descriptors.FAMILY, other_processes.FAMILY, kernel_files.FAMILY, mounts.FAMILY, namespaces.FAMILY,
    privileges.FAMILY, system_calls.FAMILY, governor_files.FAMILY, startup_files.FAMILY,
)
ATTEMPTS: tuple[Attempt, ...] = tuple(attempt for family in FAMILIES for attempt in family.attempts)
