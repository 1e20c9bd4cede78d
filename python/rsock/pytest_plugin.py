"""The names of the plugin for pytest that a test imports.

This file owns the types of the fixtures, beside a warning. The plugin itself is the package
`_rsock_pytest`, which pytest finds through the `pytest11` entry point.
"""

import os
from typing import Protocol, Unpack

from ._pytest._warning import LeftOpenWarning
from ._rsock import Service
from ._server import Server, ServerOptions
from ._types import Function

__all__ = ["LeftOpenWarning", "MakeProxy", "MakeServer"]


class _Options(ServerOptions, total=False):
    host: str | tuple[str, int | str]
    port: int | str


class MakeServer(Protocol):
    """The type of the fixture `make_rsock_server`, for annotations."""

    def __call__(
        self,
        service: Service | Function | None = None,
        **options: Unpack[_Options],
    ) -> Server:
        """Return a started `Server`; the arguments are those of `Server`."""


class MakeProxy(Protocol):
    """The type of the fixture `rsock_proxy`, for annotations."""

    def __call__(
        self,
        target: "Server | tuple[str, int | str] | str | os.PathLike[str]",
        **options: Unpack[_Options],
    ) -> Server:
        """Return a started `Server` that forwards to `target`; `options` are those of `Server`."""
