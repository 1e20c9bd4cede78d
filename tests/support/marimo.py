"""marimo as a process of its own, which serves the notebooks of one folder.

Must never read or write the user's own settings of marimo.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from support.notebook_program import NotebookProgram
from support.project import TESTS


class Marimo(NotebookProgram):
    """`marimo run`. `origin` is its address; a notebook's page is `/?file=name.py`."""

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
        super().__init__(
            [*command, "--no-sandbox", str(folder)],
            folder=folder,
            environment=environment,
            log=root / "marimo.log",
            health="/health",
        )
