"""Debian's PostgreSQL as a process of a test, which it runs as a user that is not root. It must
never keep its data when the test is over.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pg8000.native  # type: ignore[import-untyped]
import pytest

from rsock import TLS

from .peers import closed_port
from .waiting import wait_until

# The name of its user and of its database.
USER, DATABASE = "test", "postgres"


def _program(name: str) -> str:
    """A program of PostgreSQL, which Debian keeps out of the path."""
    found = shutil.which(name)
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    program = found or next((str(each / name) for each in folders if (each / name).exists()), None)
    if program is None:
        pytest.skip("PostgreSQL is not installed")
    return program


def _is_ready(path: Path) -> bool:
    with contextlib.suppress(Exception):
        pg8000.native.Connection(USER, unix_sock=str(path), database=DATABASE).close()
        return True
    return False


@contextlib.contextmanager
def running_postgresql(tls: TLS | None = None) -> Iterator[tuple[Path, int]]:
    """The path of the socket that a PostgreSQL listens on, and its port of 127.0.0.1.

    There is no such port without `tls`, which has the certificate of the server. Skips the test
    where PostgreSQL is not installed.
    """
    initdb, server = _program("initdb"), _program("postgres")
    user: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rsock-") as name:
        folder = Path(name)
        options = ["listen_addresses=", "fsync=off"]
        # It takes no port 0. The name of its socket has the port, too.
        port = 5432
        if tls is not None:
            with closed_port() as address:
                port = address[1]
            (folder / "cert.pem").write_text(tls.cert_pem)
            (folder / "key.pem").write_text(tls.key_pem)
            (folder / "key.pem").chmod(0o600)
            options = ["listen_addresses=127.0.0.1", "fsync=off", "ssl=on"]
            options += [f"ssl_cert_file={folder}/cert.pem", f"ssl_key_file={folder}/key.pem"]
        if os.geteuid() == 0:
            daemon = pwd.getpwnam("daemon")
            user = {"user": daemon.pw_uid, "group": daemon.pw_gid, "extra_groups": []}
            for each in (folder, *folder.iterdir()):
                os.chown(each, daemon.pw_uid, daemon.pw_gid)
        data = str(folder / "data")
        subprocess.run(
            [initdb, "-D", data, "-A", "trust", "-U", USER, "--no-sync", "--no-locale"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **user,
        )
        command = [server, "-D", data, "-k", name, "-p", str(port)]
        for option in options:
            command += ["-c", option]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=folder, **user) as process:
            try:
                path = folder / f".s.PGSQL.{port}"
                wait_until(lambda: _is_ready(path), 30.0)
                yield path, port
            finally:
                process.terminate()
