"""HAProxy, nginx and socat as forwarders, each configured as its manual suggests.

`foreign_forward haproxy|nginx|socat TARGET [FOLDER]`: prints a port and becomes the program, which
listens there, by TLS with the certificate in the folder. Must never stay in the path of the data:
from then on the process is that program's.

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
    bind 127.0.0.1:{port} backlog 4096 {tls}
    server target 127.0.0.1:{target}
"""
HAPROXY_TLS = "ssl crt {folder}/both.pem"

# One process, which does the work itself.
NGINX = """
daemon off;
master_process off;
pid {scratch}.pid;
error_log stderr crit;
load_module {module};
worker_rlimit_nofile 20000;
events {{ worker_connections 12000; }}
stream {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} {listen} backlog=4096;
        {tls}
        proxy_pass 127.0.0.1:{target};
    }}
}}
"""
NGINX_TLS = """ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;"""
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
LISTEN = "0A"  # the state in /proc/net/tcp


def listens(port: int) -> bool:
    """Whether a socket listens on the port.

    Does not connect, because the program would forward that.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(f":{port:04X}" in line.split()[1] and line.split()[3] == LISTEN for line in lines)


def _command(program: str, port: int, target: int, folder: str) -> tuple[list[str], str]:
    """The command, and the file with its configuration."""
    if program == "socat":
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096"
        return ["socat", listen, f"TCP:127.0.0.1:{target},nodelay"], ""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg", delete=False) as file:
        if program == "haproxy":
            tls = HAPROXY_TLS.format(folder=folder) if folder else ""
            file.write(HAPROXY.format(port=port, target=target, tls=tls))
            return ["haproxy", "-db", "-q", "-f", file.name], file.name
        text = NGINX.format(
            port=port,
            target=target,
            listen="ssl" if folder else "",
            tls=NGINX_TLS.format(folder=folder) if folder else "",
            module=STREAM_MODULE,
            scratch=file.name,
        )
        file.write(text)
        return ["nginx", "-e", "stderr", "-c", file.name], file.name


def main(program: str, target: int, folder: str = "") -> None:
    # Held until just before the program binds it.
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    command, scratch = _command(program, port, target, folder)
    group = os.getpgid(0)
    if os.fork() == 0:
        os.setpgid(0, 0)
        while not listens(port):
            time.sleep(0.01)
        print(port, flush=True)
        while os.read(sys.stdin.fileno(), 4096):
            pass
        for path in (scratch, f"{scratch}.pid"):
            with contextlib.suppress(OSError):
                os.unlink(path)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        os._exit(0)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
