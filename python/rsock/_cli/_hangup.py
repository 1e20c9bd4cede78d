"""What SIGHUP means to a command that serves.

A service manager, or an administrator, sends it to have certificates read again; a terminal sends
it when it is closed. It must never end a command that still has its terminal, or never had one.
"""

import contextlib
import errno
import logging
import os
import signal
import threading
from _queue import SimpleQueue
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from .._exceptions import StateError
from .._rsock import TLS
from .._server import Server
from .._threads import on_main_thread
from ._errors import message
from ._threads import signals_blocked

__all__ = ["Terminal", "hangup", "hangup_ignored"]

logger: Final = logging.getLogger("rsock")


class Terminal:
    """The controlling terminal of the process, as it was when this object was made."""

    def __init__(self) -> None:
        self._had = _open_terminal() is None

    def is_gone(self) -> bool:
        """Whether there was one, and it was closed."""
        return self._had and _open_terminal() in (errno.ENXIO, errno.EIO)


def _open_terminal() -> int | None:
    """Open the controlling terminal, and return the error number: ENXIO without one (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno
    return None


@contextlib.contextmanager
def hangup(servers: Sequence[Server], read: Callable[[], TLS] | None) -> Iterator[None]:
    """Have SIGHUP give the servers what `read` returns, during a block; None for no TLS.

    The files are read on a thread, because the handler of a signal may interrupt a write to the
    log. A SIGHUP that was ignored when the process started, as by nohup(1), stays ignored.
    """
    found = signal.getsignal(signal.SIGHUP)
    if found is None or found is signal.SIG_IGN or not on_main_thread():
        yield
        return
    terminal = Terminal()
    # An item for each signal; False ends the thread.
    asked: SimpleQueue[bool] = SimpleQueue()

    def note(_number: int, _frame: object) -> None:
        if terminal.is_gone():
            signal.raise_signal(signal.SIGTERM)
        else:
            asked.put(True)

    def work() -> None:
        while asked.get():
            _read_again(servers, read)

    with signals_blocked():
        thread = threading.Thread(target=work, name="rsock-hangup", daemon=True)
        thread.start()
    signal.signal(signal.SIGHUP, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, found)
        asked.put(False)
        thread.join()


def _read_again(servers: Sequence[Server], read: Callable[[], TLS] | None) -> None:
    from .._notify import Notifier

    notifier = Notifier()
    # A manager may wait for the end of a reload, also of one that changes nothing.
    notifier.reloading()
    try:
        if read is None:
            logger.warning("SIGHUP: there is no certificate to read again; nothing has changed")
            return
        tls = read()
        for server in servers:
            # A stop may have begun.
            with contextlib.suppress(StateError):
                server.tls = tls
    except (OSError, ValueError) as error:
        reason = message(error) if isinstance(error, OSError) else error
        logger.error("SIGHUP: the certificate stays as it is: %s", reason)
    else:
        logger.info("SIGHUP: new connections use the certificate that was read now")
    finally:
        notifier.reloaded()


def hangup_ignored() -> None:
    """Have SIGHUP do nothing from now on, in a child whose parent replaces it.

    Not by SIG_IGN, which the programs that handlers start would inherit.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: None)
