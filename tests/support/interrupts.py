"""A signal that arrives while the main thread is blocked in the call under test.

Must never send the signal earlier: between two calls it would test something else.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from support.waiting import SOON, sleeping


class Signal:
    """Sends a signal to the main thread once it is blocked in the call under test.

    `with Signal(SIGUSR1) as sent: call()`; afterwards `sent.after` is how long the call continued
    after the signal.
    """

    def __init__(self, number: signal.Signals = signal.SIGUSR1, times: int = 1) -> None:
        assert threading.current_thread() is threading.main_thread()
        self._number = number
        self._times = times
        self._main = threading.main_thread().native_id
        self._left = threading.Event()
        self._sent_at: float | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.after = float("inf")

    def _send(self) -> None:
        for _ in range(self._times):
            while not sleeping(self._main):
                if self._left.is_set():
                    return
            self._sent_at = time.monotonic()
            os.kill(os.getpid(), self._number)

    def __enter__(self) -> Signal:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        self._left.set()
        self._thread.join(SOON)
        if self._sent_at is not None:
            self.after = now - self._sent_at
