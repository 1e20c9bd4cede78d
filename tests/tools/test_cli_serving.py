"""Serving from the shell: several addresses, inherited sockets, and what the account says."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
from pathlib import Path

import pytest
from support import (
    LOOPBACK,
    closed_port,
    dial,
    dial_path,
    listener,
    payload,
    read_to_end,
    refused,
    says_back,
    send_until_stuck,
    wait_until,
)
from support.command_line import PATIENCE, Running, Terminal, run

import rsock

APP = """
def leave(conn):
    raise SystemExit(7)
def fail(conn):
    raise ValueError("x" * 100)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with a module of handlers."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def knock(address: tuple[str, int], times: int = 1) -> None:
    """Connect, and wait for the end."""
    for _ in range(times):
        with contextlib.suppress(ConnectionResetError), dial(address) as peer:
            read_to_end(peer)


# --- what the account says -----------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 50, 40])
def test_a_dead_target_is_said_in_a_terminal_of_any_width(columns: int) -> None:
    with (
        closed_port() as (host, port),
        Terminal("forward", "0", f"{host}:{port}", columns=columns) as terminal,
    ):
        found = terminal.until(r"127\.0\.0\.1:(\d+) ")
        knock((LOOPBACK, int(found[1])), 3)
        terminal.until(r"3\s+errors")
        shown = terminal.until(r"error \(Connection refused\) *\n")
        terminal.type("\x03")
        assert terminal.end() == 0
        end = terminal.seen[shown.end() :]
        account = " ".join(end[end.index("stopped by") :].split())
        assert f"3 by error (connect {host}:{port}: Connection refused)" in account


def test_the_account_lists_what_ended_connections_too_early(app: Path) -> None:
    with Running("serve", "app:fail", "--plain", cwd=app) as command:
        knock(command.address(), 2)
        for _ in range(2):
            command.line()
        command.signal(signal.SIGINT)
        code, out, _ = command.end()
    assert code == 0
    *_, totals, cause = out.splitlines()
    assert totals.startswith("2 accepted = 0 open + 2 closed;")
    assert totals.endswith("; 2 errors")
    assert cause.startswith("2 by error (ValueError: xxx")


def test_the_account_for_programs_has_the_causes() -> None:
    with closed_port() as (host, port), Running("forward", "0", f"{host}:{port}", "--json") as it:
        started = json.loads(it.line())
        knock(tuple(started["address"]), 2)
        closed = [json.loads(it.line()) for _ in range(2)]
        it.signal(signal.SIGINT)
        stopped = json.loads(it.end()[1])
    assert [each["server"] for each in closed] == [started["name"]] * 2
    assert stopped["causes"] == {f"error (connect {host}:{port}: Connection refused)": 2}


def test_a_table_has_the_whole_width_of_the_terminal(app: Path) -> None:
    with Terminal("serve", "app:fail", cwd=app, columns=70) as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+) ")
        knock((LOOPBACK, int(found[1])))
        row = terminal.until(r"\n *1 +127\.0\.0\.1:\d+ .*error \(ValueError: x+…\n")
        assert len(row[0].strip("\n")) == 70
        terminal.type("\x03")
        assert terminal.end() == 0


# --- several addresses ---------------------------------------------------------------------


def listening(command: Running, number: int) -> list[str]:
    """The addresses on which a command says it listens, in their order."""
    lines = [re.fullmatch(r"listening on (\S+): .*", command.line()) for _ in range(number)]
    return [line[1] for line in lines if line is not None]


def of(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_several_addresses_are_served_and_drained_together(
    number: signal.Signals, directory: Path
) -> None:
    path = directory / "socket"
    with Running("serve", "Echo", "0", str(path), "127.0.0.1:0") as command:
        first, second, third = listening(command, 3)
        assert second == str(path)
        with dial(of(first)) as one, dial_path(second) as two, dial(of(third)) as three:
            for peer in (one, two, three):
                assert says_back(peer)
            command.signal(number)
            for peer in (one, two, three):
                assert peer.recv(1) == b""
        code, out, err = command.end()
    assert (code, err) == (0, "")
    for address in (first, second, third):
        assert f"at {address} by stop" in out
        assert f"{address} stopped by {number.name} in " in out
    assert out.count("1 drained, 0 forced") == 3
    assert out.count("1 accepted = 0 open + 1 closed; 5 B in, 5 B out") == 3


def test_a_second_signal_forces_all_of_them() -> None:
    with Running("echo", "0", "0", "--drain", "60") as command:
        addresses = [of(each) for each in listening(command, 2)]
        with dial(addresses[0]) as one, dial(addresses[1]) as two:
            for peer in (one, two):
                send_until_stuck(peer, payload(16 << 20))
            command.signal(signal.SIGINT)
            wait_until(lambda: all(map(refused, addresses)), PATIENCE)
            command.signal(signal.SIGINT)
            code, out, _ = command.end()
    assert code == 130
    assert len(re.findall(r"[1-9]\d* forced", out)) == 2


def test_an_address_that_is_taken_ends_the_others() -> None:
    with listener() as holder:
        host, port = holder.getsockname()
        for order in (["0", f"{host}:{port}"], [f"{host}:{port}", "0"]):
            code, out, err = run("echo", *order)
            assert (code, out) == (1, "")
            assert err == f"rsock: bind {host}:{port}: Address already in use\n"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_handler_that_exits_ends_all_of_them(which: int, app: Path) -> None:
    with Running("serve", "app:leave", "0", "0", "0", cwd=app) as command:
        addresses = listening(command, 3)
        knock(of(addresses[which]))
        code, out, err = command.end()
    assert (code, err) == (7, "")
    assert out.count(" stopped by exception in ") == 3


def test_each_of_several_has_a_name_of_its_own() -> None:
    with Running("echo", "0", "0", "--json", "--name", "web") as command:
        names = [json.loads(command.line())["name"] for _ in range(2)]
        command.signal(signal.SIGTERM)
        code, out, _ = command.end()
    assert code == 0
    assert names == ["web-1", "web-2"]
    assert [json.loads(line)["server"] for line in out.splitlines()] == names


def test_a_terminal_shows_all_of_them() -> None:
    with Terminal("echo", "0", "0") as terminal:
        found = terminal.until(
            r"127\.0\.0\.1:(\d+)  Echo\(\)  serving (?:.*\n){2}127\.0\.0\.1:(\d+)  Echo"
        )
        for port in found.groups():
            with dial((LOOPBACK, int(port))) as peer:
                assert says_back(peer)
                terminal.until(rf" {LOOPBACK}:{peer.getsockname()[1]} .* {LOOPBACK}:{port} ")
        terminal.type("\x03")
        assert terminal.end() == 0
        for port in found.groups():
            assert f"{LOOPBACK}:{port} stopped by SIGINT" in terminal.seen


# --- inherited sockets ---------------------------------------------------------------------


def test_an_inherited_socket_is_served(directory: Path) -> None:
    path = str(directory / "socket")
    with listener() as one, socket.socket(socket.AF_UNIX) as two:
        two.bind(path)
        two.listen()
        numbers = (one.fileno(), two.fileno())
        options = [word for number in numbers for word in ("--fd", str(number))]
        with Running("serve", "Echo", *options, descriptors=numbers) as command:
            assert listening(command, 2) == [f"{LOOPBACK}:{one.getsockname()[1]}", path]
            with dial(one.getsockname()) as peer:
                assert says_back(peer)
            with dial_path(path) as peer:
                assert says_back(peer)
            command.signal(signal.SIGINT)
            assert command.end()[0] == 0
    Path(path).unlink()


def test_an_inherited_socket_forwards(echo: rsock.Server) -> None:
    target = f"{echo.host}:{echo.port}"
    with listener() as one:
        number = one.fileno()
        with Running("forward", "--fd", str(number), target, descriptors=(number,)) as command:
            command.line()
            with dial(one.getsockname()) as peer:
                assert says_back(peer)
            command.signal(signal.SIGINT)
            assert command.end()[0] == 0


def test_an_inherited_datagram_socket_is_served() -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as one,
        socket.socket(type=socket.SOCK_DGRAM) as peer,
    ):
        one.bind((LOOPBACK, 0))
        number = one.fileno()
        with Running("echo", "--udp", "--fd", str(number), descriptors=(number,)) as command:
            command.line()
            peer.settimeout(PATIENCE)
            peer.sendto(b"hello", one.getsockname())
            assert peer.recv(9) == b"hello"
            command.signal(signal.SIGINT)
            assert command.end()[0] == 0


def test_a_descriptor_that_is_no_listener_is_an_error() -> None:
    with socket.socket() as plain, open("/dev/null", "rb") as file:
        for number in (plain.fileno(), file.fileno()):
            with Running("echo", "--fd", str(number), descriptors=(number,)) as command:
                code, out, err = command.end()
            assert (code in (1, 2), out) == (True, "")
            assert err.startswith("rsock: ")
            assert err.count("\n") == 1
    code, out, err = run("echo", "--fd", "999")
    assert (code in (1, 2), out) == (True, "")
    assert "999" in err


def test_networks_are_options_of_the_commands_that_serve() -> None:
    options = ("--proxy-protocol", "127.0.0.1", "--deny", "127.0.0.2", "--allow", "127.0.0.0/8")
    with Running("echo", "0", *options) as target:
        port = str(target.address()[1])
        with Running("forward", "0", port, "--send-proxy", "v2") as server:
            with dial(server.address()) as peer:
                assert says_back(peer)


@pytest.mark.parametrize("option", ["--allow", "--deny", "--proxy-protocol"])
def test_an_option_that_is_no_network_is_named(option: str) -> None:
    code, _, err = run("echo", "0", option, "10.0.0.0/40")
    assert code == 2
    assert '"10.0.0.0/40": the prefix must be from 0 to 32' in err
