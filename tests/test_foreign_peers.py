"""Programs that know nothing of rsock exchange data with it, and may vanish in any way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import Script, arrived, dial, has_ipv6, payload, read_exactly, reset, says_back

from rsock import Server

EIGHT_MIB = payload(8 << 20, seed=8)


def through(command: list[str], data: bytes) -> bytes:
    """What `command` writes when it is fed `data`."""
    done = subprocess.run(command, input=data, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def test_ncat_gets_eight_mebibytes_back(echo: Server) -> None:
    command = [installed("ncat"), echo.host, str(echo.port)]
    assert through(command, EIGHT_MIB) == EIGHT_MIB


def test_socat_gets_eight_mebibytes_back(echo: Server) -> None:
    command = [installed("socat"), "-t", "10", "-", f"TCP:{echo.host}:{echo.port}"]
    assert through(command, EIGHT_MIB) == EIGHT_MIB


def test_a_plain_c_client_gets_eight_mebibytes_back(echo: Server, echo_client: Path) -> None:
    command = [str(echo_client), echo.host, str(echo.port)]
    assert through(command, EIGHT_MIB) == EIGHT_MIB
    echo.ledger.wait(open=0, closed=1)
    [record] = echo.ledger.closed
    assert record.bytes_in == record.bytes_out == len(EIGHT_MIB)
    assert record.closed_by == "peer"


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_plain_c_client_is_served_over_ipv6(echo_client: Path) -> None:
    with Server("::1") as server:
        command = [str(echo_client), server.host, str(server.port)]
        assert through(command, b"over IPv6") == b"over IPv6"


def test_a_plain_c_client_that_sends_nothing_ends_well(echo: Server, echo_client: Path) -> None:
    assert through([str(echo_client), echo.host, str(echo.port)], b"") == b""


# --- peers that go away --------------------------------------------------------------------


def test_a_peer_that_leaves_is_recorded_as_peer(echo: Server) -> None:
    with dial(echo.address) as peer:
        assert says_back(peer)
    echo.ledger.wait(open=0, closed=1)
    [record] = echo.ledger.closed
    assert record.closed_by == "peer"


def test_a_reset_from_the_peer_is_recorded_as_reset(echo: Server) -> None:
    peer = dial(echo.address)
    assert says_back(peer)
    reset(peer)
    echo.ledger.wait(open=0, closed=1)
    [record] = echo.ledger.closed
    assert record.closed_by == "reset"
    assert record.bytes_in == 5


def test_a_reset_with_data_under_way_is_recorded_as_reset(echo: Server) -> None:
    peer = dial(echo.address)
    peer.sendall(payload(200_000))
    reset(peer)
    echo.ledger.wait(open=0, closed=1)
    [record] = echo.ledger.closed
    assert record.closed_by == "reset"


def test_a_reset_before_the_accept_harms_nobody() -> None:
    server = Server().listen()
    for _ in range(5):
        reset(dial(server.address))
    with dial(server.address) as peer, server:
        assert says_back(peer)
        # Those reset in the queue are accepted all the same, and end at once.
        server.ledger.wait(open=1)


def test_resets_by_the_hundred_harm_nobody(echo: Server) -> None:
    with dial(echo.address) as bystander:
        for number in range(300):
            peer = dial(echo.address)
            peer.sendall(payload(1 + number))
            reset(peer)
            assert says_back(bystander)
        echo.ledger.wait(open=1, closed=300)
        assert echo.ledger.totals.accepted == 301


VANISHING = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
peer.sendall(b"x" * 100_000 + b"the first half of a mess")
print("sent", flush=True)
while True:
    peer.sendall(b"x" * 100_000)
"""


def test_a_peer_killed_in_the_middle_of_a_message_harms_nobody(echo: Server) -> None:
    with dial(echo.address) as bystander:
        assert says_back(bystander)
        with Script(VANISHING, echo.host, str(echo.port)) as script:
            assert script.line() == "sent"
            echo.ledger.wait(open=2)
            script.signal(signal.SIGKILL)
            script.process.wait(5.0)
            echo.ledger.wait(open=1, closed=1)
            [record] = echo.ledger.closed
        assert record.closed_by in ("peer", "reset")
        assert says_back(bystander)


def test_a_stopped_peer_holds_up_nobody(echo: Server) -> None:
    with Script(VANISHING, echo.host, str(echo.port)) as script:
        assert script.line() == "sent"
        script.signal(signal.SIGSTOP)
        with dial(echo.address) as bystander:
            for _ in range(50):
                assert says_back(bystander)


def test_a_client_of_another_process_and_library_is_served(echo: Server) -> None:
    code = (
        "import asyncio, sys\n"
        "async def main():\n"
        "    r, w = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))\n"
        "    w.write(b'from asyncio'); w.write_eof()\n"
        "    print((await r.read()).decode()); w.close()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, echo.host, str(echo.port)]
    assert through(command, b"") == b"from asyncio\n"


def test_sigpipe_at_its_default_does_not_kill_the_server() -> None:
    code = """
import signal, socket, struct
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
from rsock import Server
with Server() as server:
    for _ in range(50):
        with socket.create_connection(server.address) as peer:
            peer.sendall(b"x" * 100_000)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with server.client() as client, server.client() as other:
        server.ledger.wait(open=2)
        client.sendall(b"alive")
        print(client.recv_exactly(5).decode(), flush=True)
        server.stop(0)
        try:
            for _ in range(1000):
                other.sendall(b"x" * 100_000)
        except OSError as error:
            print("no signal")
"""
    with Script(code) as script:
        assert script.end() == (0, "alive\nno signal\n", "")


def test_the_end_of_one_client_says_nothing_about_another(echo: Server) -> None:
    with dial(echo.address) as first, dial(echo.address) as second:
        assert says_back(first)
        assert says_back(second)
        first.sendall(b"abc")
        arrived(first)
        first.close()
        second.sendall(b"def")
        assert read_exactly(second, 3) == b"def"
