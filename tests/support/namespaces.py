"""Programs with a network and a table of host names of their own.

Must never change anything outside the namespaces of such a program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# The first lines of a program in `alone`: its loopback is up.
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    SIOCSIFFLAGS, IFF_UP = 0x8914, 1
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
"""


def alone(folder: Path, hosts: str = "127.0.0.1 localhost\n") -> tuple[str, ...]:
    """The words before a program that runs in a network namespace, with this /etc/hosts."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    (folder / "hosts").write_text(hosts)
    (folder / "nsswitch.conf").write_text("hosts: files\nservices: files\n")
    mounts = " && ".join(
        f'mount --bind "{folder / name}" /etc/{name}' for name in ("hosts", "nsswitch.conf")
    )
    root = () if os.getuid() == 0 else ("--map-root-user",)
    prefix = (unshare, *root, "--mount", "--net", "sh", "-c", f'{mounts} && exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces of one's own here")
    return prefix
