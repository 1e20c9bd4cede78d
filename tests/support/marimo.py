"""marimo as a process of its own, which serves the notebooks of one folder.

Must never read or write the user's own settings of marimo.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from support.lab import PATIENCE, listening
from support.processes import Beside
from support.project import TESTS
from support.waiting import wait_until


class Marimo(Beside):
    """`marimo run`. `origin` is its address; a notebook's page is `/?file=name.py`."""

    process: subprocess.Popen[bytes]

    def __init__(self, root: Path, notebooks: dict[str, str]) -> None:
        folder = root / "notebooks"
        folder.mkdir()
        for name, text in notebooks.items():
            (folder / name).write_text(text)
        environment = {**os.environ, "HOME": str(root), "PYTHONPATH": str(TESTS)}
        for name in ("CONFIG", "STATE", "CACHE", "DATA"):
            environment[f"XDG_{name}_HOME"] = str(root / name.lower())
        # Without a port, it takes one that is free.
        command = [sys.executable, "-m", "marimo", "run", "--headless", "--no-token"]
        self.log = root / "marimo.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--no-sandbox", str(folder)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._answers, PATIENCE, "marimo answers")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        # On SIGTERM it ends its kernels.
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        super().__exit__()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"marimo has ended: {self.log.read_text()[-2_000:]}")
        for port in listening(self.process.pid):
            self.origin = f"http://127.0.0.1:{port}"
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"{self.origin}/health", timeout=PATIENCE) as answer:
                    return bool(answer.status == 200)
        return False
