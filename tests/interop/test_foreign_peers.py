"""Programs that do not know rsock exchange data with it, and may disappear in any way."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import Script, arrived, dial, has_ipv6, payload, read_exactly, reset, says_back

from rsock import (
    ByConnection,
    Chargen,
    Daytime,
    Discard,
    Echo,
    Greeting,
    LineEcho,
    Quote,
    Server,
    Service,
    Time,
)

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


# --- each service, with common programs ------------------------------------------------------

# What the clients send, and what they print: a pattern where it is the time.
DIALOGUES: dict[str, tuple[Service, bytes, bytes]] = {
    "Echo": (Echo(), b"hello\nthere", rb"hello\nthere"),
    "LineEcho": (LineEcho(), b"a\nb\r\nexit\nc\n", rb"a\nb\r\n"),
    "LineEcho without endings": (LineEcho(quit="bye", newline=False), b"a\nb\nbye\n", rb"ab"),
    "Discard": (Discard(), b"hello\n", rb""),
    "Daytime": (Daytime(), b"", rb"[A-Z][a-z]+day, [A-Z][a-z]+ \d+, \d{4} \d\d:\d\d:\d\d-UTC\r\n"),
    "Time": (Time(), b"", rb"(?s:.{4})"),
    "Quote": (Quote("Less is more.\r\n"), b"which?\n", rb"Less is more\.\r\n"),
    "Greeting": (Greeting(b"Hello, Client!\n"), b"", rb"Hello, Client!\n"),
    "Greeting at length": (Greeting(b"g" * 500_000), b"", rb"g{500000}"),
    "ByConnection": (ByConnection(Greeting("first\n"), Echo()), b"", rb"first\n"),
}
CLIENTS = {
    "ncat": ["ncat", "{host}", "{port}"],
    "socat": ["socat", "-t", "10", "-", "TCP:{host}:{port}"],
    "curl": ["curl", "--silent", "--show-error", "--max-time", "20", "telnet://{host}:{port}"],
}
# curl does not finish when its input does, so it would wait for ever for a server that waits for
# curl's end.
NOT_BY_CURL = {"Echo", "Discard"}


def command_of(client: str, server: Server) -> list[str]:
    installed(client)
    return [word.format(host=server.host, port=server.port) for word in CLIENTS[client]]


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (client, name)
        for client in CLIENTS
        for name in DIALOGUES
        if client != "curl" or name not in NOT_BY_CURL
    ],
)
def test_a_foreign_client_is_served(client: str, name: str) -> None:
    service, said, expected = DIALOGUES[name]
    with Server(service=service) as server:
        got = through(command_of(client, server), said)
        server.ledger.wait(open=0, closed=1)
        totals = server.ledger.totals
    if client == "curl" and name == "Time" and b"\xff" in got:
        pytest.skip("a byte of the time means something in telnet just now")
    assert re.fullmatch(expected, got)
    assert (totals.bytes_out, totals.closed_by["error"]) == (len(got), 0)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_foreign_client_reads_characters_without_end_until_it_is_killed(client: str) -> None:
    with Server(service=Chargen()) as server:
        command = command_of(client, server)
        # The others finish when their input does; curl does not read while it waits for a pipe.
        stdin = subprocess.DEVNULL if client == "curl" else subprocess.PIPE
        with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            got = process.stdout.read(500_000)
            process.kill()
            process.communicate()
        server.ledger.wait(open=0, closed=1)
        [record] = server.ledger.closed
    lines = got.split(b"\r\n")
    assert all(len(line) == 72 for line in lines[:-1])
    assert (lines[0][:4], lines[94][:4], lines[95][:4]) == (b' !"#', b'~ !"', b' !"#')
    assert record.closed_by in ("peer", "reset")


# The answer to a datagram "hello": how many bytes to wait for, and which bytes.
DATAGRAMS: dict[str, tuple[Service, int, bytes]] = {
    "Echo": (Echo(), 5, rb"hello"),
    "Daytime": (Daytime(), 20, rb"[A-Z][a-z]+day, [A-Za-z 0-9,:-]+"),
    "Time": (Time(), 4, rb"(?s:.{4})"),
    "Quote": (Quote("quoted"), 6, rb"quoted"),
    "Greeting": (Greeting(b"g" * 1_000), 1_000, rb"g{1000}"),
}


@pytest.mark.parametrize("client", ["ncat", "socat"])
@pytest.mark.parametrize("name", DATAGRAMS)
def test_a_foreign_client_of_datagrams_is_answered(client: str, name: str) -> None:
    service, size, expected = DATAGRAMS[name]
    with Server(service=service, transport="udp") as server:
        host, port = server.address
        options = ["-u", host, str(port)] if client == "ncat" else ["-", f"UDP:{host}:{port}"]
        with subprocess.Popen(
            [installed(client), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            # Left open: these programs do not wait for an answer once their input has finished.
            process.stdin.write(b"hello")
            process.stdin.flush()
            got = process.stdout.read(size)
            process.kill()
            process.communicate()
    totals = server.ledger.totals
    assert re.fullmatch(expected, got)
    assert (totals.messages_in, totals.messages_out) == (1, 1)


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


def test_a_reset_before_the_accept_does_no_harm() -> None:
    server = Server().listen()
    for _ in range(5):
        reset(dial(server.address))
    with dial(server.address) as peer, server:
        assert says_back(peer)
        # Connections that were reset in the queue are accepted all the same, and end at once.
        server.ledger.wait(open=1)


def test_resets_by_the_hundred_do_no_harm(echo: Server) -> None:
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


def test_a_peer_killed_in_the_middle_of_a_message_does_no_harm(echo: Server) -> None:
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


def test_a_stopped_peer_delays_no_other(echo: Server) -> None:
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
from rsock import (
    ByConnection,
    Chargen,
    Daytime,
    Discard,
    Echo,
    Greeting,
    LineEcho,
    Quote,
    Server,
    Service,
    Time,
)
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
