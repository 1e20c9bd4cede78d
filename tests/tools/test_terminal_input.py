"""The input of a terminal is read without waiting, because Ctrl-C throws it away."""

from __future__ import annotations

import os
import pty
import select
import termios
from collections.abc import Iterator

import pytest

from rsock._cli._terminal import input_without_waiting


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both sides of a terminal."""
    sides = pty.openpty()
    yield sides
    for side in sides:
        os.close(side)


def test_what_was_thrown_away_after_a_poll_is_not_waited_for(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    with input_without_waiting(slave) as source:
        os.write(master, b"typed\n")
        assert select.select([source], [], [], 10.0)[0] == [source]
        termios.tcflush(slave, termios.TCIFLUSH)
        with pytest.raises(BlockingIOError):
            os.read(source, 100)
        os.write(master, b"more\n\x04")
        assert select.select([source], [], [], 10.0)[0] == [source]
        assert os.read(source, 100) == b"more\n"
        # The end of the input is none that waits.
        assert os.read(source, 100) == b""


def test_other_users_of_the_terminal_go_on_waiting(terminal: tuple[int, int]) -> None:
    _, slave = terminal
    with input_without_waiting(slave) as source:
        assert source != slave
        assert not os.get_blocking(source)
        assert os.get_blocking(slave)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source)


def test_what_is_no_terminal_is_read_as_it_is() -> None:
    out, into = os.pipe()
    try:
        with input_without_waiting(out) as source:
            assert source == out
        assert os.get_blocking(out)
    finally:
        os.close(out)
        os.close(into)
