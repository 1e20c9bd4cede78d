"""What a test failed with: the kind of its exception, what it compared, where it connected to.

Owns the reading of exceptions, which may be of any library; must never know a server.
"""

import ast
import errno
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

__all__ = ["Compared", "Kind", "awaited", "compared", "kind_of", "target_of", "verified"]

Kind = Literal["refused", "reset", "timeout", "ended", "tls", "wrong", "other"]

# Exceptions of other libraries, by the names of their classes.
_ENDED: Final = {
    "IncompleteRead",
    "IncompleteReadError",
    "RemoteDisconnected",
    "RemoteProtocolError",
    "SMTPServerDisconnected",
    "ServerDisconnectedError",
    "EndOfStream",
    "SSLEOFError",
    "SSLZeroReturnError",
}
# One side of a comparison, as pytest and unittest write it.
_SIDE: Final = r"""[bB]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_COMPARED: Final = re.compile(rf"(?P<left>{_SIDE}) (?:==|!=) (?P<right>{_SIDE})")
_MOST: Final = 50
# The time-outs of calls by which a test waits for a server; no client has timed out then.
_AWAITED: Final = (
    (re.compile(r"wait for ((?:open|closed)=\d+(?:, closed=\d+)?) \(.*\): timed out"), "{}"),
    (re.compile(r"follow\b.*: timed out"), "a connection to end"),
    (re.compile(r"accept .*: timed out"), "accept() to return"),
)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those behind it, the outermost first."""
    queue: list[BaseException | None] = [error]
    seen: set[int] = set()
    while queue and len(seen) < _MOST:
        each = queue.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            queue += each.exceptions
        queue.append(each.__cause__)
        if not each.__suppress_context__:
            queue.append(each.__context__)
        # As those of urllib3 and requests.
        args = each.args if isinstance(each.args, tuple) else ()
        queue += [one for one in (getattr(each, "reason", None), *args) if _is_error(one)]


def _is_error(value: object) -> bool:
    return isinstance(value, BaseException)


def kind_of(error: BaseException | None) -> Kind:
    """Return the kind of an exception, by the first in its chain that is of the network."""
    for each in _chain(error):
        kind = _kind(each)
        if kind is not None:
            return kind
    return "wrong" if isinstance(error, AssertionError) else "other"


def _kind(error: BaseException) -> Kind | None:
    name, number = type(error).__name__, getattr(error, "errno", None)
    if isinstance(error, ConnectionRefusedError) or number == errno.ECONNREFUSED:
        return "refused"
    if name in _ENDED or isinstance(error, EOFError):
        return "ended"
    if isinstance(error, ConnectionError) and type(error).__module__ == "builtins":
        return "reset"
    if isinstance(error, TimeoutError) or "Timeout" in name or str(error).startswith("Timeout >"):
        return "timeout"
    if "SSL" in name or "Certificate" in name:
        return "tls"
    return None


def verified(error: BaseException | None) -> str:
    """Return why the client of a test has refused a certificate, as far as it says; else ""."""
    for each in _chain(error):
        text = getattr(each, "verify_message", None)
        if isinstance(text, str) and text:
            return text.removesuffix(".")
    return ""


def awaited(error: BaseException | None) -> str | None:
    """Return what a test waited for in vain by a call of a server or its ledger, or None."""
    if not isinstance(error, TimeoutError):
        return None
    for pattern, what in _AWAITED:
        found = pattern.fullmatch(str(error))
        if found is not None:
            return what.format(*found.groups())
    return None


class Compared:
    """Two values of which a test expected that they are equal.

    `left` and `right`: in the order of the assertion, by custom what was received and what was
    expected.
    """

    def __init__(self, left: bytes, right: bytes) -> None:
        self.left = left
        self.right = right

    @property
    def is_short(self) -> bool:
        """Whether the left one is the beginning of the right one."""
        return len(self.left) < len(self.right) and self.right.startswith(self.left)


def compared(error: BaseException | None) -> Compared | None:
    """Return what an assertion compared, if it was bytes or text; None otherwise."""
    if not isinstance(error, AssertionError):
        return None
    found = _COMPARED.search(str(error).partition("\n")[0])
    if found is None:
        return None
    try:
        left, right = (_value(found[side]) for side in ("left", "right"))
    except (ValueError, SyntaxError):
        return None
    return Compared(left, right)


def _value(text: str) -> bytes:
    value: object = ast.literal_eval(text)
    return value if isinstance(value, bytes) else str(value).encode()


def target_of(error: BaseException | None) -> tuple[str, int] | None:
    """Return the address that a connect has failed for, if the frames of an exception have it."""
    for each in _chain(error):
        traceback, frames = each.__traceback__, []
        while traceback is not None:
            frames.append(traceback.tb_frame)
            traceback = traceback.tb_next
        for frame in reversed(frames):
            names: dict[str, Any] = frame.f_locals
            for name in ("sa", "address", "addr", "sockaddr", "server_address"):
                found = _address(names.get(name))
                if found is not None:
                    return found
            found = _address((names.get("host"), names.get("port")))
            if found is not None:
                return found
    return None


def _address(value: object) -> tuple[str, int] | None:
    if isinstance(value, tuple | list) and len(value) >= 2:
        host, port = value[:2]
        if isinstance(host, str) and isinstance(port, int) and 0 < port < 65_536:
            return host, port
    return None
