"""Behind HAProxy and nginx, a server sees the clients of the proxy."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import dial, says_back, wait_until

from rsock import Echo, Forward, Server

HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen proxied
    bind 127.0.0.1:{port}
    unique-id-format rsock-%ci-%cp
    server one 127.0.0.1:{target} {options}
"""

NGINX = """
{load}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 100; }}
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass 127.0.0.1:{target};
        proxy_protocol on;
    }}
}}
"""
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(folder: Path, port: int, *command: str) -> Iterator[None]:
    """A proxy that listens on a port."""
    output = folder / "output"
    with (
        output.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT) as process,
    ):
        try:

            def listens() -> bool:
                assert process.poll() is None, output.read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    return True
                return False

            wait_until(listens)
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def haproxy(folder: Path, target: int, options: str) -> Iterator[tuple[str, int]]:
    binary = shutil.which("haproxy")
    if binary is None:
        pytest.skip("haproxy is not installed")
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, target=target, options=options))
    with running(folder, port, binary, "-db", "-f", str(config)):
        yield "127.0.0.1", port


@contextlib.contextmanager
def nginx(folder: Path, target: int, _options: str) -> Iterator[tuple[str, int]]:
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if binary is None or not STREAM_MODULE.exists():
        pytest.skip("nginx, or its stream module, is not installed")
    port = free_port()
    config = folder / "nginx.conf"
    load = f"load_module {STREAM_MODULE};"
    config.write_text(NGINX.format(load=load, folder=folder, port=port, target=target))
    command = (binary, "-c", str(config), "-e", str(folder / "error.log"))
    with running(folder, port, *command):
        yield "127.0.0.1", port


def shout(conn: Any) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


@pytest.mark.parametrize("service", [Echo(), shout], ids=["echo", "handler"])
@pytest.mark.parametrize(
    ("proxy", "options", "version"),
    [
        (haproxy, "send-proxy", 1),
        (haproxy, "send-proxy-v2", 2),
        (haproxy, "send-proxy-v2 proxy-v2-options crc32c,unique-id", 2),
        (nginx, "", 1),
    ],
    ids=["haproxy", "haproxy v2", "haproxy v2 crc32c", "nginx"],
)
def test_the_clients_of_a_real_proxy_are_the_peers(
    proxy: Any, options: str, version: int, service: Any, tmp_path: Path
) -> None:
    with (
        Server(service=service, proxy_protocol=["127.0.0.1"]) as server,
        proxy(tmp_path, server.port, options) as address,
    ):
        # The connection that has found the proxy listening.
        before = server.ledger.wait(open=0)
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(dial(address)) for _ in range(5)]
            for number, peer in enumerate(peers):
                peer.sendall(b"%d" % number)
                assert peer.recv(10) == b"%d" % number
            own = {peer.getsockname() for peer in peers}
            # HAProxy's next connection may be the late one that it made for the first.
            seen = {record.remote.address for record in server.ledger.open}
            assert own <= seen
            found = [it for it in server.ledger.open if it.remote.address in own]
            assert {header.version for it in found if (header := it.proxy_header)} == {version}
            assert {it.proxy.host for it in found if it.proxy} == {"127.0.0.1"}
        server.ledger.wait(open=0, closed=len(before) + 5)
        assert server.ledger.totals.proxy_errors == 0


@pytest.mark.parametrize("service", [Echo(), shout], ids=["echo", "handler"])
@pytest.mark.parametrize(
    ("proxy", "options"),
    [(haproxy, "send-proxy"), (haproxy, "send-proxy-v2"), (nginx, "")],
    ids=["haproxy", "haproxy v2", "nginx"],
)
def test_a_header_that_a_proxys_client_forges_is_data(
    proxy: Any, options: str, service: Any, tmp_path: Path
) -> None:
    forged = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"
    with (
        Server(service=service, proxy_protocol=["127.0.0.1"]) as server,
        proxy(tmp_path, server.port, options) as address,
    ):
        with dial(address) as peer:
            # Together with the first bytes.
            assert says_back(peer, forged + b"x" * 100_000)
            own = peer.getsockname()
        server.ledger.wait(open=0)
        assert own in {record.remote.address for record in server.ledger}
        assert ("192.0.2.7", 1234) not in {record.remote.address for record in server.ledger}
        assert server.ledger.totals.proxy_errors == 0


def test_the_health_checks_of_haproxy_are_served(tmp_path: Path) -> None:
    options = "send-proxy-v2 check check-send-proxy inter 50ms"
    with (
        Server(service=shout, proxy_protocol=["127.0.0.1"]) as server,
        haproxy(tmp_path, server.port, options) as address,
    ):
        server.ledger.wait(closed=3)
        with dial(address) as peer:
            peer.sendall(b"x")
            assert peer.recv(1) == b"x"
        assert server.ledger.totals.proxy_errors == 0


def test_a_forwarder_passes_on_what_haproxy_has_said(tmp_path: Path) -> None:
    options = "send-proxy-v2 proxy-v2-options crc32c,unique-id"
    with (
        Server(service=Echo(), proxy_protocol=["127.0.0.1"]) as target,
        Server(
            service=Forward(*target.address, proxy_protocol="v2"), proxy_protocol=["127.0.0.1"]
        ) as forwarder,
        haproxy(tmp_path, forwarder.port, options) as address,
    ):
        with dial(address) as peer:
            peer.sendall(b"x")
            assert peer.recv(1) == b"x"
            host, port = peer.getsockname()
            [record] = [it for it in target.ledger.open if it.remote.address == (host, port)]
            [before] = [it for it in forwarder.ledger.open if it.remote.address == (host, port)]
            assert before.proxy_header is not None
            assert record.proxy_header is not None
            assert record.proxy_header.unique_id == f"rsock-{host}-{port}".encode()
            # All but the checksum of the header itself.
            checksum = 0x03
            kept = tuple(each for each in before.proxy_header.tlvs if each[0] != checksum)
            assert len(kept) == len(before.proxy_header.tlvs) - 1
            assert record.proxy_header.tlvs == kept
