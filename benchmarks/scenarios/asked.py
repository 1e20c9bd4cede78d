"""Turns measured by a separate process, which receives the seconds and answers with the figure.

The other end of this is `inside/turns.py`. Must never measure anything itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.children import Child
from harness.contest import Turn

WARM_UP = 0.1


@contextmanager
def asked(command: list[str], core: int | None = None) -> Iterator[Turn]:
    with Child(command, core) as child:

        def turn(seconds: float) -> float:
            return float(child.ask(str(seconds)))

        turn(WARM_UP)
        yield turn
