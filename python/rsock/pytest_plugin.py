"""The names of the plugin for pytest that a test imports.

This file owns the types of the fixtures, beside a warning. The plugin itself is the package
`_rsock_pytest`, which pytest finds through the `pytest11` entry point.
"""

import os
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias, Unpack

from ._pytest._warning import LeftOpenWarning
from ._rsock import TLS, Service
from ._server import Server, _PlainOptions
from ._types import Function, Redact

__all__ = ["LeftOpenWarning", "MakeProxy", "MakeRecording", "MakeServer"]


_Target: TypeAlias = Server | tuple[str, int | str] | str | os.PathLike[str]
_Pattern: TypeAlias = bytes | str


class _Options(_PlainOptions, total=False):
    host: str | tuple[str, int | str]
    port: int | str
    tls: bool | TLS | None


class MakeServer(Protocol):
    """The type of the fixture `make_rsock_server`, for annotations."""

    def __call__(
        self,
        service: Service | Function | None = None,
        **options: Unpack[_Options],
    ) -> Server:
        """Return a started `Server`; the arguments are those of `Server`.

        With `tls=True` it has the certificate of the fixture `rsock_tls`.
        """


class MakeProxy(Protocol):
    """The type of the fixture `rsock_proxy`, for annotations."""

    def __call__(
        self,
        target: _Target,
        **options: Unpack[_Options],
    ) -> Server:
        """Return a started `Server` that forwards to `target`; `options` are those of `Server`."""


class MakeRecording(Protocol):
    """The type of the fixture `rsock_recording`, for annotations."""

    def __call__(
        self,
        target: _Target | Callable[[], _Target],
        *,
        redact: Redact = (),
        target_tls: bool | TLS | None = None,
        connections: Literal["in order", "repeat"] | int = "in order",
        chunks: Literal["lenient", "exact"] = "lenient",
        speed: float | None = None,
        timeout: float = 10.0,
        carry: Iterable[tuple[int, int]] = (),
        ignore: _Pattern | Iterable[_Pattern] = (),
        **options: Unpack[_Options],
    ) -> Server:
        """Return a started `Server` that plays what `target` has said, or records it.

        `redact` and `target_tls` are the `redact` and `tls` of `Forward`, `connections` to `ignore`
        those of `Replay`, and `options` those of `Server`.
        """
