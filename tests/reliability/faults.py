"""Faults that the suite's servers have besides what a scenario does: the option `--faults`.

Owns how the option reaches the processes of a scenario. Must never choose a fault.
"""

import os
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from rsock.faults import Fault

# Inherited by the processes of the servers.
VARIABLE = "RSOCK_RELIABILITY_FAULTS"
SEPARATOR = "; "


class Faulty(TypedDict, total=False):
    """Arguments of a server that has the faults."""

    faults: "list[Fault]"
    seed: int


def put_in_force(texts: list[str]) -> None:
    """Give the servers of the scenarios these faults. Raises ValueError for a text that is none."""
    from rsock.faults import parse

    for text in texts:
        parse(text)
    os.environ[VARIABLE] = SEPARATOR.join(texts)


def in_force() -> str:
    """The faults of this run as text; "" for none."""
    return os.environ.get(VARIABLE, "")


def faulty() -> Faulty:
    """The arguments of a server: `Server(…, **faulty())`. Nothing without the option."""
    if not (texts := in_force()):
        return {}
    from rsock.faults import parse

    return {"faults": [parse(text) for text in texts.split(SEPARATOR)], "seed": 19}
