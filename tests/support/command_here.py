"""The command line within the test's own interpreter, for commands that end with their arguments.

Owns how the exit code and the output are found. Must never run a command that serves, connects or
imports a module of a user: that is for a process of its own (`support.command_line`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsock._cli import main


def called(
    capsys: pytest.CaptureFixture[str], *args: str, cwd: Path | None = None
) -> tuple[int, str, str]:
    """Run a command to its end; return exit code, output, errors.

    A tenth of the time that a process takes, so that there can be many cases.
    """
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("LINES", "24")
        patch.chdir(cwd or os.getcwd())
        try:
            code: object = main(args)
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return code, *capsys.readouterr()
