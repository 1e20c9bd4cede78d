"""The console of rich that commands print to.

This file owns its settings. It must never decide what is printed.
"""

from typing import NoReturn

from rich.console import Console

from ._errors import OutputGone

__all__ = ["console"]


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Raise, where rich would exit: `main` owns the exit code."""
        raise OutputGone from None


def console() -> Console:
    """Return a console for standard output, without markup: [fe80::1]:80 is an address."""
    return _Console(highlight=False, markup=False, emoji=False)
