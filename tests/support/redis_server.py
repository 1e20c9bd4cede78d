"""Debian's Redis as a process of a test. It must never keep anything on disk, nor take a port."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from .waiting import wait_until


@contextlib.contextmanager
def running_redis() -> Iterator[Path]:
    """The path of the socket that a Redis listens on; skips the test where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="rsock-") as folder:
        path = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        command = [program, *options, "--daemonize", "no", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(path.exists, 20.0)
                with redis.Redis(unix_socket_path=str(path)) as direct:
                    wait_until(direct.ping, 20.0)
                yield path
            finally:
                process.kill()
