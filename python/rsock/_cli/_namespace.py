"""What was typed, as a command gets it.

This file owns the values that every command has. It must not know how they are parsed; the values
of one command are in its own file, as a subclass.
"""

import argparse
from collections.abc import Callable
from typing import Any

__all__ = ["Arguments"]


class Arguments(argparse.Namespace):
    """The arguments of one run."""

    # The function `run` of the command's file, which takes these arguments.
    command: Callable[[Any], int]
    # The words that were typed, after `rsock`.
    words: list[str]
    # The file of options.
    config: str | None
