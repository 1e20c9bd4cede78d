"""Answers the harness: for each line of standard input, a number of seconds, one figure.

The other end of this is `scenarios/asked.py`. Must never print anything else.
"""

import sys
from collections.abc import Callable


def answer(measure: Callable[[float], float]) -> None:
    """Prints that it is ready, then measures for each request, until standard input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(measure(float(line)), flush=True)
