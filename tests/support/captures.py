"""What tshark and tcpdump read in a packet capture.

Must never parse a packet itself.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

# Long, because the machine may be busy, and tshark takes a second to start.
PATIENCE = 60.0
needs_tools = pytest.mark.skipif(
    not (shutil.which("tshark") and shutil.which("tcpdump")),
    reason="tshark or tcpdump is not installed",
)
# Checksums are not checked by default, because network cards fill them in.
CHECKED = [
    word for layer in ("ip", "tcp", "udp") for word in ("-o", f"{layer}.check_checksum:TRUE")
]
# What tells users of the name root off, whatever they read.
_ROOT = "Running as user"


def output(*command: str) -> str:
    """The output of a program that had nothing to complain of."""
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    errors = [line for line in done.stderr.decode().splitlines() if _ROOT not in line]
    assert (done.returncode, [each for each in errors if not each.startswith("reading ")]) == (
        0,
        [],
    )
    return done.stdout.decode()


def fields(path: Path, *names: str, where: str = "") -> list[list[str]]:
    """The fields of each packet that a display filter of tshark selects."""
    words = [word for name in names for word in ("-e", name)]
    filters = ["-Y", where] if where else []
    text = output("tshark", "-n", "-r", str(path), *CHECKED, *filters, "-T", "fields", *words)
    return [line.split("\t") for line in text.splitlines()]


def followed(path: Path, stream: int = 0) -> tuple[list[str], list[tuple[str, bytes]]]:
    """The two ends of a stream, and what each of them sent: "up" is that of the client."""
    rule = f"follow,tcp,raw,{stream}"
    lines = output("tshark", "-n", "-r", str(path), "-q", "-z", rule).splitlines()
    ends = [line.partition(": ")[2] for line in lines if line.startswith("Node ")]
    data = [line for line in lines if line and not line.startswith(("=", "Follow", "Filter", "N"))]
    return ends, [
        ("down" if line.startswith("\t") else "up", bytes.fromhex(line.strip())) for line in data
    ]


def assert_flawless(path: Path) -> None:
    """Neither tool finds a wrong checksum, a gap, or bytes that come twice."""
    assert fields(path, "frame.number", "frame.protocols", where="tcp.analysis.flags") == []
    for layer in ("ip", "tcp", "udp"):
        states = fields(path, f"{layer}.checksum.status", where=layer)
        assert {state for [state] in states} <= {"1"}, layer
    text = output("tcpdump", "-nn", "-vv", "-r", str(path))
    assert "correct" in text or "udp sum ok" in text
    for wrong in ("incorrect", "bad cksum", "bad udp", "truncated-ip"):
        assert wrong not in text, text
