"""The command line as a user sees it: real processes, pipes, and a terminal of 80 columns."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import (
    closed_port,
    dial,
    exchange,
    listener,
    output_of,
    payload,
    read_to_end,
    refused,
    reset,
    run_script,
    says_back,
    send_until_stuck,
    wait_until,
)
from support.command_here import called
from support.command_line import COMMAND, PATIENCE, Running, Terminal, run
from support.project import ROOT

import rsock
from rsock import Limits, Server, SocketOptions
from rsock._cli import _arguments, _fields, _services


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A directory with modules of a user."""
    (tmp_path / "app.py").write_text(
        "import threading\n"
        "def shout(conn):\n"
        "    while line := conn.recv_line():\n"
        "        print('heard', line)\n"
        "        conn.sendall(line.upper())\n"
        "def leave(conn):\n"
        "    raise SystemExit(7)\n"
        "class Thing:\n"
        "    def method(self, conn):\n"
        "        conn.sendall(b'from a method')\n"
        "thing = Thing()\n"
    )
    (tmp_path / "broken.py").write_text("def helper():\n    return 1 / 0\n\nhelper()\n")
    (tmp_path / "lacking.py").write_text("import there_is_no_such_module\n")
    return tmp_path


# --- help and version ----------------------------------------------------------------------


def test_the_command_is_installed_by_its_name() -> None:
    [script] = importlib.metadata.entry_points(group="console_scripts", name="rsock")
    assert script.value == "rsock._cli:main"


def test_the_version_is_printed() -> None:
    assert run("--version") == (0, f"rsock {rsock.__version__}\n", "")


COMMANDS = ["", *_arguments.COMMANDS]


def test_every_command_is_listed_by_the_help_and_in_the_guide() -> None:
    _, out, _ = run("--help")
    listed = re.findall(r"^    (\w+) +\w", out.partition("commands:")[2], re.MULTILINE)
    assert listed == COMMANDS[1:]
    page = (ROOT / "docs" / "guide" / "cli.md").read_text()
    assert re.findall(r"^\| `rsock (\w+)", page, re.MULTILINE) == listed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, *command.split(), "--help")
    assert (code, err) == (0, "")
    if command in ("", "serve"):
        # A process of its own prints the same.
        assert run(*command.split(), "--help") == (code, out, err)
    lines = out.splitlines()
    # The shell's prompt after it takes a line, too.
    assert len(lines) <= 23
    assert max(map(len, lines)) < 80
    assert lines[0].startswith(f"usage: rsock {command}".rstrip())


def test_a_command_is_a_file_and_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ModuleType("rsock._cli._greet")
    code = """
import argparse
from rsock._cli._namespace import Arguments as Base

class Arguments(Base):
    name: str

def add_arguments(parser):
    parser.usage = "rsock greet NAME"
    parser.description = "Print a greeting."
    parser.add_argument("name", metavar="NAME", help="who")

def run(arguments):
    print(f"Hello, {arguments.name}!")
    return 3
"""
    exec(code, file.__dict__)
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setitem(_arguments.COMMANDS, "greet", "print a greeting")
    arguments = _arguments.parse(["greet", "Ada"])
    assert isinstance(arguments, file.Arguments)
    assert arguments.command(arguments) == 3
    assert capsys.readouterr().out == "Hello, Ada!\n"
    for argv in ([], ["greet"]):
        with pytest.raises(SystemExit) as ended:
            _arguments.parse([*argv, "--help"])
        assert ended.value.code == 0
        assert "greet" in capsys.readouterr().out


def test_only_the_command_that_was_typed_is_loaded() -> None:
    code = (
        "import sys; from rsock._cli import _arguments;"
        "commands = {f'rsock._cli._{name}' for name in _arguments.COMMANDS};"
        "print(sorted(commands & set(sys.modules)));"
        "_arguments.parse(['connect', '127.0.0.1', '1']);"
        "print(sorted(commands & set(sys.modules)), 'rich' in sys.modules)"
    )
    assert output_of(code) == "[]\n['rsock._cli._connect'] False\n"


def test_help_needs_no_other_package() -> None:
    code = """
import sys
sys.modules["rich"] = None
from rsock._cli import main
for command in sys.argv[1:]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as ended:
        print("\\nended", ended.code, repr(command))
"""
    helped = output_of(code, *COMMANDS)
    assert re.findall("^ended (.*)", helped, re.M) == [f"0 {command!r}" for command in COMMANDS]
    texts = re.split("^ended .*", helped, flags=re.M)
    assert ["--help" in text for text in texts] == len(COMMANDS) * [True] + [False]


def test_options_and_addresses_come_in_any_order() -> None:
    typed = ["8080 --json", "--json 8080", "8080 --json 8081", "--json 8080 8081", "--json"]
    found = [_arguments.parse(["serve", "Echo", *each.split()]).listen for each in typed]
    one, two = ("127.0.0.1", 8080, None), ("127.0.0.1", 8081, None)
    assert found == [[one], [one], [one, two], [one, two], []]


def test_importing_rsock_loads_nothing_of_it() -> None:
    code = (
        "import sys, rsock;"
        "print([name for name in sys.modules if name.split('.')[0] in ('rich', 'argparse')"
        " or f'{name}.'.startswith('rsock._cli.')])"
    )
    assert output_of(code) == "[]\n"


def test_without_the_extra_it_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['rich'] = None; from rsock._cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    for command in (["echo"], ["limits"], ["demo"], ["connect", "127.0.0.1", "1"]):
        done = run_script(code, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "pip install rich" in done.stderr
        assert "pip install '.[cli]'" in done.stderr
        assert done.stderr.count("\n") == 1
    helped = run_script(code, "--help")
    assert helped.returncode == 0
    assert "connect" in helped.stdout


# --- arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Limits, SocketOptions], ids=["limit", "socket"])
def test_every_field_has_an_option(kind: Any) -> None:
    spelled = {"None": "none", "True": "on", "False": "off"}
    argv = ["echo"]
    for field in fields(kind):
        name = f"--{_fields.prefix(kind)}-{field.name.replace('_', '-')}"
        default = str(field.default)
        argv += [name, spelled.get(default, default)]
    assert _fields.given(_arguments.parse(argv), kind) == kind()
    explained = _fields.explanation(kind)
    documented = [f"--{_fields.prefix(kind)}-{name.replace('_', '-')} " for name in kind.__slots__]
    assert sum(name in explained for name in documented) >= 5


def test_options_arrive_where_they_belong() -> None:
    limits = "--limit-connections 5 --limit-overflow refuse --limit-half-close 2.5"
    options = "--socket-nodelay off --socket-backlog 0x10 --socket-keepalive on"
    arguments = _arguments.parse(f"echo {limits} {options}".split())
    assert _fields.given(arguments, Limits) == Limits(
        connections=5, overflow="refuse", half_close=2.5
    )
    assert _fields.given(arguments, SocketOptions) == SocketOptions(
        nodelay=False, backlog=16, keepalive=True
    )


def test_an_option_of_several_numbers_takes_them_with_commas() -> None:
    arguments = _arguments.parse(["echo", "--socket-keepalive", "60,10,5"])
    assert _fields.given(arguments, SocketOptions) == SocketOptions(keepalive=(60, 10, 5))
    with pytest.raises(Exception, match=r"must be on\|off\|N,N,N\|none, not '60,10'"):
        _arguments.parse(["echo", "--socket-keepalive", "60,10"])


def test_a_time_is_called_seconds_and_a_rate_a_number() -> None:
    explained = _fields.explanation(Limits) + _fields.explanation(SocketOptions)
    for name, word in [
        ("limit-accept-rate", "NUMBER"),
        ("limit-idle", "SECONDS"),
        ("socket-linger", "SECONDS"),
        ("socket-user-timeout", "SECONDS"),
    ]:
        assert f"--{name} {word}|none" in explained
        with pytest.raises(Exception, match=rf"must be {word}\|none, not 'x'"):
            _arguments.parse(["echo", f"--{name}", "x"])


def test_every_exported_service_that_needs_no_python_has_its_name() -> None:
    assert "Echo" in _services.known()
    for name, kind in _services.known().items():
        assert getattr(rsock, name) is kind
        assert f"  {name}" in _services.explained()


def test_a_service_is_found_by_name_and_by_call() -> None:
    for text in ("Echo", "echo", "Echo()", "echo ( )"):
        assert _services.find(text) == rsock.Echo()
    for text in ("LineEcho", "line-echo", "line_echo()"):
        assert _services.find(text) == rsock.LineEcho()
    assert _services.find("LineEcho(b'bye', newline=False)") == rsock.LineEcho(b"bye", False)
    assert _services.find("greeting('Hello, (Client)!')") == rsock.Greeting("Hello, (Client)!")
    nested = rsock.ByConnection(rsock.Discard(), rsock.Quote("x"), rest=rsock.Echo())
    assert _services.find("ByConnection(Discard, quote('x'), rest=Echo())") == nested


WRONG = {
    "no-command": ("", "COMMAND"),
    "unknown-command": ("sing", "there are echo, serve"),
    "command-misspelled": ("ehco", "did you mean echo?"),
    "command-begun": ("conn", "did you mean connect?"),
    "command-of-others": ("help", "rsock --help"),
    "option-before-the-command": ("--json echo", "after it"),
    "unknown-option": ("echo --loud", "--loud"),
    "option-misspelled": ("echo --limit-conections 5", "did you mean --limit-connections?"),
    "option-misspelled-with-a-value": ("echo --limit-conections=5", "did you mean --limit-conn"),
    "option-abbreviated": ("echo --allow-ext", "did you mean --allow-external?"),
    "option-with-an-underscore": ("echo --limit_idle 5", "did you mean --limit-idle?"),
    "option-of-nc": ("connect -u 127.0.0.1 1", "did you mean --udp?"),
    "port-as-an-option": ("echo --port 8080", "[HOST:]PORT"),
    "host-as-an-option": ("serve Echo --host 127.0.0.1", "[HOST:]PORT"),
    "host-without-port": ("echo 127.0.0.1", "127.0.0.1:PORT"),
    "name-without-port": ("echo localhost", "localhost:PORT"),
    "host-of-ipv6-without-port": ("echo [::1]", "[::1]:PORT"),
    "host-and-port": ("echo 127.0.0.1 8080", "did you mean 127.0.0.1:8080?"),
    "host-and-port-of-ipv6": ("serve Echo ::1 8080", "did you mean [::1]:8080?"),
    "host-and-port-of-a-target": ("forward 0 127.0.0.1 80", "did you mean 127.0.0.1:80?"),
    "target-missing": ("forward 8080", "LISTEN and TARGET"),
    "address-is-a-url": ("forward 0 http://[::1]:80/", "did you mean [::1]:80?"),
    "address-is-a-file": ("echo app.py", "./app.py"),
    "port-out-of-range": ("echo 99999", "99999"),
    "port-unknown": ("echo no-such-port", "no-such-port"),
    "port-negative": ("echo -1", "from 0 to 65535"),
    "address-without-host": ("echo :80", "0.0.0.0:80"),
    "address-without-brackets": ("echo ::1:80", "[::1]:8080"),
    "limit-of-the-wrong-type": ("echo --limit-connections many", "many"),
    "limit-out-of-range": ("echo --limit-connections 0", "connections"),
    "drain-no-number": ("echo --drain soon", "soon"),
    "drain-negative": ("echo --drain -1", "-1"),
    "two-forms": ("echo --json --plain", "--plain"),
    "unknown-service": ("serve Ecko", "did you mean Echo?"),
    "service-with-wrong-arguments": ("serve Echo(1)", "Echo()"),
    "service-with-code-for-an-argument": ("serve Echo(open('x'))", "no service 'open'"),
    "service-without-its-argument": ("serve Greeting", "Greeting(message)"),
    "service-unfinished": ("serve Echo(", "service"),
    "module-missing": ("serve nothing_here:f", "no module 'nothing_here'"),
    "function-missing": ("serve app:shut", "did you mean shout?"),
    "function-like-a-module": ("serve app:thread", "app has no 'thread' (it is"),
    "module-without-a-function": ("serve app", "did you mean app:shout or app:leave?"),
    "file-without-a-function": ("serve ./broken.py", "did you mean broken:helper?"),
    "file-with-a-function": ("serve app.py:leave", "did you mean app:leave?"),
    "function-with-a-dot": ("serve app.shout", "did you mean app:shout?"),
    "handler-is-a-class": ("serve app:Thing", "Thing"),
    "connect-to-too-much": ("connect a b c", "a b c"),
    "connect-to-nothing": ("connect", "--path"),
    "connect-to-two": ("connect a b --path c", "--path"),
    "two-transports": ("echo --udp ./a", "two transports"),
    "mode-that-is-none": ("echo ./a --socket-mode 600", "0o777"),
    "connect-in-no-time": ("connect 127.0.0.1 1 --timeout 0", "more than 0 seconds"),
    "port-of-a-host-unknown": ("echo 127.0.0.1:no-such-port", "no-such-port"),
    "port-to-connect-to-unknown": ("connect 127.0.0.1 no-such-port", "no-such-port"),
    "port-to-wait-for-unknown": ("wait 127.0.0.1:no-such-port", "no-such-port"),
    "wait-for-nothing": ("wait", "HOST:PORT"),
    "wait-for-a-host": ("wait 127.0.0.1", "127.0.0.1:PORT"),
    "wait-for-no-port": ("wait 127.0.0.1:99999", "99999"),
    "wait-less-than-nothing": ("wait 127.0.0.1:1 --timeout -1", "-1"),
    "no-connections": ("demo --connections 0", "0"),
}


# Some that end early and some that end late, and all that import a module of a user.
WITH_A_PROCESS = {
    *("no-command", "unknown-command", "option-misspelled", "limit-out-of-range"),
    *("service-with-wrong-arguments", "connect-to-nothing", "wait-for-no-port", "no-connections"),
    *("module-missing", "function-missing", "module-without-a-function", "handler-is-a-class"),
    *("file-without-a-function", "file-with-a-function", "function-with-a-dot"),
    "function-like-a-module",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_reported_on_a_line_or_two(
    name: str, modules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed, expected = WRONG[name]
    if name in WITH_A_PROCESS:
        code, out, err = run(*typed.split(), cwd=modules)
    else:
        code, out, err = called(capsys, *typed.split(), cwd=modules)
    assert (code, out) == (2, "")
    assert err.startswith("rsock: ")
    assert expected in err
    assert err.count("\n") <= 2
    assert "Traceback" not in err


# --- serving -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_prints_the_account(number: signal.Signals) -> None:
    with Running("echo") as command:
        address = command.address()
        with dial(address) as gone:
            assert says_back(gone)
        assert re.fullmatch(
            r"closed 1 127\.0\.0\.1:\d+ by peer after .*, 5 B in, 5 B out", command.line()
        )
        with dial(address) as peer:
            assert says_back(peer, b"again")
            command.signal(number)
            assert peer.recv(1) == b""
        code, out, err = command.end()
    assert (code, err) == (0, "")
    closed, stopped, totals = out.splitlines()
    assert "by stop" in closed
    assert stopped.startswith(f"stopped by {number.name} in ")
    assert stopped.endswith(": 1 drained, 0 forced")
    assert totals == "2 accepted = 0 open + 2 closed; 10 B in, 10 B out"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_forces_and_is_the_exit_code(number: signal.Signals, code: int) -> None:
    with Running("echo", "--drain", "60") as command:
        address = command.address()
        with dial(address) as stuck:
            send_until_stuck(stuck, payload(16 << 20))
            command.signal(number)
            wait_until(lambda: refused(address), PATIENCE)
            command.signal(number)
            ended, out, err = command.end()
    assert (ended, err) == (code, "")
    # Before the port is refused, each question whether it is may be a connection, too.
    assert re.search(r"[1-9]\d* forced", out)


def test_a_signal_as_soon_as_it_listens_drains() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with Running("echo") as command:
            command.address()
            command.signal(number)
            assert command.end()[0] == 0


def test_json_is_one_object_a_line(modules: Path) -> None:
    with Running("serve", "app:shout", "--json", "--name", "loud", cwd=modules) as command:
        started = json.loads(command.line())
        assert (started["event"], started["name"]) == ("listening", "loud")
        assert started["service"] == "Handler(shout)"
        with dial(tuple(started["address"])) as peer:
            assert says_back(peer, b"HELLO\n")
        closed = json.loads(command.line())
        assert (closed["event"], closed["id"], closed["closed_by"]) == ("closed", 1, "peer")
        assert (closed["bytes_in"], closed["bytes_out"]) == (6, 6)
        command.signal(signal.SIGINT)
        code, out, err = command.end()
    assert code == 0
    stopped = json.loads(out)
    assert (stopped["event"], stopped["cause"], stopped["forced"]) == ("stopped", "SIGINT", 0)
    assert stopped["totals"]["accepted"] == 1
    # What a handler prints does not mix with machine-readable output.
    assert err == "heard b'HELLO\\n'\n"


def test_the_ledger_is_written_as_connections_end(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_text('{"id": "from before"}\n')

    def records() -> list[dict[str, Any]]:
        return [json.loads(line) for line in file.read_text().splitlines()]

    with Running("echo", "--ledger", str(file)) as command:
        address = command.address()
        with dial(address) as first:
            assert says_back(first)
        wait_until(lambda: len(records()) == 2, PATIENCE)
        with dial(address) as second:
            assert says_back(second)
            command.signal(signal.SIGTERM)
            assert command.end()[0] == 0
    old, first_record, second_record = records()
    assert old == {"id": "from before"}
    assert (first_record["id"], first_record["closed_by"]) == (1, "peer")
    assert (second_record["id"], second_record["closed_by"]) == (2, "stop")
    assert second_record["bytes_in"] == 5


def test_a_ledger_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    code, out, err = run("echo", "--ledger", str(tmp_path / "nowhere" / "out.jsonl"))
    assert (code, out) == (1, "")
    assert err == f"rsock: {tmp_path}/nowhere/out.jsonl: No such file or directory\n"
    with Running("echo", "--ledger", "/dev/full") as command:
        with dial(command.address()) as peer:
            assert says_back(peer)
        code, _, err = command.end()
    assert (code, err) == (1, "rsock: /dev/full: No space left on device\n")


def test_a_taken_port_is_one_line() -> None:
    with listener() as holder:
        host, port = holder.getsockname()
        code, out, err = run("echo", f"{host}:{port}")
    assert (code, out) == (1, "")
    assert err == f"rsock: bind {host}:{port}: Address already in use\n"


def test_limits_and_names_reach_the_server() -> None:
    with Running("echo", "--limit-connections", "1", "--limit-overflow", "refuse") as command:
        address = command.address()
        with dial(address) as one:
            assert says_back(one)
            with contextlib.suppress(ConnectionResetError), dial(address) as other:
                other.recv(1)
        command.line()
        command.signal(signal.SIGINT)
        assert "1 refused" in command.end()[1]


def test_a_service_with_arguments_serves() -> None:
    with Running("serve", 'Greeting(b"Hello, Client!\\0")') as command:
        with dial(command.address()) as peer:
            assert read_to_end(peer) == b"Hello, Client!\0"
        command.signal(signal.SIGINT)
        assert command.end()[0] == 0


def test_a_function_of_the_current_directory_serves(modules: Path) -> None:
    with Running("serve", "app:thing.method", cwd=modules) as command:
        with dial(command.address()) as peer:
            assert read_to_end(peer) == b"from a method"
        command.signal(signal.SIGINT)
        assert command.end()[0] == 0


def test_a_handler_that_exits_ends_the_command_with_its_code(modules: Path) -> None:
    with Running("serve", "app:leave", cwd=modules) as command:
        with dial(command.address()) as peer, contextlib.suppress(ConnectionResetError):
            peer.recv(1)
        code, out, err = command.end()
    assert (code, err) == (7, "")
    assert "stopped by exception" in out


def test_an_error_of_the_module_is_shown_with_its_own_frames(modules: Path) -> None:
    code, out, err = run("serve", "broken:helper", cwd=modules)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0] == "rsock: module 'broken' cannot be imported:"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert re.findall(r'File "([^"]+)"', err) == [str(modules / "broken.py")] * 2
    code, _, err = run("serve", "lacking:f", cwd=modules)
    assert code == 1
    assert f'File "{modules}/lacking.py", line 1' in err
    assert err.endswith("ModuleNotFoundError: No module named 'there_is_no_such_module'\n")


def test_a_closed_output_ends_it_quietly() -> None:
    with Running("echo") as command:
        address = command.address()
        assert command.process.stdout is not None
        command.process.stdout.close()
        # The first line after the reader has closed the pipe.
        dial(address).close()
        assert command.process.wait(PATIENCE) == 141
        assert command.process.stderr is not None
        assert command.process.stderr.read() == b""
        command.process.stdout = None
    for shown in (["limits"], ["demo", "--connections", "5"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*COMMAND, *shown],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


def test_a_terminal_has_a_live_table_and_then_the_account() -> None:
    with Terminal("echo") as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+)  Echo\(\)  serving for ")
        with dial(("127.0.0.1", int(found[1]))) as peer:
            assert says_back(peer)
            host, port = peer.getsockname()
            terminal.until(rf"1 +{host}:{port} .* 5 B +5 B +still open")
            terminal.until(r"1 accepted = 1 open \+ 0 closed; 5 B in, 5 B out")
            terminal.type("\x03")
            assert peer.recv(1) == b""
        assert terminal.end() == 0
        assert re.search(r"Echo\(\)  stopped *\n", terminal.seen)
        assert re.search(r"stopped by SIGINT in .*: 1 drained, 0 forced\n", terminal.seen)
        assert re.search(r"accepted +1 = 0 open \+ 1 closed", terminal.seen)
        assert re.search(r"closed +1 by stop", terminal.seen)


def test_an_error_of_a_handler_is_shown_above_the_table(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def fail(conn):\n    raise LookupError('of mine')\n")
    with Terminal("serve", "app:fail", cwd=tmp_path) as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+) ")
        with dial(("127.0.0.1", int(found[1]))) as peer, contextlib.suppress(ConnectionResetError):
            peer.recv(1)
        terminal.until(r"LookupError: of mine\n")
        terminal.until(r"error \(LookupError: of mine\)")
        terminal.type("\x03")
        assert terminal.end() == 0


def test_forward_passes_connections_on(echo: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    target = f"{echo.host}:{echo.port}"
    # From a port to a path, and from there to a port.
    with Running("forward", "127.0.0.1:0", path, "--json") as first:
        with Running("forward", path, target, "--json") as second:
            assert str(echo.port) in json.loads(second.line())["service"]
            with dial(tuple(json.loads(first.line())["address"])) as peer:
                assert exchange(peer, payload(200_000)) == payload(200_000)
            for command in (first, second):
                closed = json.loads(command.line())
                assert (closed["bytes_in"], closed["bytes_out"]) == (200_000, 200_000)
                command.signal(signal.SIGINT)
                assert command.end()[0] == 0


def test_forward_passes_datagrams_on() -> None:
    with Server(transport="udp") as server:
        target = f"{server.host}:{server.port}"
        with Running("forward", "--udp", "127.0.0.1:0", target) as command:
            host, port = command.address()
            assert run("connect", "--udp", host, str(port), data=b"far") == (0, "far", "")
            command.signal(signal.SIGINT)
            assert command.end()[0] == 0


def test_forward_to_itself_is_refused() -> None:
    with socket.socket() as holder:
        # Bound and not listening, the socket keeps the port reserved but lets others share it with
        # the same option.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        host, port = holder.getsockname()
        code, out, err = run("forward", f"{host}:{port}", f"{host}:{port}")
    assert (code, out) == (1, "")
    assert err.startswith("rsock: ")
    assert err.count("\n") == 1
    assert str(port) in err


def test_a_path_is_listened_at_and_connected_to(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Running("echo", str(path), "--socket-mode", "0600") as command:
        assert command.line() == f"listening on {path}: Echo()"
        assert path.stat().st_mode & 0o777 == 0o600
        for words in ((str(path),), ("./socket",), ("unix:socket",), ("--path", "socket")):
            assert run("connect", *words, data=b"hello", cwd=tmp_path) == (0, "hello", "")
        assert re.match(rf"closed 1 pid \d+, uid {os.getuid()} by peer", command.line())
        command.signal(signal.SIGINT)
        assert command.end()[0] == 0
    assert not path.exists()


def test_datagrams_are_served_and_sent() -> None:
    with Running("echo", "--udp", "--json") as command:
        started = json.loads(command.line())
        assert started["transport"] == "udp"
        host, port = started["address"]
        # The answers come before the silence that ends the command.
        assert run("connect", "--udp", host, str(port), data=b"hello\n") == (0, "hello\n", "")
        command.signal(signal.SIGINT)
        code, out, _ = command.end()
        closed = json.loads(out.splitlines()[0])
        assert (code, closed["messages_in"], closed["bytes_out"]) == (0, 1, 6)


def test_a_udp_server_for_external_peers_needs_an_option() -> None:
    code, out, err = run("echo", "--udp", "0.0.0.0:0")
    assert (code, out) == (1, "")
    assert "--allow-external" in err
    assert err.count("\n") == 1


# --- connecting ----------------------------------------------------------------------------


def test_a_pipe_through_an_echo_comes_back_byte_for_byte(echo: Server) -> None:
    data = payload(1 << 20)
    done = subprocess.run(
        [*COMMAND, "connect", echo.host, str(echo.port)],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data
    [record] = echo.ledger.wait(open=0, closed=1)
    assert (record.bytes_in, record.closed_by) == (len(data), "peer")


def test_the_end_of_the_input_is_only_our_own() -> None:
    with listener() as server:
        host, port = server.getsockname()
        with Running("connect", f"{host}:{port}") as command:
            conn, _ = server.accept()
            with conn:
                command.last_input(b"question")
                assert read_to_end(conn) == b"question"
                conn.sendall(b"answer")
            assert command.end() == (0, "answer", "")


def test_it_ends_when_the_server_has_finished() -> None:
    with listener() as server:
        host, port = server.getsockname()
        with Running("connect", host, str(port)) as command:
            conn, _ = server.accept()
            conn.sendall(b"bye")
            conn.close()
            # Its input is still open.
            assert command.process.wait(PATIENCE) == 0
            assert command.line() == "bye"


def test_a_reset_is_a_failure() -> None:
    with listener() as server:
        host, port = server.getsockname()
        with Running("connect", host, str(port)) as command:
            conn, _ = server.accept()
            reset(conn)
            code, out, err = command.end()
    assert (code, out) == (1, "")
    assert re.fullmatch(r"rsock: .*Connection reset by peer\n", err)


def test_a_refused_connection_is_one_line() -> None:
    with closed_port() as (host, port):
        code, out, err = run("connect", host, str(port))
    assert (code, out) == (1, "")
    assert err == f"rsock: connect {host}:{port}: Connection refused\n"


def test_closed_standard_streams_are_not_mistaken_for_sockets(echo: Server) -> None:
    shell = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    done = subprocess.run(
        [*shell, *COMMAND, "connect", echo.host, str(echo.port)], timeout=PATIENCE, check=False
    )
    assert done.returncode == 0
    [record] = echo.ledger.wait(open=0, closed=1)
    assert (record.bytes_in, record.closed_by) == (0, "peer")


def test_letters_that_the_output_lacks_are_replaced() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for shown in (["limits"], ["demo", "--connections", "3"], ["echo", "--help-limit"]):
        done = subprocess.run(
            [*COMMAND, *shown],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_port_for_datagrams_is_reported() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        # The socket now receives only its own datagrams, and the port is still taken.
        holder.connect(holder.getsockname())
        host, port = holder.getsockname()
        code, _, err = run("connect", "--udp", host, str(port), data=b"hello")
    assert code == 1
    assert err.endswith("Connection refused\n")


def test_a_dialogue_in_a_terminal(echo: Server) -> None:
    with Terminal("connect", echo.host, str(echo.port)) as terminal:
        terminal.until(rf"connected to {echo.host}:{echo.port};")
        terminal.type("hello\n")
        # The terminal shows what is typed, and the server's echo shows it again.
        terminal.until(r"hello\nhello\n")
        terminal.type("\x04")
        assert terminal.end() == 0
        assert "6 B sent, 6 B received" in terminal.seen


def test_ctrl_c_leaves_a_dialogue(echo: Server) -> None:
    with Terminal("connect", echo.host, str(echo.port)) as terminal:
        terminal.until("connected to")
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.seen


def test_an_unread_answer_ends_it_quietly(echo: Server) -> None:
    with Running("connect", echo.host, str(echo.port)) as command:
        assert command.process.stdout is not None
        assert command.process.stdin is not None
        command.process.stdout.close()
        command.process.stdin.write(b"hello")
        command.process.stdin.flush()
        assert command.process.wait(PATIENCE) == 141
        assert command.process.stderr is not None
        assert command.process.stderr.read() == b""
        command.process.stdout = None


# --- the others ----------------------------------------------------------------------------


def test_limits_are_those_of_the_process() -> None:
    here = rsock.process_limits()
    code, out, err = run("limits", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["fd_soft"] == here.fd_soft
    assert found["backlog_max"] == here.backlog_max
    code, out, err = run("limits")
    assert (code, err) == (0, "")
    assert f"{here.fd_soft:,}" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_demo_checks_what_it_shows() -> None:
    code, out, err = run("demo", "--connections", "20")
    assert (code, err) == (0, "")
    assert "20 connections open at once, 80 messages, every byte compared" in out
    assert "20 = 0 open + 20 closed" in out
    assert max(map(len, out.splitlines())) <= 80


# --- unlikely arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "says"),
    [
        (f"Greeting({'-' * 20_000}1)", "too complicated"),
        (f"Greeting({'1+' * 20_000}1)", "too complicated"),
        ("Echo()()", "something else"),
        ('Greeting("a")("b")', "something else"),
    ],
    ids=["a minus too many", "a plus too many", "called twice", "called with two"],
)
def test_a_call_that_is_none_is_refused_in_a_line(service: str, says: str) -> None:
    code, out, errors = run("serve", service)
    assert (code, out) == (2, "")
    assert says in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("columns", ["0", "1", "2", "3"])
def test_a_terminal_of_no_width_is_explained_to_all_the_same(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "Echo" in _services.explained()
    assert "--limit-idle" in _fields.explanation(Limits)
