"""Ports on loopback: is one free, and which other one to take."""

import secrets
import socket

LOOPBACK = "127.0.0.1"

# Below the range from which systems number outgoing connections: a client that keeps dialling a dead server's port
# could otherwise be given that very port and end up connected to itself.
_FIRST, _LAST = 10_000, 30_000
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as caller:
        caller.settimeout(0.5)
        if caller.connect_ex((LOOPBACK, port)) == 0:
            return False
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(1)
        except OSError:
            return False
    return True


def choose(*preferred: int | None) -> int:
    """The first of the preferred ports that is free, else any other free one.

    Raises OSError if none is found.
    """
    for port in preferred:
        if port and is_free(port):
            return port
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on {LOOPBACK}")
