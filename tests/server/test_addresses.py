"""IPv4, IPv6, both on one port, and names with several addresses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import LOOPBACK, dial, has_ipv6, output_of, says_back
from support.namespaces import LOOPBACK_UP, alone

from rsock import Client, Endpoint, Server, SocketOptions

ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def test_a_server_over_ipv4() -> None:
    with Server("127.0.0.1") as server, dial(server.address) as peer:
        assert server.host == "127.0.0.1"
        assert says_back(peer)


@ipv6
def test_a_server_over_ipv6() -> None:
    with Server("::1") as server:
        assert server.address == ("::1", server.port)
        with dial(server.address) as peer, server.client(timeout=5.0) as client:
            assert says_back(peer)
            assert says_back(client)
            server.ledger.wait(open=2)
            for record in server.ledger.open:
                assert record.local == Endpoint("tcp", ("::1", server.port))
                assert record.remote.host == "::1"


@ipv6
def test_one_port_for_both_families_shows_ipv4_peers_as_ipv4() -> None:
    with Server("::") as server:
        assert server.address == ("::", server.port)
        with dial(("127.0.0.1", server.port)) as four, dial(("::1", server.port)) as six:
            assert says_back(four)
            assert says_back(six)
            server.ledger.wait(open=2)
            remotes = [record.remote.address for record in server.ledger.open]
            locals_ = [record.local.address for record in server.ledger.open]
            assert remotes == [four.getsockname()[:2], six.getsockname()[:2]]
            assert locals_ == [("127.0.0.1", server.port), ("::1", server.port)]
            assert "ffff" not in repr(server.ledger.open)


@ipv6
def test_a_client_of_a_dual_stack_server_goes_over_loopback() -> None:
    with Server("::") as server, server.client(timeout=5.0) as client:
        assert says_back(client)
        assert client.getpeername()[0] in ("::1", "127.0.0.1", "::ffff:127.0.0.1")


@contextlib.contextmanager
def serving_ipv6_alone(host: str, *, dual_stack: bool) -> Iterator[Server]:
    """A server whose port is not in use over IPv4: a socket that does not listen holds it there.

    Otherwise a parallel test may have the port.
    """
    for _ in range(100):
        options = SocketOptions(dual_stack=dual_stack)
        with Server(host, options=options) as server, socket.socket() as holder:
            try:
                holder.bind((LOOPBACK, server.port))
            except OSError:
                continue
            yield server
            return
    raise AssertionError(f"a server at {host} has its port over IPv4 too")


@ipv6
def test_one_family_alone_when_asked() -> None:
    with serving_ipv6_alone("::", dual_stack=False) as server:
        with dial(("::1", server.port)) as six:
            assert says_back(six)
        with pytest.raises(ConnectionRefusedError):
            dial((LOOPBACK, server.port))


@ipv6
def test_the_option_says_nothing_about_other_hosts() -> None:
    with serving_ipv6_alone("::1", dual_stack=True) as six:
        with pytest.raises(ConnectionRefusedError):
            dial((LOOPBACK, six.port))
    four = Server("127.0.0.1", options=SocketOptions(dual_stack=False))
    with four, dial(four.address) as peer:
        assert says_back(peer)


def test_the_wildcard_of_ipv4_takes_every_loopback_address() -> None:
    with Server("0.0.0.0") as server:
        for host in ("127.0.0.1", "127.8.9.10"):
            with dial((host, server.port)) as peer:
                assert says_back(peer)
        server.ledger.wait(open=0)
        assert [record.local.host for record in server.ledger.closed] == ["127.0.0.1", "127.8.9.10"]


# A machine whose IPv6 is disabled: sockets of the family can be bound to "::", and there is no ::1.
NO_IPV6 = (
    LOOPBACK_UP
    + """
import json
for name in ("all", "default", "lo"):
    with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as switch:
        switch.write("1")
from rsock import Client, Forward, Server, SocketOptions

def echoed(client):
    with client:
        client.sendall(b"hello")
        return client.recv(5) == b"hello"

said = {}
for transport in ("tcp", "udp"):
    options = {"transport": transport, "allow_external": True}
    with Server("::", **options) as server:
        said[transport] = [
            server.address == ("::", server.port),
            server.url("http") == f"http://127.0.0.1:{server.port}/",
            echoed(server.client(timeout=5.0)),
        ]
        with Server(transport=transport, service=Forward(server)) as forward:
            said[transport].append(echoed(forward.client(timeout=5.0)))
        with Server(fd=server.hand_over(), **options):
            said[transport].append(server.stop().cause == "stop")
with Server("::", options=SocketOptions(dual_stack=False)) as server:
    said["alone"] = server.url("http") == f"http://[::1]:{server.port}/"
print(json.dumps(said))
"""
)


@ipv6
def test_a_server_on_every_address_is_reached_where_there_is_no_ipv6(tmp_path: Path) -> None:
    said = json.loads(output_of(NO_IPV6, prefix=alone(tmp_path)))
    assert said == {"tcp": [True] * 5, "udp": [True] * 5, "alone": True}


@ipv6
def test_a_name_is_bound_at_the_first_of_its_addresses(tmp_path: Path) -> None:
    code = """
import json, socket
from rsock import Client, Server
first = socket.getaddrinfo("both.test", 0, type=socket.SOCK_STREAM)[0][4][0]
with Server("both.test") as server, Client("both.test", server.port, timeout=5.0) as client:
    client.sendall(b"hello")
    print(json.dumps([server.host == first, client.recv(5) == b"hello"]))
"""
    prefix = alone(tmp_path, "127.0.0.1 both.test\n::1 both.test\n")
    assert json.loads(output_of(LOOPBACK_UP + code, prefix=prefix)) == [True, True]


# --- names ---------------------------------------------------------------------------------

# Runs with its own /etc/hosts, in which `both.test` has two addresses.
NAMES = """
import json, socket, sys
from rsock import Client, Server
both = [entry[4][0] for entry in socket.getaddrinfo("both.test", 0, type=socket.SOCK_STREAM)]
said = {"both": both}
for host in ("::1", "127.0.0.1"):
    with Server(host) as server, Client("both.test", server.port, timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        said[host] = client.getpeername()[0]
with Server() as server:
    port = server.port
try:
    Client("both.test", port, timeout=5.0)
except OSError as error:
    said["refused"] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


@ipv6
def test_every_address_of_a_name_is_tried(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost both.test\n::1 both.test\n")
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    alone = (unshare, "--mount") if os.getuid() == 0 else (unshare, "--map-root-user", "--mount")
    mounted = ("sh", "-c", f'mount --bind "{hosts}" /etc/hosts && exec "$@"', "sh")
    if subprocess.run([*alone, *mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts of one's own here")
    said = json.loads(output_of(NAMES, prefix=(*alone, *mounted)))
    assert sorted(said["both"]) == ["127.0.0.1", "::1"]
    assert (said["::1"], said["127.0.0.1"]) == ("::1", "127.0.0.1")
    kind, text = said["refused"]
    assert kind == "ConnectionRefusedError"
    assert "connect " in text


def test_localhost_finds_a_server_on_either_of_its_addresses() -> None:
    found = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    for host in found:
        assert isinstance(host, str)
        with Server(host) as server, Client("localhost", server.port, timeout=5.0) as client:
            assert says_back(client)
