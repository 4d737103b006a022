"""No way out: connections and look-ups that leave this machine fail, loudly and on record."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

ATTEMPTS_FILE = "RECAP_TEST_OUTGOING"
"""Environment variable with the file that attempts are written to, by this process and others."""

_installed = False


class LeftMachineError(BaseException):
    """A test tried to reach another machine; no handler of ordinary errors may swallow that."""


def install() -> None:
    """Refuse, from now on and until this process ends, what would leave the machine.

    Python itself announces every connection and look-up to its audit hooks, whatever module asks
    for it. Libraries that open sockets in C and other programs are not seen.
    """
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_audit)


def _connected(arguments: tuple[Any, ...]) -> object:
    _socket, address = arguments[:2]
    if _socket.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return address[0]


_HOST_OF: dict[str, Callable[[tuple[Any, ...]], object]] = {
    "socket.connect": _connected,
    "socket.sendto": _connected,
    "socket.getaddrinfo": lambda arguments: arguments[0],
    "socket.gethostbyname": lambda arguments: arguments[0],
}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    host_of = _HOST_OF.get(event)
    if host_of is None:
        return
    host = host_of(arguments)
    if not stays_here(host):
        told = f"{event} to {host!r}: tests reach loopback alone"
        file = os.environ.get(ATTEMPTS_FILE)
        if file:
            with Path(file).open("a", encoding="utf-8") as attempts:
                attempts.write(f"{told}\n")
        raise LeftMachineError(told)


def stays_here(host: object) -> bool:
    """Return whether a host is this machine, or none at all."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
