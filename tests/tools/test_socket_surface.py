"""The table of docs/guide/socket.md against the classes: every name of a socket."""

from __future__ import annotations

import re
import socket

import pytest
from support.project import ROOT

import rsock

PAGE = ROOT / "docs" / "guide" / "socket.md"
ROW = re.compile(r"^\| `(\w+)` \| (same|different|absent) \|(.*)\|$", re.M)
ROWS = ROW.findall(PAGE.read_text())
SOCKET = {name for name in dir(socket.socket) if not name.startswith("_")}
# Present on some systems and versions only.
SOMETIMES = {"sendmsg_afalg", "ioctl", "share"}
STREAMS = (rsock.Client, rsock.Connection)


def test_every_name_of_a_socket_is_in_the_table_once() -> None:
    names = [name for name, _, _ in ROWS]
    assert len(names) == len(set(names))
    assert SOCKET - SOMETIMES <= set(names) <= SOCKET | SOMETIMES


@pytest.mark.parametrize(("name", "what", "why"), ROWS, ids=[row[0] for row in ROWS])
def test_what_the_table_says_is_there_is_there(name: str, what: str, why: str) -> None:
    for kind in STREAMS:
        assert hasattr(kind, name) == (what != "absent")
    if what != "same":
        assert why.strip(), "what is not the same has a reason"


def test_what_is_beyond_a_socket_is_named() -> None:
    beyond = PAGE.read_text().split("Beyond a socket")[1].split("```")[0]
    names = set(re.findall(r"`(\w+)`", beyond)) - {"with"}
    for kind in STREAMS:
        public = {name for name in dir(kind) if not name.startswith("_")}
        # The faults of a connection are those of its server.
        own = {"fault", "faults", "seed"} if kind is rsock.Client else set()
        assert public - SOCKET == names | own
