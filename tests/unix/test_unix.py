"""Unix stream sockets: `path=` instead of host and port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import (
    Script,
    dial_path,
    exchange,
    fds,
    given_back,
    held,
    payload,
    says_back,
    wait_until,
)

from rsock import (
    Accept,
    Client,
    Endpoint,
    Forward,
    Limits,
    PeerCredentials,
    Server,
    SocketOptions,
    StateError,
)

LONG = 10.0


# --- basics --------------------------------------------------------------------------------


def test_a_path_alone_is_a_unix_stream(path: str) -> None:
    server = Server(path=path)
    assert (server.transport, server.path, server.host, server.port) == ("unix", path, None, None)
    assert not os.path.exists(path), "the constructor opens nothing"
    with server:
        assert server.address == path == server.getsockname()
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        with dial_path(path) as peer:
            assert says_back(peer)
        [record] = server.ledger.wait(open=0, closed=1)
    assert (record.transport, record.closed_by, record.bytes_in) == ("unix", "peer", 5)
    assert record.local == Endpoint("unix", path)
    assert record.remote == Endpoint("unix", "")
    assert server.address == path, "it was bound to it"


def test_a_client_is_a_socket_of_that_family(path: str) -> None:
    with Server(path=path) as server, server.client(timeout=LONG) as client:
        assert (client.family, client.type, client.proto) == (
            socket.AF_UNIX,
            socket.SOCK_STREAM,
            0,
        )
        assert (client.getpeername(), client.getsockname()) == (path, "")
        assert client.five_tuple == (client.fileno(), "", 0, path, 0)
        assert says_back(client)
        assert client.record is not None
        assert client.record.remote == Endpoint("unix", path)
        with client.to_socket() as duplicate:
            assert (duplicate.family, duplicate.getpeername()) == (socket.AF_UNIX, path)
        with pytest.raises(OSError, match="no TCP") as caught:
            print(client.tcp_info)
        assert caught.value.errno is not None


@pytest.mark.parametrize("kind", ["str", "bytes", "path"])
@pytest.mark.parametrize("way", ["argument", "created", "undecided", "connect_ex"])
def test_a_client_takes_a_path_as_a_socket_does(path: str, kind: str, way: str) -> None:
    given: Any = {"str": path, "bytes": os.fsencode(path), "path": Path(path)}[kind]
    with Server(path=given):
        if way == "argument":
            client = Client(path=given, timeout=LONG)
        else:
            client = Client(transport="unix") if way == "created" else Client()
            client.settimeout(LONG)
            if way == "connect_ex":
                assert client.connect_ex(given) == 0
            else:
                client.connect(given)
        with client:
            assert client.family == socket.AF_UNIX
            assert says_back(client)


def test_bind_takes_another_path(directory: Path, path: str) -> None:
    other = directory / "other"
    with Server(path=path).create().bind(other) as server:
        assert server.address == str(other) == server.path
        assert not os.path.exists(path)
        with server.client(timeout=LONG) as client:
            assert says_back(client)


def test_an_asynchronous_program_and_a_fixture_have_it_too(
    path: str, make_rsock_server: Callable[..., Server]
) -> None:
    async def talk() -> bytes:
        async with Server(path=path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello")
            answer = await reader.readexactly(5)
            writer.close()
            await writer.wait_closed()
        return answer

    assert asyncio.run(talk()) == b"hello"
    with make_rsock_server(path=path).client(timeout=LONG) as client:
        assert says_back(client)


def test_an_abstract_name_has_no_file(directory: Path) -> None:
    name = f"\0rsock-test-{os.getpid()}-{id(directory)}"
    with Server(path=name) as server:
        assert server.address == name == server.path
        assert server.getsockname() == name.encode()
        assert f"@{name[1:]}" in repr(server)
        with dial_path(name) as peer, server.client(timeout=LONG) as client:
            assert client.getpeername() == name.encode() == peer.getpeername()
            assert says_back(peer)
            assert says_back(client)
        with pytest.raises(OSError, match="held by the Server") as caught:
            Server(path=name).start()
        assert caught.value.errno == 98
        with pytest.raises(ValueError, match="mode"):
            Server(path=name, options=SocketOptions(mode=0o600))
    with Server(path=name.encode()):
        pass


def test_a_path_that_is_no_text_makes_the_way_there_and_back(directory: Path) -> None:
    raw = os.fsencode(directory) + b"/\xff.sock"
    with Server(path=raw) as server:
        assert server.address == os.fsdecode(raw)
        with server.client(timeout=LONG) as client:
            assert says_back(client)
        assert server.url("http+unix").endswith("%2F%FF.sock/")


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_displays_and_urls(path: str, transport: str) -> None:
    with Server(path=path) if transport == "unix" else Server() as server:
        where = str(Endpoint(transport, server.address))
        assert repr(server) == f"<Server {where} serving Echo() 0 open>"
        assert where in server._repr_html_()
        with server.client(timeout=LONG) as client:
            assert says_back(client)
            assert f" -> {where} connected>" in repr(client)
            assert where in client._repr_html_()
            [record] = server.ledger
            assert f" {transport} {where} <- " in repr(record)
            assert ("pid " in repr(server.ledger)) == (transport == "unix")
            assert where in record._repr_html_()
    if transport == "unix":
        quoted = path.replace("/", "%2F")
        assert server.url("http+unix", "/a") == f"http+unix://{quoted}/a"
    assert repr(Server(path=path)) == f"<Server {path} new Echo()>"


def test_endpoints_of_unix_sockets_are_written_as_ss_writes_them() -> None:
    assert str(Endpoint("unix", "/tmp/x.sock")) == "/tmp/x.sock"
    assert str(Endpoint("unix", "\0name")) == "@name"
    assert str(Endpoint("unix", "")) == "(unnamed)"
    assert Endpoint("unix", "/tmp/x.sock").host is None
    assert Endpoint("unix", "/tmp/x.sock").port is None


def test_a_url_and_a_client_want_an_address_that_is_bound(path: str) -> None:
    server = Server(path=path)
    for call in (server.client, lambda: server.url("http+unix")):
        with pytest.raises(StateError, match="new"):
            call()


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("", "needs a name"),
        ("\0", "behind its NUL"),
        ("/tmp/a\0b", "NUL"),
        ("/tmp/" + "x" * 103, "108 bytes"),
        ("\0" + "x" * 108, "109 bytes"),
        ("/tmp/\ud800", "not valid text"),
    ],
    ids=["empty", "empty-abstract", "nul", "long", "long-abstract", "surrogate"],
)
def test_a_path_that_no_socket_can_have_is_named(bad: str, says: str) -> None:
    before = fds()
    client = Client(transport="unix")
    for call in (
        lambda: Server(path=bad),
        lambda: Client(path=bad),
        lambda: client.connect(bad),
        lambda: Server(path="/tmp/rsock").bind(bad),
    ):
        with pytest.raises(ValueError, match=f"path .*{says}"):
            call()
    client.close()
    assert fds() == before


def test_107_bytes_fit(directory: Path) -> None:
    name = str(directory / "x")
    name += "x" * (107 - len(os.fsencode(name)))
    with Server(path=name) as server, server.client(timeout=LONG) as client:
        assert says_back(client)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"host": "127.0.0.1"}, "host='127.0.0.1' are two transports; give path= alone"),
        ({"port": 8080}, "port=8080 are two transports"),
        ({"fd": 3}, "fd=3 are two transports"),
        ({"transport": "tcp"}, "transport='tcp' are two transports"),
    ],
    ids=["host", "port", "fd", "tcp"],
)
def test_two_transports_are_one_too_many(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Server(path="/tmp/x.sock", **arguments)
    if "fd" not in arguments:
        with pytest.raises(ValueError, match=says):
            Client(path="/tmp/x.sock", **arguments)


def test_the_unix_transport_wants_a_path() -> None:
    with pytest.raises(ValueError, match="transport='unix' needs a path"):
        Server(transport="unix")
    with pytest.raises(ValueError, match="give path= instead"):
        Client("localhost", 80, transport="unix")
    with pytest.raises(ValueError, match="source_address"):
        Client(path="/tmp/x.sock", source_address=("127.0.0.1", 0))
    assert Server(path="/tmp/x.sock", transport="unix").transport == "unix"


@pytest.mark.parametrize("bad", [1, 1.5, True, ("a", 1), [b"x"], object], ids=str)
def test_what_is_no_path_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="path must be a path: str, bytes or os.PathLike"):
        Server(path=bad)
    with pytest.raises(TypeError, match="path must be a path"):
        Client(path=bad)


def test_an_address_of_the_other_transport_is_a_type_error(path: str) -> None:
    with pytest.raises(TypeError, match="must be a path"):
        Server(path=path).bind(("127.0.0.1", 0))
    with pytest.raises(TypeError, match="must be a .host, port. pair"):
        Server().bind(path)
    with Client() as client, pytest.raises(TypeError, match="pair, or the path"):
        client.connect(80)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        SocketOptions(keepalive=False),
        SocketOptions(user_timeout=30.0),
        SocketOptions(linger=0),
        SocketOptions(max_segment=1472),
        SocketOptions(reuse_port=True),
    ],
    ids=["keepalive", "user_timeout", "linger", "max_segment", "reuse_port"],
)
def test_options_that_mean_nothing_here_are_refused(
    path: str, options: SocketOptions, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=rf"SocketOptions\({name}=…\)"):
        Server(path=path, options=options)
    with Server(path=path):
        with pytest.raises(ValueError, match=name):
            Client(path=path, options=options)
        with Client(options=options) as client, pytest.raises(ValueError, match=name):
            client.connect(path)


def test_other_things_that_mean_nothing_here_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="per_host"):
        Server(path=path, limits=Limits(per_host=1))
    with pytest.raises(ValueError, match="mode"):
        Server(options=SocketOptions(mode=0o600))


def test_a_directory_that_is_not_there_is_named(directory: Path) -> None:
    path = str(directory / "none" / "x.sock")
    with pytest.raises(FileNotFoundError, match=f"bind {path}: No such file"):
        Server(path=path).start()
    with pytest.raises(FileNotFoundError, match=f"connect {path}: No such file"):
        Client(path=path)


# --- names and identity of the peer ---------------------------------------------------------


def test_the_record_knows_who_the_peer_is(path: str) -> None:
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
    )
    with Server(path=path) as server, Script(code, path) as script:
        [record] = server.ledger.wait(open=1, timeout=LONG)
        assert record.peer_credentials == (script.process.pid, os.getuid(), os.getgid())
        assert isinstance(record.peer_credentials, PeerCredentials)
        assert f"<- pid {script.process.pid}, uid {os.getuid()} " in repr(record)
        with server.client() as client:
            assert client.record is not None
            assert client.record.peer_credentials == (os.getpid(), os.getuid(), os.getgid())
    with Server() as tcp, tcp.client() as client:
        [record] = tcp.ledger.wait(open=1, timeout=LONG)
        assert record.peer_credentials is None
        assert client.record is not None
        assert client.record.peer_credentials is None


def test_a_client_with_a_name_is_shown_by_it(directory: Path, path: str) -> None:
    own = str(directory / "client.sock")
    with Server(path=path, service=Accept()) as server, socket.socket(socket.AF_UNIX) as peer:
        peer.bind(own)
        peer.connect(path)
        conn, address = server.accept(LONG)
        with conn:
            assert address == own == conn.getpeername()
            assert conn.record.remote == Endpoint("unix", own)
            assert f" <- {own} " in repr(conn)
            peer.sendall(b"abc")
            assert conn.recvfrom(3) == (b"abc", own)
    os.unlink(own)


def test_a_client_changes_its_family_also_after_a_fork(path: str) -> None:
    with Server(path=path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        with Client() as client:
            client.settimeout(LONG)
            client.connect(path)
            assert says_back(client)


# --- with other features -------------------------------------------------------------------


def test_forwarders_lead_from_one_kind_to_the_other(directory: Path) -> None:
    one, two = str(directory / "one"), str(directory / "two")
    data = payload(1_000_000)
    with (
        Server() as target,
        Server(path=one, service=Forward(target.host, target.port)) as inward,
        Server(service=Forward(inward)) as outward,
        Server(path=two, service=Forward(outward)) as last,
    ):
        with last.client(timeout=LONG) as client:
            assert exchange(client, data) == data
        [record] = inward.ledger.wait(open=0, closed=1, timeout=LONG)
        assert record.transport == "unix"
        assert record.far is not None
        assert record.far.remote == Endpoint("tcp", target.address)
        [record] = outward.ledger.wait(open=0, closed=1, timeout=LONG)
        assert record.far is not None
        assert record.far.remote == Endpoint("unix", one)


def test_a_forwarder_never_leads_back_to_itself(path: str) -> None:
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        port = plain.getsockname()[1]
        onward = Server(path=path, service=Forward("127.0.0.1", port)).bind()
        back = Server(fd=plain.detach(), service=Forward(onward)).start()
    with pytest.raises(ValueError, match=f"127.0.0.1:{port} leads back to this server"):
        onward.start()
    assert not os.path.exists(path)
    back.stop()


def test_a_forwarder_that_comes_to_lead_to_itself_passes_nothing_on(directory: Path) -> None:
    one, two = str(directory / "one"), str(directory / "two")
    with Server(path=one) as target, Server(path=two, service=Forward(target)) as server:
        with server.client(timeout=LONG) as client:
            assert says_back(client)
        os.replace(two, one)
        with dial_path(one) as peer:
            peer.sendall(b"round and round")
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
        records = server.ledger.wait(open=0, closed=3, timeout=LONG)
        assert "came back" in str(records[2].error), "the second one is its own"
    os.unlink(one)


def test_records_become_tables(directory: Path) -> None:
    raw = os.fsencode(directory) + b"/\xff.sock"
    with Server(path=raw) as server:
        with server.client(timeout=LONG) as client:
            assert says_back(client)
        server.ledger.wait(open=0, closed=1, timeout=LONG)
        [row] = server.ledger.to_dicts()
        assert (row["transport"], row["local_host"], row["local_port"]) == ("unix", None, None)
        assert (row["peer_pid"], row["peer_uid"]) == (os.getpid(), os.getuid())
        assert row["remote"] == "(unnamed)"
        target = directory / "out.csv"
        server.ledger.to_csv(target)
        assert "\\xff.sock" in target.read_text()
        target.unlink()
        [record] = server.ledger
        assert record.rfc147 is None
        assert record.tcp_info is None


def test_run_server_takes_a_path(path: str) -> None:
    code = "import sys, rsock; print(rsock.run_server(path=sys.argv[1]).cause)"
    with Script(code, path) as script, Client(transport="unix", timeout=LONG) as client:
        wait_until(lambda: client.connect_ex(path) == 0, LONG, "it listens")
        assert says_back(client)
        client.close()
        script.signal(signal.SIGINT)
        assert script.end(LONG) == (0, "SIGINT\n", "")


def test_nothing_is_left_behind(path: str) -> None:
    before = held()
    for _ in range(3):
        with Server(path=path) as server, server.client(timeout=LONG) as client:
            assert says_back(client)
        with pytest.raises(OSError, match="No such file"):
            Client(path=path)
        given_back(before)
