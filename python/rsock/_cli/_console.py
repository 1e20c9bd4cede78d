"""The console of rich that every command prints to. Must never decide what is printed."""

from typing import NoReturn

from rich.console import Console

from ._errors import OutputGone

__all__ = ["console"]


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave the exit code to whoever runs the command."""
        raise OutputGone from None


def console() -> Console:
    """Standard output, as wide as it is, with no colours but those that are asked for."""
    return _Console(highlight=False)
