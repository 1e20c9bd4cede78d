"""What is wrong with a server's own certificates, where its caller can do something about it.

It must never be loaded while nothing is wrong, nor report what a peer has done.
"""

import logging
from collections.abc import Callable, Sequence
from ssl import SSLError
from typing import Any, Final

from ._threads import log_turn

__all__ = ["report"]

logger: Final = logging.getLogger("rsock")


def report(name: str, faults: Sequence[str], on_error: str | Callable[[Any], object]) -> None:
    """Call `on_error` with an ssl.SSLError for each fault; log them where it is no function."""
    for fault in faults:
        text = f"{name}: {fault}, and clients refuse it"
        if callable(on_error):
            on_error(SSLError(text))
        else:
            with log_turn():
                logger.error("%s", text)
