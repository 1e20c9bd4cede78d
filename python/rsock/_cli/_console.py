"""The console of rich that commands print to. Must never decide what is printed."""

from typing import NoReturn

from rich.console import Console

from ._errors import OutputGone

__all__ = ["console"]


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave the exit code to whoever runs the command."""
        raise OutputGone from None


def console() -> Console:
    """Standard output; what is printed is taken as it is: [fe80::1]:80 is an address, no markup."""
    return _Console(highlight=False, markup=False, emoji=False)
