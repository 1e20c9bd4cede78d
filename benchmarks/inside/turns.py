"""Answers the harness: for each line of standard input, a number of seconds, one figure.

The other end of this is `scenarios/asked.py`. Must never print anything else.
"""

import statistics
import sys
from collections.abc import Callable
from time import perf_counter

# Enough for a median, even in a short time.
CYCLES = 3


def answer(measure: Callable[[float], float]) -> None:
    """Prints that it is ready, then measures for each request, until standard input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(measure(float(line)), flush=True)


def answer_with_median(cycle: Callable[[], object]) -> None:
    """Answers with the median of as many cycles as fit into the time, in milliseconds."""

    def measure(seconds: float) -> float:
        times: list[float] = []
        end = perf_counter() + seconds
        while (begin := perf_counter()) < end or len(times) < CYCLES:
            cycle()
            times.append((perf_counter() - begin) * 1e3)
        return statistics.median(times)

    answer(measure)
