"""JupyterLab as a process of its own, on a free port, with all of its files in one folder.

Must never read or write the user's Jupyter directories.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.processes import Beside
from support.project import TESTS
from support.waiting import wait_until

# JupyterLab takes seconds to start, and longer on a busy machine.
PATIENCE = 90.0

# What a new user has, but for what would ask another machine, and with a theme that follows the
# colour scheme of the browser.
SETTINGS = {
    "apputils-extension/themes": {
        "theme": "JupyterLab Light",
        "adaptive-theme": True,
        "preferred-light-theme": "JupyterLab Light",
        "preferred-dark-theme": "JupyterLab Dark",
    },
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # Also the cells that are outside the window are in the page.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


class Lab(Beside):
    """A server of JupyterLab. `url` opens it, and `folder` has its notebooks."""

    process: subprocess.Popen[bytes]

    def __init__(self, root: Path) -> None:
        self.folder = root / "notebooks"
        self.folder.mkdir()
        settings = root / "settings" / "@jupyterlab"
        for name, values in SETTINGS.items():
            file = settings / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        environment = {
            **os.environ,
            "HOME": str(root),
            "IPYTHONDIR": str(root / "ipython"),
            "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces"),
            "PYTHONPATH": str(TESTS),
        }
        for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
            environment["JUPYTER_" + name] = str(root / name.lower())
        self._token = secrets.token_hex(16)
        self.log = root / "lab.log"
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
            f"--ServerApp.root_dir={self.folder}",
            f"--IdentityProvider.token={self._token}",
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._answers, PATIENCE, "JupyterLab answers")
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
            raise RuntimeError(f"JupyterLab has ended: {self.log.read_text()[-2_000:]}")
        # The first port on which it listens is that of its pages: it has no kernel yet.
        for port in listening(self.process.pid):
            self.origin = f"http://127.0.0.1:{port}"
            with contextlib.suppress(OSError):
                status = f"{self.origin}/api/status?token={self._token}"
                with urllib.request.urlopen(status, timeout=PATIENCE) as answer:
                    return bool(answer.status == 200)
        return False

    @property
    def url(self) -> str:
        # `reset`: without the tabs of the page before.
        return f"{self.origin}/lab?reset&token={self._token}"

    def write(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook with these code cells; return its name."""
        book: dict[str, Any] = {
            "cells": [
                {
                    "cell_type": "code",
                    "execution_count": None,
                    "id": f"cell-{number}",
                    "metadata": {},
                    "outputs": [],
                    "source": cell,
                }
                for number, cell in enumerate(cells, 1)
            ],
            "metadata": {"kernelspec": {"display_name": "Python 3", "name": "python3"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.folder / name).write_text(json.dumps(book))
        return name


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
