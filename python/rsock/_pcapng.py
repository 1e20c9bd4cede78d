"""Files of packets: pcapng, as draft-ietf-opsawg-pcapng describes it.

It must never know what is in a packet, nor replace a file of another kind.
"""

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from ._checks import check_path
from ._types import SocketPath

__all__ = ["PcapngFile", "replaced"]

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_ENHANCED_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D
# Each packet begins with its IP header, whose version says which (LINKTYPE_RAW).
_RAW: Final = 101
# Options: of any block, of a section, of an interface.
_END, _COMMENT = 0, 1
_USER_APPLICATION: Final = 4
_NAME, _RESOLUTION = 2, 9
# A length of 16 bits, and below it no end within a character.
_MOST_COMMENT: Final = 60_000
_BUFFER: Final = 256 * 1024


class PcapngFile:
    """A file with one section and one interface. It does not close `file`."""

    def __init__(self, file: BinaryIO, application: str, comment: str) -> None:
        """Write what comes in front of the packets."""
        self._file = file
        fixed = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
        about = _option(_COMMENT, _text(comment)) + _option(_USER_APPLICATION, _text(application))
        file.write(_block(_SECTION, fixed + about + _option(_END)))
        # No limit of the length of packets; times in 10**-6 seconds.
        fixed = struct.pack("<HHI", _RAW, 0, 0)
        about = _option(_NAME, b"rsock") + _option(_RESOLUTION, b"\x06")
        file.write(_block(_INTERFACE, fixed + about + _option(_END)))

    def packet(self, microseconds: int, data: bytes, comment: str) -> None:
        """Write a packet with its time since 1970."""
        high, low = divmod(microseconds, 1 << 32)
        fixed = struct.pack("<IIIII", 0, high, low, len(data), len(data))
        body = fixed + data + bytes(-len(data) % 4)
        if comment:
            body += _option(_COMMENT, _text(comment)) + _option(_END)
        self._file.write(_block(_ENHANCED_PACKET, body))


@contextlib.contextmanager
def replaced(path: SocketPath) -> Iterator[BinaryIO]:
    """Open a file for writing; it is empty or new then.

    Raises OSError, which names the path: FileExistsError for a file that has something else than
    packets in it. Raises TypeError for what is no path.
    """
    check_path(path)
    try:
        with _opened(path) as file:
            yield file
    except OSError as error:
        if error.filename is None:
            error.filename = os.fsdecode(path)
        raise


def _opened(path: SocketPath) -> BinaryIO:
    try:
        is_regular = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_regular = False
    if is_regular:
        with open(path, "rb") as file:
            begins = file.read(4)
        if begins not in (b"", struct.pack("<I", _SECTION)):
            text = "a file of another kind than pcapng, which is not replaced"
            raise FileExistsError(errno.EEXIST, text, os.fsdecode(path))
    return open(path, "wb", buffering=_BUFFER)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:_MOST_COMMENT]


def _option(code: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return b"".join((struct.pack("<II", kind, length), body, struct.pack("<I", length)))
