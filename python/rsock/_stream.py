"""The Python part of the methods that both ends of a connection share.

It adds context managers, files, displays and the enums of `socket.socket` to the compiled class.
The methods that move bytes are those of the compiled class: nothing here may come between a caller
and `send` or `recv`.
"""

import builtins
import contextlib
import functools
import io
import os
import socket
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self, cast, overload

from . import _display, _rsock
from ._threads import reentrant_lock

__all__ = ["StreamMethods"]

# How much is read at a time from a file that has no descriptor.
_PART: Final = 64 * 1024
# The largest count that the compiled method takes; no file has more bytes.
_MOST: Final = (1 << 63) - 1

# The name of a stream's lock among its attributes. Another one in each forked child: a thread that
# the child does not have may have held the lock.
_lock_name = "_lock"

# The modes of `makefile`, by the type that it returns.
_Text = Literal["r", "w", "rw", "wr", ""]
_Read = Literal["rb", "br", "b"]
_Write = Literal["wb", "bw"]
_Both = Literal["rwb", "rbw", "wrb", "wbr", "brw", "bwr"]


# The classes that mix this in have the compiled class as a base; for the type checker this one has.
if TYPE_CHECKING:
    _Base = _rsock.Stream
else:
    _Base = object


class StreamMethods(_Base):
    """The methods that `Client` and `Connection` get from the Python half."""

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET, AF_INET6 or AF_UNIX, as `socket.socket.family`."""
        return socket.AddressFamily(super().family)

    @property
    def type(self) -> socket.SocketKind:
        """SOCK_STREAM, or SOCK_DGRAM for datagrams, as `socket.socket.type`."""
        return socket.SocketKind(super().type)

    @property
    def lock(self) -> threading.RLock:
        """A reentrant lock for threads that send whole messages: `with conn.lock: conn.sendall(…)`.

        The stream's own calls do not take it: as with a socket, what two threads send at the same
        time may be interleaved. The same lock each time; a forked child has one of its own.
        """
        # One step of the interpreter, so that two threads get the same lock.
        lock: threading.RLock = self.__dict__.setdefault(_lock_name, reentrant_lock())
        return lock

    # `type` is the property above from here on; annotations say `builtins.type`.

    # Files.

    @overload
    def makefile(
        self,
        mode: _Text = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...
    @overload
    def makefile(
        self,
        mode: _Read | _Write | _Both,
        buffering: Literal[0],
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> socket.SocketIO: ...
    @overload
    def makefile(
        self,
        mode: _Read,
        buffering: Literal[-1, 1] | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedReader: ...
    @overload
    def makefile(
        self,
        mode: _Write,
        buffering: Literal[-1, 1] | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedWriter: ...
    @overload
    def makefile(
        self,
        mode: _Both,
        buffering: Literal[-1, 1] | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedRWPair: ...
    @overload
    def makefile(
        self,
        mode: str,
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase: ...
    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase:
        """Return a file of this stream, as `socket.socket.makefile` does.

        `mode` is "r", "w" or "rw", with "b" for bytes; the other arguments are those of `open`.
        `buffering` 0 gives the raw file (binary only). A file of mode "r" may read ahead of what
        it returns, which no method of the stream ever does. Reads and writes of the file are those
        of the stream, including the time-out; after a time-out the file can no longer be read.
        A stream that was closed stays open until the last of its files is closed.

        Raises ValueError for another mode, or for unbuffered text.
        """
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing = "w" in mode
        reading = "r" in mode or not writing
        binary = "b" in mode
        raw_mode = ("r" if reading else "") + ("w" if writing else "")
        buffering = -1 if buffering is None else buffering
        if buffering == 0 and not binary:
            raise ValueError("unbuffered streams must be binary")
        if not binary:
            # So that an EncodingWarning names the caller's line.
            encoding = io.text_encoding(encoding)
        # The standard library's wrapper for sockets needs only methods that this class has.
        raw = socket.SocketIO(cast(Any, self), cast(Literal["r", "w", "rw"], raw_mode))
        self._open_file()
        if buffering == 0:
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        buffer: io.BufferedRWPair | io.BufferedReader | io.BufferedWriter
        if reading and writing:
            buffer = io.BufferedRWPair(raw, raw, size)
        elif reading:
            buffer = io.BufferedReader(raw, size)
        else:
            buffer = io.BufferedWriter(raw, size)
        if binary:
            return buffer
        text = io.TextIOWrapper(cast(Any, buffer), encoding, errors, newline)
        # As the standard library does; TextIOWrapper itself has no `mode`.
        cast(Any, text).mode = mode
        return text

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        """Send a binary file from `offset` to its end, or `count` bytes; return how many were sent.

        As `socket.socket.sendfile`, except that the file is read and sent in parts of 256 KiB: on
        a blocking descriptor, the system's sendfile() would ignore both the time-out and Ctrl-C.
        The time-out applies to the call as a whole or, if `file` is not a regular file of the
        system, to each part. The file position is left at the end of what was sent, even if the
        call ends early; `.sent` of the exception is then the number of bytes.

        Blocks with the interpreter released. Raises ValueError for a text file, a count that is
        not positive, a time-out of 0 and a UDP client, OSError for an offset that the file cannot
        have, and as `sendall`.
        """
        if "b" not in getattr(file, "mode", "b"):
            raise ValueError("file should be opened in binary mode")
        if count is not None:
            if not isinstance(count, int):
                raise TypeError(f"count must be a positive integer (got {count!r})")
            if count <= 0:
                raise ValueError(f"count must be a positive integer (got {count!r})")
        if self.type != socket.SOCK_STREAM:
            raise ValueError("only SOCK_STREAM type sockets are supported")
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        number = _regular(file)
        if number is not None:
            try:
                # Sends 0 bytes: a check whether the system takes this file from this offset on.
                os.sendfile(self.fileno(), number, offset, 0)
            except OSError:
                # As a socket does: reading from the file then raises the error.
                number = number if self.closed else None
        sent = 0
        try:
            if number is not None:
                try:
                    most = None if count is None else min(count, _MOST)
                    sent = self._send_file(number, offset, most)
                except BaseException as error:
                    sent = getattr(error, "sent", 0)
                    raise
                return sent
            if offset:
                file.seek(offset)
            while count is None or sent < count:
                part = memoryview(file.read(_PART if count is None else min(_PART, count - sent)))
                if not part:
                    break
                try:
                    self.sendall(part)
                except BaseException as error:
                    sent += getattr(error, "sent", 0)
                    with contextlib.suppress(Exception):
                        error.sent = sent  # type: ignore[attr-defined]
                    raise
                sent += part.nbytes
            return sent
        finally:
            if sent and hasattr(file, "seek") and (number is not None or _can_seek(file)):
                file.seek(offset + sent)

    def lines(self, limit: int = 65_536) -> Iterator[bytes]:
        """Iterate over the lines that arrive, each with its b"\\n", until the peer has finished.

        Each line is received by `recv_line(limit)` when it is asked for, so that nothing after it
        is taken; blocks and raises as that does, with IncompleteRead for a last line without its
        end.
        """
        return iter(functools.partial(self.recv_line, limit), b"")

    def to_socket(self) -> socket.socket:
        """Return a `socket.socket` of the same connection, with a descriptor of its own.

        For code that requires one, such as `ssl.SSLContext.wrap_socket`. It has the same time-out.
        Close both. A client's peer sees the end when both are closed; a server's connection ends
        for both when it is closed here, as it is when its handler returns. To hand the connection
        over for good, use `socket.socket(fileno=stream.detach())`.

        Bytes that go through it are not counted. Does not block. Raises OSError EBADF on a closed
        stream, EMFILE if there is no free descriptor.
        """
        number = self._duplicate()
        try:
            duplicate = socket.socket(self.family, self.type, self.proto, fileno=number)
        except BaseException:
            os.close(number)
            raise
        duplicate.settimeout(self.gettimeout())
        return duplicate

    # Context managers, displays and finalization.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing does not wait for the peer, so it needs no thread. (With SO_LINGER it may wait,
        # which is what that option asks for.)
        self.close()

    def __repr__(self) -> str:
        return _display.stream_repr(self)

    def _repr_html_(self) -> str:
        return _display.stream_html(self)

    # `warn` is bound here because the module's globals may be gone when the interpreter exits.
    def __del__(self, _warn: Callable[..., Any] = warnings.warn) -> None:
        try:
            # One that a parent process made is for that process to close. Only the descriptor is
            # this one's, and goes with the object.
            if self.closed or self._inherited:
                return
            text = f"unclosed {self!r}"
        except Exception:
            # Not readable any more.
            return
        # A warning that is stored or raised keeps its source alive: the connection must not stay
        # open because of that.
        try:
            _warn(text, ResourceWarning, source=self)
        finally:
            self._close_unawaited()


def _regular(file: IO[bytes]) -> int | None:
    """The descriptor of a regular file; None for any other file."""
    try:
        number = file.fileno()
        return number if stat.S_ISREG(os.fstat(number).st_mode) else None
    except (AttributeError, io.UnsupportedOperation, OSError):
        return None


def _can_seek(file: IO[bytes]) -> bool:
    seekable = getattr(file, "seekable", None)
    return seekable is None or bool(seekable())


def _rename_lock() -> None:
    global _lock_name
    _lock_name += "_"


os.register_at_fork(after_in_child=_rename_lock)
