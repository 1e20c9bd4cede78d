"""Addresses as they are typed.

This file owns their syntax. It must never ask a resolver: an address that is well formed need not
exist.
"""

import itertools
import os
import socket
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

from .._types import Destination
from ._errors import UsageError

__all__ = ["Address", "one_of", "parsed", "port_of"]


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
        if "://" in text:
            raise UsageError(f"address {text!r}: a URL; {_of_url(text)}")
        if text.startswith(("unix:", "@")) or "/" in text:
            return cls.of_path(text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon:
            return cls("127.0.0.1", _port_alone(text))
        if text.endswith("]"):
            raise UsageError(_without_port(text))
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
        return cls(host, _known(port))

    @property
    def destination(self) -> Destination:
        """The address as functions of rsock take it."""
        return (self.host, self.port) if self.path is None else self.path

    @classmethod
    def of_path(cls, text: str) -> "Address":
        """Return the Unix socket of a path, or of an abstract name as ss(8) shows it: `@name`."""
        return cls("", 0, "\0" + text[1:] if text.startswith("@") else text)


def parsed(words: Sequence[str]) -> list[Address]:
    """Read several addresses.

    Raises UsageError, which says what was meant if a host and its port are two words.
    """
    addresses = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        try:
            addresses.append(Address.parse(word))
        except UsageError:
            host = f"[{word}]" if ":" in word else word
            if not following or ":" in following or "/" in following or not _is_host(word):
                raise
            raise UsageError(
                f"addresses {word!r} and {following!r}; did you mean {host}:{following}?"
            ) from None
    return addresses


def one_of(command: str, words: Sequence[str], path: str | None) -> Address:
    """Read the address of a command that has one: HOST PORT, HOST:PORT, or a path.

    Raises UsageError for anything else.
    """
    if path is not None and not words:
        return Address.of_path(path)
    if len(words) == 1 and path is None:
        return Address.parse(words[0])
    if len(words) == 2 and path is None:
        host, port = words
        return Address(host, _known(port))
    given = [*words, *([] if path is None else ["--path", path])]
    raise UsageError(
        f"{command} takes HOST PORT, HOST:PORT or --path PATH, not {' '.join(given) or 'nothing'!r}"
    )


def port_of(text: str) -> int | str:
    """Return a number or, if the text is not one, the name of a port, such as `http`."""
    # A negative number is one, too: the error then says that it is out of range.
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() else text


def _known(text: str) -> int | str:
    """A port; one that is named must be in services(5)."""
    port = port_of(text)
    if isinstance(port, str):
        try:
            socket.getservbyname(port)
        except (OSError, ValueError):
            raise UsageError(f"port {text!r}: no such service") from None
    return port


# What was meant.


def _port_alone(text: str) -> int | str:
    """A port without a host; the most likely mistake is a host without a port."""
    try:
        return _known(text)
    except UsageError:
        if os.path.exists(text) or text.endswith((".sock", ".socket")):
            raise UsageError(
                f"address {text!r}: a path has a / in it: ./{text} is a Unix socket"
            ) from None
        if _is_host(text):
            raise UsageError(_without_port(text)) from None
        raise UsageError(
            f"port {text!r}: no such service; an address is [HOST:]PORT, or a path with a /"
        ) from None


def _without_port(host: str) -> str:
    return f"address {host!r}: no port; it is written {host}:PORT"


def _is_host(text: str) -> bool:
    """Whether a word looks like a host: a name with a dot in it, or an address."""
    if text == "localhost" or ("." in text.strip(".") and not text.startswith(".")):
        return True
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0].strip("[]"))
    except (OSError, ValueError):
        return False
    return True


def _of_url(text: str) -> str:
    try:
        split = urllib.parse.urlsplit(text)
        host, port = split.hostname, split.port
    except ValueError:
        host, port = None, None
    if host is None:
        return "an address is HOST:PORT"
    host = f"[{host}]" if ":" in host else host
    return f"did you mean {host}:{port or split.scheme}?"
