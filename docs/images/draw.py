"""Draws the pictures of the docs from real runs: `.venv/bin/python docs/images/draw.py`.

Owns what the pictures show; must never define how a display looks. A command runs in a terminal of
80 columns (tmux), and rich converts the screen to SVG. Requires tmux, and overwrites the pictures
in this folder.
"""

import contextlib
import io
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rsock import Client

HERE = Path(__file__).parent
COLUMNS, LINES = 80, 16
SESSION = "rsock-picture"
PATIENCE = 20.0


def tmux(*words: str) -> str:
    # A separate tmux server, which reads no configuration file.
    command = ["tmux", "-L", SESSION, "-f", "/dev/null", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[None]:
    """A terminal that runs `rsock` with these arguments."""
    command = shlex.join([sys.executable, "-m", "rsock", *arguments])
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(LINES), command)
    try:
        yield
    finally:
        tmux("kill-server")


def until(pattern: str) -> re.Match[str]:
    """Wait until the screen shows the pattern."""
    end = time.monotonic() + PATIENCE
    while (found := re.search(pattern, tmux("capture-pane", "-p"))) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{pattern!r} is not on the screen")
        time.sleep(0.05)
    return found


def draw(name: str, title: str) -> None:
    """Save the current screen as a picture."""
    shown = Text.from_ansi(tmux("capture-pane", "-e", "-p").rstrip("\n"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    # With a fixed id, the same screen gives the same file.
    svg = console.export_svg(title=title, unique_id=name)
    # A picture must not make a page load fonts from other hosts.
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)
    lines = (line.rstrip() for line in svg.splitlines())
    (HERE / f"{name}.svg").write_text("\n".join(lines) + "\n")


def main() -> None:
    with terminal("echo", "8080"), contextlib.ExitStack() as stack:
        until("serving")
        for size in (5, 1_460, 300, 64_000, 2_000_000):
            client = stack.enter_context(Client("127.0.0.1", 8080))
            for begin in range(0, size, 1_000):
                part = bytes(min(1_000, size - begin))
                client.sendall(part)
                client.recv_exactly(len(part))
            if size in (300, 64_000):
                client.close()
        Client("127.0.0.1", 8080).abort()
        until("6 accepted = 3 open")
        until(r"for [2-9]\.\d\d s")
        draw("echo", "rsock echo 8080")


if __name__ == "__main__":
    main()
