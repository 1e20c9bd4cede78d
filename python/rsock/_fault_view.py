"""The faults of a server or a client as a sequence that changes with them.

It keeps no list of its own: each call asks its owner. It must never act on traffic, nor know one
kind of fault from another.
"""

import functools
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, overload

from . import _rsock
from ._fault import Fault
from ._in_thread import in_thread
from ._printable import printable
from ._shown import Shown
from ._types import FaultCount

__all__ = ["FaultBlock", "FaultView"]


class _Owner(Protocol):
    """What has faults: a server, or a client."""

    @property
    def seed(self) -> int | None: ...
    def _add_fault(self, fault: Fault, level: int = 1) -> int: ...
    def _remove_faults(self, numbers: list[int]) -> int: ...
    def _list_faults(self) -> list[tuple[int, Fault, int, int]]: ...


class FaultView(Shown, Sequence[Fault]):
    """The faults of a server or a client, in the order in which they were added: a sequence.

    It shows the faults that its owner has at the time of each call. Any thread may change them,
    also while data flows: what a fault held that is removed goes on in order, and what had passed
    before a fault was added is not touched. A change raises StateError once the server has stopped.

    The same fault may be there several times, and then acts as often. Of several faults, the one
    that was added last is nearest to the service.
    """

    def __init__(self, owner: _Owner) -> None:
        self._owner = owner

    def add(self, fault: Fault) -> Fault:
        """Add a fault, and return it once it is in force on every open connection it concerns.

        Before the start of the server, it is in force from the first connection on. Ctrl-C ends the
        wait: the fault is then not there.

        With a handler or `Accept()` and without the argument `faults` of `Server`, faults act in a
        worker thread that passes the bytes of a connection on, which a connection has from its
        beginning or not at all. So the first fault concerns the connections that are accepted from
        then on, which also need three descriptors instead of one; a RuntimeWarning says how many
        open ones it does not reach. `Server(…, faults=[])` has it reach all of them. After the last
        fault was removed, connections are still accepted in this way.

        Blocks, with the interpreter released, until each thread of the server has noticed. Raises
        TypeError if it is no fault, ValueError if it can do nothing on the server's transport, and
        StateError once the server has stopped.
        """
        # A warning is of the code that called this method.
        self._owner._add_fault(fault, 2)
        return fault

    def remove(self, fault: Fault) -> None:
        """Remove a fault, and return once no connection has it; what it held goes on in order.

        Of several equal faults, the first one is removed; this very object comes first. Ctrl-C ends
        the wait: the fault is removed all the same.

        Blocks as `add` does. Raises ValueError if the fault is not there, and StateError once the
        server has stopped.
        """
        while True:
            listed = self._owner._list_faults()
            same = [number for number, other, _, _ in listed if other is fault]
            found = same or [number for number, other, _, _ in listed if other == fault]
            # Unless another thread removes this one first.
            if self._owner._remove_faults(found[:1]):
                return
            if not found:
                raise ValueError(f"{fault!r} is not one of the faults of {self._name()}")

    def clear(self) -> None:
        """Remove all faults, and return once no connection has one.

        Blocks, and raises StateError, as `remove` does.
        """
        self._owner._remove_faults([number for number, _, _, _ in self._owner._list_faults()])

    def counts(self) -> list[FaultCount]:
        """What each fault has done so far, in the order of the faults. Never blocks."""
        return [
            FaultCount(fault, connections, events)
            for _, fault, connections, events in self._owner._list_faults()
        ]

    def _name(self) -> str:
        # A client has none.
        name: str | None = getattr(self._owner, "name", None)
        return repr(self._owner) if name is None else name

    def _now(self) -> list[Fault]:
        return [fault for _, fault, _, _ in self._owner._list_faults()]

    @overload
    def __getitem__(self, index: int) -> Fault: ...
    @overload
    def __getitem__(self, index: slice) -> list[Fault]: ...
    def __getitem__(self, index: int | slice) -> Fault | list[Fault]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._owner._list_faults())

    def __iter__(self) -> Iterator[Fault]:
        """Iterate over the faults that are there now."""
        return iter(self._now())

    def __reversed__(self) -> Iterator[Fault]:
        return reversed(self._now())

    def __contains__(self, fault: object) -> bool:
        return fault in self._now()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FaultView | list | tuple):
            return self._now() == list(other)
        return NotImplemented

    # It changes, as a list does.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        try:
            text = f"{self._now()!r} of {self._name()}, seed {self._owner.seed}"
        except RuntimeError as error:
            # In a forked child.
            text = str(error)
        return f"<{type(self).__name__} {printable(text)}>"


class FaultBlock(_rsock.FaultBlock):
    """What `Server.fault` returns: `with` has the fault in force, and so does `async with`."""

    async def __aenter__(self) -> Fault:
        import asyncio  # Imported here, so that `import rsock` does not load it.

        entered: list[Fault] = []
        try:
            await in_thread(lambda: entered.append(self.__enter__()))
        except asyncio.CancelledError:
            # The fault may have been added all the same, and `__aexit__` will not be called.
            if entered:
                await in_thread(functools.partial(self.__exit__, None, None, None))
            raise
        except GeneratorExit:
            # The loop was abandoned meanwhile; nothing can be awaited any more.
            if entered:
                self.__exit__(None, None, None)
            raise
        return entered[0]

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await in_thread(functools.partial(self.__exit__, exc_type, exc, traceback))
