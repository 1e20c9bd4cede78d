"""A Python thread that never sleeps and never releases the interpreter voluntarily.

Run as a program, it is a process that spins on demand. Must never spin unless asked.
"""

import sys
import threading
from types import TracebackType
from typing import Self


class Spinner:
    """Spins inside its `with` block."""

    def __enter__(self) -> Self:
        self._over = False
        self._thread = threading.Thread(target=self._spin, name="spinner", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        self._thread.join()

    def _spin(self) -> None:
        while not self._over:
            pass


def obey() -> None:
    """Spins from each line `spin` to the next line `rest`, until standard input ends."""
    for line in sys.stdin:
        if line.strip() == "spin":
            with Spinner():
                print("spinning", flush=True)
                sys.stdin.readline()
        print("at rest", flush=True)


if __name__ == "__main__":
    print("ready", flush=True)
    obey()
