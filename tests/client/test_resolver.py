"""A name server that does not answer delays no time-out, no Ctrl-C, and no program's end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support import run_script

# Runs in a network namespace in which the only name server never answers.
SILENT = """
import fcntl, os, signal, socket, struct, threading, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    SIOCSIFFLAGS, IFF_UP = 0x8914, 1
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
from rsock import Client, Server

began = time.monotonic()
try:
    Client("slow.test", 80, timeout=0.2)
except TimeoutError:
    print("timeout", 0.15 < time.monotonic() - began < 4.0)

def interrupt():
    names.recv(1000)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

while True:
    try:
        names.recv(1000, socket.MSG_DONTWAIT)
    except BlockingIOError:
        break
for call in (lambda: Client("slow.test", 80), Server("slow.test").start):
    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 4.0)
    thread.join()
with Server() as server, server.client(timeout=5) as client:
    client.sendall(b"hello")
    print(client.recv_exactly(5).decode(), flush=True)
"""


def test_a_silent_name_server_holds_up_nothing(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\nservices: files\n")
    root = () if os.getuid() == 0 else ("--map-root-user",)
    mounts = " && ".join(
        f'mount --bind "{tmp_path / name}" /etc/{name}' for name in ("resolv.conf", "nsswitch.conf")
    )
    prefix = (unshare, *root, "--mount", "--net", "sh", "-c", f'{mounts} && exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts and networks of one's own here")
    began = time.monotonic()
    done = run_script(SILENT, prefix=prefix)
    took = time.monotonic() - began
    assert done.stdout.splitlines() == [
        "timeout True",
        "interrupted True",
        "interrupted True",
        "hello",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    # The resolver itself gives up only after ten seconds or more.
    assert took < 9.0
