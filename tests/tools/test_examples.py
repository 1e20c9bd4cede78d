"""Each example runs, and those with a counterpart in C behave as it does.

The dialogues with the two echo servers are 100 by default; RSOCK_DIALOGUES=1000 runs all of them.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import (
    LOOPBACK,
    compiled,
    dial,
    ended,
    exchange,
    listener,
    read_exactly,
    read_to_end,
    reset,
    unread,
    wait_until,
)
from support.project import ROOT, TESTS

EXAMPLES = ROOT / "examples"
DIALOGUES = int(os.environ.get("RSOCK_DIALOGUES", "100"))
# For a loaded machine, which starts an interpreter for each example.
LONG = 20.0


class Program:
    """An example that serves: its port, and the lines it prints after that."""

    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        first = self.line()
        port = re.search(r"(?:port |:)(\d+)", first)
        assert port is not None, first
        self.address = (LOOPBACK, int(port[1]))

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        if not line:
            _, errors = self.process.communicate(timeout=LONG)
            raise AssertionError(f"the program has ended: {errors}")
        return line

    def interrupted(self) -> tuple[int, str, str]:
        """Send Ctrl-C and wait: exit code, the rest of its output, its errors."""
        self.process.send_signal(signal.SIGINT)
        out, errors = self.process.communicate(timeout=LONG)
        return self.process.returncode, out, errors

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def python(name: str, *arguments: str) -> list[str | Path]:
    """The command that runs an example in Python; a server is given port 0."""
    return [sys.executable, EXAMPLES / f"{name}.py", *(arguments or ("0",))]


def output(command: list[str | Path]) -> str:
    """The output of a program that ends by itself, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The programs of examples/c."""
    folder = tmp_path_factory.mktemp("c")
    return lambda name: compiled(EXAMPLES / "c" / f"{name}.c", folder)


# --- the accept loop -----------------------------------------------------------------------


def test_run_server_accepts_receives_and_closes_one_after_the_other() -> None:
    with Program(*python("run_server")) as program:
        for message in (b"hello", b"x" * 1_024):
            with dial(program.address) as peer:
                peer.sendall(message)
                host, port = peer.getsockname()
                assert ended(peer)
            assert program.line() == f"{host} port {port} says {message!r}"
        # A client that leaves without a word and one that resets do not end the server.
        dial(program.address).close()
        assert program.line().endswith("says b''")
        reset(dial(program.address))
        with dial(program.address) as peer:
            peer.sendall(b"still there")
            assert ended(peer)
        assert program.interrupted()[0] == 0


# --- the greeting --------------------------------------------------------------------------


@pytest.fixture(params=["C", "rsock"])
def greeting_server(
    request: pytest.FixtureRequest, in_c: Callable[[str], Path]
) -> Iterator[Program]:
    command = python("greeting_server") if request.param == "rsock" else [in_c("greeting_server")]
    with Program(*command) as program:
        yield program


def test_a_greeting_server_sends_fifteen_bytes_and_closes(greeting_server: Program) -> None:
    for _ in range(3):
        with dial(greeting_server.address) as peer:
            assert read_to_end(peer) == b"Hello, Client!\0"


@pytest.mark.parametrize("client", ["C", "rsock"])
def test_each_greeting_client_reads_each_server(
    greeting_server: Program, client: str, in_c: Callable[[str], Path]
) -> None:
    host, port = greeting_server.address
    if client == "rsock":
        command = python("greeting_client", host, str(port))
    else:
        command = [in_c("greeting_client"), host, str(port)]
    assert output(command) == "Hello, Client!\n"


@pytest.mark.parametrize("client", ["C", "rsock"])
def test_each_greeting_client_puts_the_parts_together(
    client: str, in_c: Callable[[str], Path]
) -> None:
    with listener() as listening:
        host, port = listening.getsockname()
        if client == "rsock":
            command = python("greeting_client", host, str(port))
        else:
            command = [in_c("greeting_client"), host, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            listening.settimeout(LONG)
            peer, _ = listening.accept()
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for part in (b"Hel", b"lo, Client", b"!", b"\0"):
                    peer.sendall(part)
                    wait_until(lambda peer=peer: unread(peer) == 0, LONG)  # type: ignore[misc]
            assert process.communicate(timeout=LONG)[0] == "Hello, Client!\n"


def test_a_greeting_server_prints_its_report_at_the_end() -> None:
    with Program(*python("greeting_server")) as program:
        with dial(program.address) as peer:
            assert len(read_to_end(peer)) == 15
        code, out, errors = program.interrupted()
        assert (code, errors) == (0, "")
        assert "SIGINT" in out


# --- the echo server of the study notes ----------------------------------------------------


@pytest.fixture(params=["C", "rsock"])
def echo_server(request: pytest.FixtureRequest, in_c: Callable[[str], Path]) -> Iterator[Program]:
    command = python("echo_like_c") if request.param == "rsock" else [in_c("echo_server")]
    with Program(*command) as program:
        yield program


def answers(message: bytes) -> list[bytes]:
    """The expected answer to each 99 bytes of a message, up to an "exit"."""
    found = []
    for start in range(0, len(message), 99):
        text = message[start : start + 99].partition(b"\0")[0].removesuffix(b"\n")
        found.append(text)
        if text == b"exit":
            break
    return found


def converse(address: tuple[str, int], messages: list[bytes]) -> list[bytes]:
    """The answer to each message, sent one after the other, and what comes at the end.

    A message is sent when the answer to the one before has been read; otherwise the server might
    read them as one.
    """
    said: list[bytes] = []
    with dial(address, timeout=LONG) as peer:
        for message in messages:
            expected = answers(message)
            peer.sendall(message)
            if expected[-1] == b"exit":
                return [*said, rest_of(peer)]
            said.append(read_exactly(peer, len(b"".join(expected))))
            if not expected[-1]:
                wait_until(lambda: not unread(peer), LONG, "the message is read")
        peer.shutdown(socket.SHUT_WR)
        return [*said, rest_of(peer)]


def rest_of(peer: socket.socket) -> bytes:
    """Everything up to the end, which is a reset where something was left unread."""
    rest = b""
    try:
        while part := peer.recv(1_000):
            rest += part
    except ConnectionResetError:
        pass
    return rest


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([b"hi"], [b"hi", b""]),
        ([b"a\nb\n"], [b"a\nb", b""]),
        ([b"ab\0cd"], [b"ab", b""]),
        ([b"exit"], [b""]),
        ([b"one\n", b"exit\n"], [b"one", b""]),
        ([b"\n", b"\n\n", b"\0", b"x\n\0\n"], [b"", b"\n", b"", b"x", b""]),
        ([b"exits", b"Exit", b" exit"], [b"exits", b"Exit", b" exit", b""]),
        ([b"x" * 99 + b"\n", b"y" * 250], [b"x" * 99, b"y" * 250, b""]),
        ([b"x" * 99 + b"exit"], [b"x" * 99]),
    ],
    ids=["hi", "lines", "NUL", "exit", "exit line", "empty", "not exit", "long", "exit behind"],
)
def test_the_echo_servers_answer_as_the_notes_say(
    echo_server: Program, messages: list[bytes], said: list[bytes]
) -> None:
    assert converse(echo_server.address, messages) == said


def test_the_echo_servers_serve_one_client_at_a_time(echo_server: Program) -> None:
    with dial(echo_server.address) as first, dial(echo_server.address) as second:
        first.sendall(b"one")
        assert read_exactly(first, 3) == b"one"
        second.sendall(b"two")
        first.sendall(b"three")
        assert read_exactly(first, 5) == b"three"
        second.settimeout(0.1)
        with pytest.raises(TimeoutError):
            second.recv(1)
        second.settimeout(LONG)
        first.close()
        assert echo_server.line() == "the client left"
        assert read_exactly(second, 3) == b"two"
        second.sendall(b"exit\n")
        assert ended(second)
        assert echo_server.line() == "the client asked to close"


def test_a_client_that_vanishes_ends_no_echo_server(echo_server: Program) -> None:
    for _ in range(3):
        peer = dial(echo_server.address)
        peer.sendall(b"x" * 99)
        reset(peer)
    assert converse(echo_server.address, [b"still there"]) == [b"still there", b""]


PIECES = [
    b"a",
    b"hello",
    b"exit",
    b"EXIT",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"x" * 97,
    b"y" * 99,
    b"\xff\xfe",
]
WHOLE = [
    b"exit",
    b"exit\n",
    b"exit\r\n",
    b"\n",
    b"exit\0",
    b"\0exit",
    b"exit\n\n",
    b"z" * 99 + b"\n",
]


def dialogue(number: int) -> list[bytes]:
    dice = random.Random(number)
    messages = []
    for _ in range(dice.randint(1, 6)):
        kind = dice.random()
        if kind < 0.2:
            messages.append(dice.choice(WHOLE))
        elif kind < 0.3:
            messages.append(dice.randbytes(dice.randint(1, 300)))
        else:
            messages.append(b"".join(dice.choices(PIECES, k=dice.randint(1, 4))))
    return messages


@pytest.mark.timeout(600)
def test_the_echo_servers_answer_random_dialogues_alike(in_c: Callable[[str], Path]) -> None:
    with Program(in_c("echo_server")) as in_c_, Program(*python("echo_like_c")) as in_rsock:
        for number in range(DIALOGUES):
            messages = dialogue(number)
            ours, theirs = (converse(each.address, messages) for each in (in_rsock, in_c_))
            assert ours == theirs, f"dialogue {number}: {messages}"


# --- the others ----------------------------------------------------------------------------


def test_the_echo_example_echoes_and_reports() -> None:
    with Program(*python("echo")) as program:
        with dial(program.address) as peer:
            assert exchange(peer, b"hello") == b"hello"
        code, out, errors = program.interrupted()
        assert (code, errors) == (0, "")
        assert "StopReport" in out


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(path.read_text() for path in TESTS.glob("*/test_*.py"))
    programs = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("c/*.c")]
    assert len(programs) >= 8
    assert [path.name for path in programs if path.stem not in tests] == []


@pytest.mark.parametrize("name", sorted(file.name for file in EXAMPLES.glob("*.py")))
@pytest.mark.parametrize("words", [["no-number"], ["127.0.0.1", "no-number"], ["1", "2", "3"]])
def test_an_example_with_wrong_arguments_says_how_it_is_used(name: str, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *words],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {name}")
