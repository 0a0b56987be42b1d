"""Memory, file descriptors and connections of the services, which no fault may let grow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from schemas.topics import SERVICES
from tests.faults.ground import Ground

MEGABYTE: Final = 1024 * 1024
MOST_MEMORY: Final = 300 * MEGABYTE
"""Bytes resident of one process at rest."""
MOST_DESCRIPTORS: Final = 100
MOST_CONNECTIONS: Final = 8
"""The services' own limit on connections to PostgreSQL (`FIELDBRIDGE_POOL_CONNECTIONS`)."""
_MORE_DESCRIPTORS: Final = 16


@dataclass(frozen=True)
class Use:
    """What one service process uses at one moment."""

    pid: int
    memory: int
    descriptors: int
    connections: int


def used(ground: Ground) -> dict[str, Use]:
    """What the stack's own processes use. Others of the same service, which a scenario has added, do not count."""
    uses: dict[str, Use] = {}
    for service in SERVICES:
        process = ground.process(service)
        postgres = urlsplit(ground.stack.database(service)).port
        with process.oneshot():
            uses[service] = Use(
                process.pid,
                process.memory_info().rss,
                process.num_fds(),
                sum(1 for one in process.net_connections("tcp") if one.raddr and one.raddr.port == postgres),
            )
    return uses


def unbounded(before: Mapping[str, Use], after: Mapping[str, Use]) -> Iterator[str]:
    """What has grown past its bounds, or more than work at rest explains."""
    for service, use in after.items():
        if use.memory > MOST_MEMORY:
            yield f"{service} holds {use.memory // MEGABYTE} MB of memory"
        if use.connections > MOST_CONNECTIONS:
            yield f"{service} holds {use.connections} connections to PostgreSQL"
        if use.descriptors > MOST_DESCRIPTORS:
            yield f"{service} holds {use.descriptors} file descriptors"
        earlier = before.get(service)
        if earlier is not None and earlier.pid == use.pid and use.descriptors > earlier.descriptors + _MORE_DESCRIPTORS:
            yield f"{service} holds {use.descriptors} file descriptors, {earlier.descriptors} before the fault"


def peak(uses: Mapping[str, Use]) -> dict[str, int]:
    """The most that any service uses: megabytes, descriptors, connections."""
    return {
        "megabytes": max(use.memory for use in uses.values()) // MEGABYTE,
        "descriptors": max(use.descriptors for use in uses.values()),
        "connections": max(use.connections for use in uses.values()),
    }
