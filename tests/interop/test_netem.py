"""The recipe of `examples/netem.sh`: what cannot be had above TCP, by the kernel's own means."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from support.project import ROOT

RECIPE = ROOT / "examples" / "netem.sh"
LONG = 60.0
# Its exit code where the kernel or the container lacks something.
NOT_HERE = 77

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("unshare", "ip", "tc"))), reason="unshare, ip and tc are needed"
)

# An echo of `size` bytes: the time that it took, and the segments that were sent again.
ECHO = """
import sys, time
from rsock import Server
size = int(sys.argv[1])
with Server() as server, server.client(timeout=50) as client:
    client.sendall(b"x")
    client.recv_exactly(1)
    began = time.monotonic()
    client.sendall(bytes(size))
    assert client.recv_exactly(size) == bytes(size)
    print(time.monotonic() - began)
    sent = [client.tcp_info, server.ledger.open[0].tcp_info]
    print(sum(info.bytes_retransmitted for info in sent))
"""


def run(*words: str, qdisc: str = "netem") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RECIPE, *words],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        env=os.environ | {"QDISC": qdisc},
    )


def echo(*words: str, size: int, qdisc: str = "netem") -> tuple[float, int]:
    """The time of an echo under a discipline, and the bytes sent again. Skips without one."""
    done = run(*words, "--", sys.executable, "-c", ECHO, str(size), qdisc=qdisc)
    if done.returncode == NOT_HERE:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    seconds, again = done.stdout.split()
    return float(seconds), int(again)


def test_a_rate_holds_for_both_directions_together() -> None:
    # 4 Mbit/s are 500 kB/s; each byte passes the loopback twice.
    seconds, _ = echo("rate", "4mbit", "burst", "10kb", "latency", "1s", size=100_000, qdisc="tbf")
    assert seconds >= 0.3


def test_a_delay_applies_to_each_direction() -> None:
    seconds, _ = echo("delay", "50ms", size=100)
    assert seconds >= 0.1


def test_lost_segments_are_sent_again() -> None:
    _, again = echo("loss", "10%", size=1_000_000)
    assert again > 0


def test_a_kind_that_the_kernel_lacks_is_named_and_nothing_runs() -> None:
    done = run("--", "echo", "ran", qdisc="nosuchkind")
    assert done.returncode == NOT_HERE
    assert done.stdout == ""
    assert done.stderr


@pytest.mark.parametrize("words", [(), ("delay", "1ms"), ("delay", "1ms", "--")])
def test_a_command_is_needed(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_the_exit_code_is_that_of_the_command() -> None:
    done = run(
        "rate", "1gbit", "burst", "1mb", "latency", "1s", "--", "sh", "-c", "exit 3", qdisc="tbf"
    )
    if done.returncode == NOT_HERE:
        pytest.skip(done.stderr)
    assert done.returncode == 3
