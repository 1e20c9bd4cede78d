"""Interrupts of the thread under test: by a signal while it is blocked in a call, or at one step.

Must never send a signal earlier: between two calls it would test something else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import rsock
from support.waiting import SOON, sleeping

_OURS = str(Path(rsock.__file__).parent)


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


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th step of rsock's Python code in this thread.

    A step is a point where Python checks for signals: the entry of a Python function, and the
    return of a compiled one.
    """

    def __init__(self, step: int) -> None:
        self._left = step

    def __enter__(self) -> InterruptAt:
        self._before = sys.getprofile()
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(_OURS):
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt

    @property
    def happened(self) -> bool:
        return self._left <= 0
