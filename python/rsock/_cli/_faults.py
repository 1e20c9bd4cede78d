"""The faults of a run: which of them are on, and what they have done.

It adds and removes faults of the servers of one run. It must never read a key, nor print.
"""

import contextlib
import inspect
import shlex
import textwrap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .._display._units import count
from .._exceptions import StateError
from .._fault import Fault
from .._server import Server
from ._fields import screen_width

__all__ = ["Faults", "Switch", "explained"]

_ABOUT: Final = """\
  --fault FAULT  a fault; can be given several times
  --preset NAME  the faults of a kind of network, as listed below
  --seed N       the seed of their random numbers; without it one is drawn, and shown

A FAULT is a kind with its parameters: latency:0.2±0.05, in ASCII latency:0.2+-0.05.
Times are in seconds or have a unit (ms, s, min), sizes in bytes or KiB, MiB, KB, MB.
Behind commas, what it concerns: up (what the client sends), down or both;
probability=0.5; connections=3 (the first three); id=2+5 (these); when=2..5 (seconds).
"""


def explained() -> str:
    """Return a text for the screen with the kinds of faults, and the presets."""
    from ..faults._presets import described
    from ..faults._text import EXAMPLES, KINDS

    kinds = {}
    for example in EXAMPLES:
        doc = inspect.getdoc(KINDS[example.partition(":")[0]]) or ""
        kinds[example] = " ".join(doc.partition("\n\n")[0].split()).partition(". ")[0]
    return "\n".join([_ABOUT, *_listed(kinds), "", "presets:", *_listed(described())])


def _listed(texts: dict[str, str]) -> list[str]:
    width = max(map(len, texts)) + 4
    lines = []
    for name, text in texts.items():
        first, *rest = textwrap.wrap(text, max(20, screen_width() - width)) or [""]
        lines += [f"  {name:{width - 2}}{first}", *(" " * width + line for line in rest)]
    return lines


class Switch(NamedTuple):
    """A fault as it is shown."""

    text: str
    on: bool
    done: str


@dataclass
class _Installed:
    """A fault at one server; it has no number while it is off."""

    number: int | None
    # What it has done before it was last switched off.
    connections: int = 0
    events: int = 0


class Faults:
    """The faults that were given to the servers of a run, all with the same."""

    def __init__(self, servers: Sequence[Server], words: Sequence[str]) -> None:
        self._servers = servers
        self._words = words
        self._lock = threading.Lock()
        listed = [server._list_faults() for server in servers]
        self._faults: list[Fault] = [fault for _, fault, _, _ in listed[0]]
        self._installed = [[_Installed(number) for number, *_ in each] for each in listed]

    def __len__(self) -> int:
        return len(self._faults)

    def texts(self) -> list[str]:
        """Return the text of each fault."""
        return [str(fault) for fault in self._faults]

    @property
    def seed(self) -> int:
        """The seed of their random numbers."""
        return self._servers[0].seed

    def toggle(self, index: int) -> None:
        """Switch a fault on or off, at all servers. Blocks until all connections have changed.

        A server that does not serve is left as it is.
        """
        on = any(each[index].number is not None for each in self._installed)
        for server, each in zip(self._servers, self._installed, strict=True):
            with contextlib.suppress(StateError):
                if on:
                    self._remove(server, each[index])
                elif each[index].number is None:
                    number = server._add_fault(self._faults[index])
                    with self._lock:
                        each[index].number = number

    def _remove(self, server: Server, one: _Installed) -> None:
        if one.number is None:
            return
        connections, events = _counts(server).get(one.number, (0, 0))
        server._remove_faults([one.number])
        with self._lock:
            one.number = None
            one.connections += connections
            one.events += events

    def of(self, server: Server) -> list[Switch]:
        """Return the faults of one server, with what they have done there."""
        return self._switches([self._servers.index(server)])

    def all(self) -> list[Switch]:
        """Return the faults, with what they have done at all servers."""
        return self._switches(range(len(self._servers)))

    def _switches(self, places: Sequence[int]) -> list[Switch]:
        counts = {place: _counts(self._servers[place]) for place in places}
        switches = []
        with self._lock:
            for index, fault in enumerate(self._faults):
                on, connections, events = False, 0, 0
                for place in places:
                    one = self._installed[place][index]
                    now = (0, 0) if one.number is None else counts[place].get(one.number, (0, 0))
                    on = on or one.number is not None
                    connections += one.connections + now[0]
                    events += one.events + now[1]
                done = f"{count(connections, 'connection')}, {count(events, 'event')}"
                switches.append(Switch(str(fault), on, done))
        return switches

    def again(self) -> str:
        """Return the command that has the same faults again."""
        words = list(self._words)
        if not any(word == "--seed" or word.startswith("--seed=") for word in words):
            # Before a "--", behind which everything is an address.
            words[1:1] = ["--seed", str(self.seed)]
        return shlex.join(["rsock", *words])


def _counts(server: Server) -> dict[int, tuple[int, int]]:
    """Connections and events of the faults that are there, by their numbers."""
    return {
        number: (connections, events) for number, _, connections, events in server._list_faults()
    }
