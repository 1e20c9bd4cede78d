"""A program that serves notebooks to a browser, as a process of its own.

Owns how it is started, waited for and ended. Must never know what the pages show.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.processes import Beside
from support.waiting import wait_until

# Such a program takes seconds to start, and longer on a busy machine.
PATIENCE = 90.0


class NotebookProgram(Beside):
    """`origin` is its address. It has started when `health`, a page without content, is there."""

    process: subprocess.Popen[bytes]
    origin: str

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        health: str,
    ) -> None:
        self._log, self._health = log, health
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._answers, PATIENCE, "it answers")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        # On SIGTERM it ends its kernels, which would outlive a SIGKILL.
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        super().__exit__()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"it has ended: {self._log.read_text()[-2_000:]}")
        # The first port on which it listens is that of its pages: it has no kernel yet.
        for port in listening(self.process.pid):
            self.origin = f"http://127.0.0.1:{port}"
            with contextlib.suppress(OSError):
                page = f"{self.origin}{self._health}"
                with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
                    return bool(answer.status == 200)
        return False


def listening(pid: int) -> list[int]:
    """The TCP ports on which a process listens."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(entry.path).removeprefix("socket:[").removesuffix("]"))
    ports = []
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            # 0A is LISTEN.
            if fields[3] == "0A" and fields[9] in inodes:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports
