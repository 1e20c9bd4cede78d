"""Addresses as they are typed.

This file owns their syntax. It must never ask a resolver: an address that is well formed need not
exist.
"""

from typing import NamedTuple

from ._errors import UsageError

__all__ = ["Address", "port_of"]


class Address(NamedTuple):
    """A host and a port, or the path of a Unix socket."""

    host: str
    port: int | str
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `8080`, `localhost:http`, `[::1]:8080`, or the path of a Unix socket.

        A port without a host is on 127.0.0.1. A path contains `/` or begins with `unix:`; `@name`
        is an abstract name. Raises UsageError.
        """
        if text.startswith(("unix:", "@")) or "/" in text:
            return cls.of_path(text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon:
            return cls("127.0.0.1", port_of(text))
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise UsageError(f"address {text!r}: IPv6 goes in brackets, as in [::1]:8080")
        if not host:
            raise UsageError(
                f"address {text!r}: no host; {port} alone is 127.0.0.1:{port},"
                f" and 0.0.0.0:{port} is every interface"
            )
        if not port:
            raise UsageError(f"address {text!r}: no port; 0 lets the system choose one")
        return cls(host, port_of(port))

    @classmethod
    def of_path(cls, text: str) -> "Address":
        """Return the Unix socket of a path, or of an abstract name as ss(8) shows it: `@name`."""
        return cls("", 0, "\0" + text[1:] if text.startswith("@") else text)


def port_of(text: str) -> int | str:
    """Return a number or, if the text is not one, the name of a port, such as `http`."""
    # A negative number is one, too: the error then says that it is out of range.
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() else text
