"""The sockets that a service manager passed to this process: `sd_listen_fds(3)`.

It reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, and leaves them in the environment: LISTEN_PID
tells a child that the sockets are not its own. It must never close a descriptor, nor be loaded by a
program that names no such socket.
"""

import fcntl
import os
import weakref
from typing import Final, NamedTuple

__all__ = ["Passed", "claim", "find", "passed"]

# SD_LISTEN_FDS_START: 0, 1 and 2 are the standard streams.
_FIRST: Final = 3
# More than any process can have open (fs.nr_open).
_MOST: Final = 1 << 20
# The name of a socket without one, as in sd_listen_fds_with_names(3).
_UNNAMED: Final = "unknown"


class Passed(NamedTuple):
    """A descriptor that was passed, with its name (FileDescriptorName= of the socket unit)."""

    number: int
    name: str


# The device and inode of each descriptor as it was passed: its number may be another file's later.
_identities: dict[int, tuple[int, int]] = {}
# The server that has each of them.
_holders: dict[int, weakref.ref[object]] = {}


def passed() -> list[Passed]:
    """Return the descriptors that were passed, in their order; they are close-on-exec from now on.

    Raises ValueError, which names the variable, if there are none.
    """
    environment = os.environ
    process = _number("LISTEN_PID", 1, None)
    if process != os.getpid():
        raise ValueError(f"LISTEN_PID={process}: the sockets are for another process")
    count = _number("LISTEN_FDS", 1, _MOST)
    text = environment.get("LISTEN_FDNAMES")
    names = [_UNNAMED] * count if text is None else text.split(":")
    if len(names) != count:
        raise ValueError(f"LISTEN_FDNAMES={text!r}: must have {count} names, as LISTEN_FDS says")
    found = [Passed(_FIRST + index, name) for index, name in enumerate(names)]
    for number, name in found:
        if number in _identities:
            continue
        try:
            fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            _identities[number] = _identity(number)
        except OSError as error:
            raise ValueError(
                f"LISTEN_FDS={count}: descriptor {number} ({name!r}): {error.strerror}"
            ) from None
    return found


def find(text: str) -> int:
    """Return the descriptor that `systemd` or `systemd:NAME` means: the first that is not in use.

    Raises ValueError if there is none.
    """
    word, colon, name = text.partition(":")
    if word != "systemd" or (colon and not name):
        raise ValueError(f"fd {text!r}: must be a descriptor, 'systemd' or 'systemd:NAME'")
    try:
        found = passed()
    except ValueError as error:
        raise ValueError(f"fd {text!r}: {error}") from None
    named = [each for each in found if not colon or each.name == name]
    if not named:
        names = ", ".join(dict.fromkeys(repr(each.name) for each in found))
        raise ValueError(f"fd {text!r}: no socket has this name; there are {names}")
    for number, _ in named:
        if _is_free(number):
            return number
    what = "the socket is" if len(named) == 1 else f"all {len(named)} sockets are"
    raise ValueError(f"fd {text!r}: {what} in use by a server, or closed")


def claim(number: int, server: object) -> None:
    """Note which server has a descriptor. Raises ValueError if another one has it."""
    if not _is_free(number):
        raise ValueError(f"fd {number}: the socket is in use by a server, or closed")
    _holders[number] = weakref.ref(server)


def _is_free(number: int) -> bool:
    holder = _holders.get(number)
    if holder is not None and holder() is not None:
        return False
    try:
        return _identity(number) == _identities[number]
    except OSError:
        return False


def _identity(number: int) -> tuple[int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


def _number(name: str, lowest: int, highest: int | None) -> int:
    text = os.environ.get(name)
    if text is None:
        raise ValueError(f"{name} is not set: no service manager has passed a socket")
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < lowest or (highest is not None and value > highest):
        raise ValueError(f"{name}={text!r}: must be a number from {lowest}")
    return value
