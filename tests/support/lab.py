"""JupyterLab as a process of its own, on a free port, with all of its files in one folder.

Must never read or write the user's Jupyter directories.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.notebook_program import NotebookProgram
from support.project import TESTS

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


class Lab(NotebookProgram):
    """A server of JupyterLab. `url` opens it, and `folder` has its notebooks."""

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
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
            f"--ServerApp.root_dir={self.folder}",
            f"--IdentityProvider.token={self._token}",
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
        ]
        super().__init__(
            command,
            folder=self.folder,
            environment=environment,
            log=root / "lab.log",
            health=f"/api/status?token={self._token}",
        )

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


def in_scheme(page: Any, scheme: str) -> None:
    """Give the page the colour scheme "light" or "dark"; in JupyterLab, wait until it is seen."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        "light => !window.jupyterapp || document.body.dataset.jpThemeLight === light",
        arg=str(scheme == "light").lower(),
    )
    # It covers the page while a theme is loaded, and for a moment after.
    page.locator("#jupyterlab-splash").wait_for(state="detached")
