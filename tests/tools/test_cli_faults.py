"""Faults from the shell: options, the keys of the live table, and the account at the end."""

from __future__ import annotations

import json
import re
import shlex
import signal
import termios

import pytest
from support import dial, says_back, wait_until, was_reset
from support.command_here import called
from support.command_line import Running, Terminal, run

import rsock.faults
from rsock._cli import _arguments
from rsock.faults import Latency, Reset, preset
from rsock.faults._text import EXAMPLES, KINDS


@pytest.mark.parametrize("command", ["echo", "serve Echo", "forward 0 8080"])
def test_faults_are_kept_in_the_order_in_which_they_were_typed(command: str) -> None:
    options = "--fault latency:0.2+-0.1,up --preset 3g --fault reset:after=64KiB --seed 7"
    arguments = _arguments.parse([*command.split(), *options.split()])
    expected = [Latency(0.2, 0.1, direction="up"), *preset("3g"), Reset(after_bytes=65_536)]
    assert vars(arguments)["faults"] == expected
    assert vars(arguments)["seed"] == 7
    # Each parse has a list of its own.
    assert vars(_arguments.parse(command.split()))["faults"] == []


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("--fault latncy:1", "argument --fault: fault 'latncy:1': no kind 'latncy'; did you mean"),
        ("--fault latency:-1", "argument --fault: .*seconds must be between 0 and"),
        ("--fault", "argument --fault: expected one argument"),
        ("--preset sattelite", "argument --preset: no preset 'sattelite'; did you mean"),
        ("--seed -1", "argument --seed: must be a number from 0, not '-1'"),
        ("--seed x", "argument --seed: must be a number from 0, not 'x'"),
        (f"--seed {2**64}", r"argument --seed: must be at most 2\*\*64 - 1"),
        ("--udp --fault reset:after=1s", "reset:after=1s: not a fault of datagrams"),
        ("--fault drop:0.1", "drop:0.1: not a fault of streams"),
        ("--faults latency:1", "no option '--faults'; did you mean --fault"),
    ],
)
def test_wrong_options_are_explained(
    options: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, "echo", *options.split())
    assert (code, out) == (2, "")
    assert re.match(f"rsock: .*{hint}", err), err


def test_the_help_of_faults_lists_all_kinds_and_presets() -> None:
    code, out, err = run("echo", "--help-fault")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) < 100
    for name in (*EXAMPLES, *rsock.faults.presets(), "--fault", "--preset", "--seed"):
        assert re.search(rf"^ *{re.escape(name)} +\S", out, re.M), name


def test_there_is_an_example_of_each_kind() -> None:
    assert [type(rsock.faults.parse(example)) for example in EXAMPLES] == list(KINDS.values())


def pattern(command: Running) -> list[bool]:
    """Which of some connections are reset, one after the other."""
    address = command.address()
    command.line()
    found = []
    for _ in range(16):
        with dial(address) as peer:
            peer.sendall(b"x")
            found.append(was_reset(peer))
    return found


def test_the_account_has_a_command_that_repeats_a_drawn_seed() -> None:
    with Running("echo", "--plain", "--fault", "reset:after=1B,up,probability=0.5") as command:
        first = pattern(command)
        command.signal(signal.SIGINT)
        code, out, _ = command.end()
    assert code == 0
    assert True in first
    assert False in first
    *_, done, again = out.splitlines()
    struck = first.count(True)
    connections = f"{struck} connection" + "s" * (struck > 1)
    assert done.startswith(f"reset:after=1B,up,probability=0.5: {connections}, ")
    name, *words = shlex.split(again.removeprefix("the same again: "))
    assert name == "rsock"
    with Running(*words) as command:
        assert pattern(command) == first
        command.signal(signal.SIGINT)
        # A command with its seed is shown as it was typed.
        assert command.end()[1].endswith(f"{again}\n")


def test_plain_output_names_faults_and_seed() -> None:
    options = ("--fault", "latency:0.01", "--fault", "reset:after=1KiB", "--seed", "7")
    with Running("echo", "0", "--plain", *options) as command:
        address = command.address()
        assert command.line() == "faults latency:0.01; reset:after=1KiB with seed 7"
        with dial(address) as peer:
            assert says_back(peer)
        assert command.line().startswith("closed 1 ")
        command.signal(signal.SIGINT)
        code, out, err = command.end()
    assert (code, err) == (0, "")
    assert "latency:0.01: 1 connection, 1 event\n" in out
    assert "reset:after=1KiB: 1 connection, 0 events\n" in out
    assert out.endswith(f"the same again: {shlex.join(['rsock', *command_of(options)])}\n")


def command_of(options: tuple[str, ...]) -> list[str]:
    return ["echo", "0", "--plain", *options]


def test_json_output_names_faults_and_seed() -> None:
    with Running("echo", "0", "0", "--json", "--fault", "latency:0.01") as command:
        started = [json.loads(command.line()) for _ in range(2)]
        assert [each["faults"] for each in started] == [["latency:0.01"]] * 2
        # One command line has one seed.
        assert started[0]["seed"] == started[1]["seed"]
        with dial(tuple(started[1]["address"])) as peer:
            assert says_back(peer)
        assert json.loads(command.line())["event"] == "closed"
        command.signal(signal.SIGINT)
        stopped = [json.loads(line) for line in command.end()[1].splitlines()]
    done = {each["server"]: each["faults"]["latency:0.01"] for each in stopped}
    assert done[started[0]["name"]] == "0 connections, 0 events"
    assert done[started[1]["name"]] == "1 connection, 1 event"


def test_a_command_without_faults_says_nothing_of_them() -> None:
    with Running("echo", "0", "--json", "--seed", "7") as command:
        assert not {"faults", "seed"} & json.loads(command.line()).keys()
        command.signal(signal.SIGINT)
        assert "same again" not in command.end()[1]


def test_number_keys_switch_faults_on_and_off_in_the_live_table() -> None:
    faults = ("--fault", "reset:after=3B,down", "--fault", "latency:0.01")
    with Terminal("echo", "0", *faults, "--seed", "7") as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+)  Echo")
        terminal.until(r"faults with seed 7; a number switches its fault on or off")
        terminal.until(r"1 on +reset:after=3B,down +0 connections, 0 events")
        terminal.until(r"2 on +latency:0.01 +0 connections, 0 events")
        address = ("127.0.0.1", int(found[1]))
        terminal.type("1")
        terminal.until(r"1 off +reset:after=3B,down")
        with dial(address) as peer:
            assert says_back(peer)
            terminal.until(r"2 on +latency:0.01 +1 connection, 1 event")
            # On again, also on a connection that is open; other keys do nothing.
            terminal.type("x30\n1")
            terminal.until(r"1 on +reset:after=3B,down +1 connection, 0 events")
            peer.sendall(b"hello")
            terminal.until(r"1 on +reset:after=3B,down +1 connection, 1 event")
        terminal.type("12")
        terminal.until(r"2 off +latency:0.01 +1 connection, 1 event")
        terminal.type("\x03")
        assert terminal.end() == 0
        end = terminal.seen[terminal.seen.index("stopped by SIGINT") :]
    assert re.search(r"fault +reset:after=3B,down: 1 connection, 1 event *\n", end)
    assert re.search(r"fault +latency:0.01: 1 connection, 1 event *\n", end)
    assert f"the same again: rsock echo 0 {' '.join(faults)} --seed 7\n" in end


def test_the_terminal_is_as_before_in_the_end() -> None:
    with Terminal("echo", "0", "--fault", "latency:0.01") as terminal:
        before = termios.tcgetattr(terminal.number)
        terminal.until(r"1 on +latency:0.01")
        during = termios.tcgetattr(terminal.number)
        assert not during[3] & (termios.ECHO | termios.ICANON)
        terminal.type("\x03")
        terminal.until(r"the same again: rsock echo")
        after = termios.tcgetattr(terminal.number)
        assert terminal.end() == 0
    # The command may have started before the first look.
    assert after[3] & termios.ECHO
    assert after[3] & termios.ICANON
    assert before[:3] == after[:3]


def test_keys_work_after_a_shell_has_set_the_terminal_back() -> None:
    """As after Ctrl-Z and `fg`."""
    with Terminal("echo", "0", "--fault", "latency:0.01") as terminal:
        before = termios.tcgetattr(terminal.number)
        before[3] |= termios.ECHO | termios.ICANON
        terminal.until(r"1 on +latency:0.01")
        termios.tcsetattr(terminal.number, termios.TCSANOW, before)
        wait_until(lambda: not termios.tcgetattr(terminal.number)[3] & termios.ICANON)
        terminal.type("1")
        terminal.until(r"1 off +latency:0.01")
        terminal.type("\x03")
        assert terminal.end() == 0


def test_many_faults_leave_room_for_the_table() -> None:
    faults = [word for n in range(1, 13) for word in ("--fault", f"latency:0.00{n}")]
    with Terminal("echo", "0", *faults) as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+)  Echo")
        terminal.until(r"9 on +latency:0.009 .*\n.*… and 3 more faults")
        with dial(("127.0.0.1", int(found[1]))) as peer:
            assert says_back(peer)
            terminal.until(r"\n *1 +127\.0\.0\.1:\d+ .*still open")
            terminal.type("\x03")
        assert terminal.end() == 0
