"""HAProxy and socat as forwarders, each configured as its manual suggests.

`foreign_forward haproxy|socat TARGET`: prints a port and becomes the program, which listens there.
Must never stay in the path of the data: from then on the process is that program's.

A foreign program does not end with its standard input, so a second process waits for that end and
then ends the program.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

# One thread, as the others have; TCP mode; splicing where HAProxy expects it to be faster.
HAPROXY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    option splice-auto
listen forward
    bind 127.0.0.1:{port} backlog 4096
    server target 127.0.0.1:{target}
"""
LISTEN = "0A"  # the state in /proc/net/tcp


def listens(port: int) -> bool:
    """Whether a socket listens on the port.

    Does not connect, because the program would forward that.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(f":{port:04X}" in line.split()[1] and line.split()[3] == LISTEN for line in lines)


def main(program: str, target: int) -> None:
    # Held until just before the program binds it.
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    scratch = ""
    if program == "haproxy":
        with tempfile.NamedTemporaryFile("w", suffix=".cfg", delete=False) as file:
            file.write(HAPROXY.format(port=port, target=target))
        scratch = file.name
        command = ["haproxy", "-db", "-q", "-f", scratch]
    else:
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096"
        command = ["socat", listen, f"TCP:127.0.0.1:{target},nodelay"]
    group = os.getpgid(0)
    if os.fork() == 0:
        os.setpgid(0, 0)
        while not listens(port):
            time.sleep(0.01)
        print(port, flush=True)
        while os.read(sys.stdin.fileno(), 4096):
            pass
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        os._exit(0)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
