"""A connection of a proxy begins with a header, which names the client."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LATE, Background, dial, reset, wait_until

from rsock import (
    Accept,
    ByConnection,
    Client,
    Echo,
    Forward,
    Limits,
    ProxyHeader,
    Record,
    Server,
    faults,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1])
V2 += struct.pack(">HH", 1234, 443)
HEADERS = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
CLAIMED = ("192.0.2.7", 1234)
# Further forms: what the header says of the client, None where it says nothing.
TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack(">HH", 1234, 443)
TLVS = b"\x01\x00\x02h2" + b"\x05\x00\x10" + bytes(range(16)) + b"\x04\x01\x00" + bytes(256)
FORMS: dict[str, tuple[bytes, tuple[str, int] | None]] = {
    "v1 TCP6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n", ("2001:db8::7", 1234)),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 of 107 bytes": (b"PROXY UNKNOWN ".ljust(105, b"f") + b"\r\n", None),
    "v2 LOCAL": (SIGNATURE + b"\x20\x00\x00\x00", None),
    "v2 TCP6": (SIGNATURE + b"\x21\x21\x00\x24" + TCP6, ("2001:db8::7", 1234)),
    "v2 with TLVs": (
        V2[:14] + struct.pack(">H", 12 + len(TLVS)) + V2[16:] + TLVS,
        CLAIMED,
    ),
}


def shout(conn: Any) -> None:
    while data := conn.recv(65_536):
        conn.sendall(data)


@contextlib.contextmanager
def accepting(**options: Any) -> Iterator[Server]:
    """A server whose connections a thread of this test accepts."""
    with Server(service=Accept(), **options) as server:

        def accept_all() -> None:
            serving = [Background(shout_and_close, conn) for conn, _ in server]
            for each in serving:
                each.result()

        accepts = Background(accept_all)
        yield server
        server.stop()
        accepts.result()


def shout_and_close(conn: Any) -> None:
    with conn, contextlib.suppress(OSError):
        shout(conn)


@contextlib.contextmanager
def forwarding(**options: Any) -> Iterator[Server]:
    with Server() as target, Server(service=Forward(target), **options) as server:
        yield server


Serve = Callable[..., "contextlib.AbstractContextManager[Server]"]
SERVERS: dict[str, Serve] = {
    "echo": Server,
    "handler": functools.partial(Server, service=shout),
    "accept": accepting,
    "forward": forwarding,
    "mixed": lambda **options: Server(service=ByConnection(Echo(), rest=shout), **options),
    "faults": functools.partial(Server, faults=[faults.Slice(3), faults.Latency(0.001)]),
}


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return functools.partial(SERVERS[request.param], proxy_protocol=["127.0.0.0/8"])


def echoed(peer: socket.socket, data: bytes) -> None:
    peer.sendall(data)
    found = b""
    while len(found) < len(data):
        found += peer.recv(65_536)
        assert found
    assert found == data


def record_of(server: Server, number: int = 1) -> Record:
    server.ledger.wait(open=0, closed=number)
    return server.ledger.closed[number - 1]


@HEADERS
def test_the_client_that_a_header_names_is_the_peer(serve: Serve, header: bytes) -> None:
    with serve() as server:
        with dial(server.address) as peer:
            peer.sendall(header)
            echoed(peer, b"first")
            echoed(peer, b"second" * 1000)
            own = peer.getsockname()
        record = record_of(server)
        assert record.closed_by == "peer"
        assert record.remote.address == CLAIMED
        assert record.proxy is not None
        assert record.proxy.address == own
        assert record.proxy_header is not None
        assert record.proxy_header.destination is not None
        assert str(record.proxy_header.destination) == "198.51.100.1:443"
        assert server.ledger.totals.proxy_errors == 0


@HEADERS
def test_a_header_and_the_first_bytes_in_one_segment(serve: Serve, header: bytes) -> None:
    with serve() as server:
        with dial(server.address) as peer:
            peer.sendall(header + b"at once")
            peer.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: peer.recv(100), b"")) == b"at once"
        assert record_of(server).remote.address == CLAIMED


@HEADERS
def test_a_header_that_comes_byte_by_byte(serve: Serve, header: bytes) -> None:
    with serve() as server:
        with dial(server.address) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(header)):
                peer.sendall(header[at : at + 1])
            echoed(peer, b"x")
        assert record_of(server).remote.address == CLAIMED


@HEADERS
def test_a_header_that_is_cut_at_any_byte_is_an_error(serve: Serve, header: bytes) -> None:
    with serve() as server:
        for cut in range(1, len(header)):
            with dial(server.address) as peer:
                peer.sendall(header[:cut])
                peer.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    assert peer.recv(1) == b"x"
        records = server.ledger.wait(open=0, closed=len(header) - 1)
        for cut, record in enumerate(records, 1):
            assert (record.closed_by, record.error) == (
                "error",
                f"PROXY header: it ends after {cut} bytes",
            )
            assert record.proxy is None
        assert server.ledger.totals.proxy_errors == len(header) - 1
        # The peers have caused them, and no service has failed.
        assert server.stop().errors == 0


@pytest.mark.parametrize("name", ["echo", "handler"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_header_comes_in_pieces_or_is_cut(name: str, form: str) -> None:
    header, claimed = FORMS[form]
    # Long ones are mostly their filling.
    cuts = [at for at in range(1, len(header)) if at < 60 or at > len(header) - 5]
    with SERVERS[name](proxy_protocol=["127.0.0.1"]) as server:
        for at in cuts:
            with dial(server.address) as peer:
                peer.sendall(header[:at])
                peer.sendall(header[at:] + b"x")
                assert peer.recv(2) == b"x"
                own = peer.getsockname()
            record = server.ledger.wait(open=0)[-1]
            assert record.remote.address[:2] == (claimed or own)
            assert record.proxy is not None
        for at in cuts:
            with dial(server.address) as peer:
                peer.sendall(header[:at])
                peer.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    assert peer.recv(1) == b"x"
            record = server.ledger.wait(open=0)[-1]
            assert record.error == f"PROXY header: it ends after {at} bytes"
        assert server.ledger.totals.proxy_errors == len(cuts)


@pytest.mark.parametrize("name", ["echo", "handler"])
@pytest.mark.parametrize("begin", [V1[:6], SIGNATURE], ids=["v1", "v2"])
def test_the_first_byte_that_fits_no_header_ends_the_connection(name: str, begin: bytes) -> None:
    """Without a wait for further ones: no time-out could tell the reason."""
    with SERVERS[name](proxy_protocol=["127.0.0.1"], limits=Limits(first_byte=60)) as server:
        for at in range(len(begin)):
            sent = begin[:at] + b"!"
            with dial(server.address) as peer, pytest.raises(ConnectionResetError):
                peer.sendall(sent)
                assert peer.recv(1) == b"x"
            record = server.ledger.wait(open=0)[-1]
            assert record.closed_by == "error"
            assert record.error is not None
            assert record.error.startswith("PROXY header: it begins with ")
        assert server.ledger.totals.proxy_errors == len(begin)


def test_no_service_hears_of_a_connection_without_a_whole_header() -> None:
    called: list[Any] = []
    without = [b"GET / HTTP/1.1\r\n\r\n", V1[:-1], V1[:-2] + b"\n", V2[:-1], b"x" * 100_000]
    with Server(service=called.append, proxy_protocol=["127.0.0.1"]) as server:
        for sent in without:
            with dial(server.address) as peer, contextlib.suppress(OSError):
                peer.sendall(sent)
                peer.shutdown(socket.SHUT_WR)
                assert peer.recv(1) == b"x"
            server.ledger.wait(open=0)
        assert server.ledger.totals.proxy_errors == len(without)
    assert called == []


def test_a_peer_that_connects_and_leaves_is_no_error(serve: Serve) -> None:
    with serve() as server:
        with dial(server.address):
            pass
        record = record_of(server)
        assert (record.closed_by, record.error) == ("peer", None)
        assert server.ledger.totals.proxy_errors == 0


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it begins with"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "not a line of version 1"),
        (b"PROXY " + b"x" * 101, "no end of the line within 107 bytes"),
        (b"PROXY UNKNOWN ".ljust(106, b"f") + b"\r\n", "no end of the line within 107 bytes"),
        (SIGNATURE + b"\x31", "version 3"),
        (SIGNATURE + b"\x21\x11\x00\x02", "2 bytes for addresses of 12 bytes"),
        (V2.replace(b"\x00\x0c", b"\x00\x10", 1) + b"\x01\xff\xff\x00", "reaches beyond its end"),
    ],
)
def test_what_is_no_header_ends_the_connection(serve: Serve, sent: bytes, why: str) -> None:
    with serve() as server:
        with pytest.raises(ConnectionResetError), dial(server.address) as peer:
            peer.sendall(sent)
            peer.recv(1)
        record = record_of(server)
        assert record.closed_by == "error"
        assert record.error is not None
        assert why in record.error
        assert server.ledger.totals.proxy_errors == 1


def test_the_longest_header_is_taken_and_no_more_than_that_is_held() -> None:
    value = bytes(65_535 - 12 - 3)
    longest = V2.replace(b"\x00\x0c", b"\xff\xff", 1) + b"\xe0" + struct.pack(">H", len(value))
    limits = Limits(write_buffer=4_096)
    with Server(proxy_protocol=["127.0.0.1"], limits=limits) as server:
        with dial(server.address) as peer:
            peer.sendall(longest + value)
            echoed(peer, b"x" * 20_000)
        record = record_of(server)
        assert record.remote.address == CLAIMED
        assert record.proxy_header is not None
        assert record.proxy_header.tlvs == ((0xE0, value),)


@HEADERS
@pytest.mark.parametrize("name", SERVERS)
def test_a_header_of_another_network_is_not_believed(name: str, header: bytes) -> None:
    with SERVERS[name](proxy_protocol=["10.0.0.0/8", "unix"]) as server:
        with dial(server.address) as peer:
            # To the service it is data as any other.
            echoed(peer, header)
            own = peer.getsockname()
        record = record_of(server)
        assert record.remote.address == own
        assert (record.proxy, record.proxy_header) == (None, None)


@HEADERS
def test_a_second_header_is_data(serve: Serve, header: bytes) -> None:
    forged = header.replace(b"192.0.2.7", b"192.0.2.9").replace(
        b"\xc0\0\x02\x07", b"\xc0\0\x02\x09"
    )
    with serve() as server:
        with dial(server.address) as peer:
            peer.sendall(header)
            echoed(peer, forged)
        assert record_of(server).remote.address == CLAIMED


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00"])
def test_a_connection_of_the_proxy_itself_keeps_its_address(serve: Serve, header: bytes) -> None:
    with serve() as server:
        with dial(server.address) as peer:
            peer.sendall(header)
            echoed(peer, b"check")
            own = peer.getsockname()
        record = record_of(server)
        assert record.remote.address == own
        assert record.proxy == record.remote
        assert record.proxy_header is not None
        assert record.proxy_header.source is None


def test_a_handler_is_called_when_the_header_has_come() -> None:
    called: list[Any] = []

    def note(conn: Any) -> None:
        called.append((conn.getpeername(), conn.five_tuple[3:], conn.record.remote.address))
        conn.sendall(b"hello")

    with Server(service=note, proxy_protocol=["127.0.0.1"]) as server:
        with dial(server.address) as peer:
            server.ledger.wait(open=1)
            peer.sendall(V1[:-1])
            # Another connection, which has come later, is served before.
            with dial(server.address) as other:
                other.sendall(V2.replace(b"\xc0\x00\x02\x07", b"\xc0\x00\x02\x08"))
                assert other.recv(10) == b"hello"
            assert [address for address, *_ in called] == [("192.0.2.8", 1234)]
            peer.sendall(V1[-1:])
            assert peer.recv(10) == b"hello"
    assert called[1] == (CLAIMED, CLAIMED, CLAIMED)


def test_accept_returns_the_connection_whose_header_has_come() -> None:
    with Server(service=Accept(), proxy_protocol=["127.0.0.1"]) as server:
        with dial(server.address) as slow, dial(server.address) as peer:
            slow.sendall(V1[:5])
            peer.sendall(V1 + b"x")
            conn, address = server.accept(10)
            with conn:
                assert address == CLAIMED
                assert conn.recv(1) == b"x"
            with pytest.raises(TimeoutError):
                server.accept(0.1)
            slow.sendall(V1[5:])
            server.accept(10)[0].close()


def test_the_first_byte_is_the_clients_and_not_the_headers(serve: Serve) -> None:
    with serve(limits=Limits(first_byte=0.3)) as server:
        for header in (b"", V1[:10], V1):
            with dial(server.address) as peer:
                peer.sendall(header)
                # A handler's call raises TimeoutError, and the handler returns.
                with contextlib.suppress(ConnectionError):
                    assert peer.recv(1) == b""
        for record in server.ledger.wait(open=0, closed=3):
            assert (record.closed_by, record.limit) == ("limit", "first_byte")
            assert record.seconds >= 0.29


def test_per_host_counts_the_clients_of_a_proxy() -> None:
    with Server(proxy_protocol=["127.0.0.1"], limits=Limits(per_host=2)) as server:
        other = V1.replace(b"192.0.2.7", b"192.0.2.8")
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(dial(server.address)) for _ in range(4)]
            for peer, header in zip(peers, [V1, V1, other, other], strict=True):
                peer.sendall(header)
                echoed(peer, b"x")
            with pytest.raises(ConnectionResetError), dial(server.address) as peer:
                peer.sendall(V1)
                peer.recv(1)
            server.ledger.wait(open=4, closed=1)
            assert server.ledger.closed[0].limit == "per_host"
            assert server.ledger.closed[0].remote.address == CLAIMED
            peers[0].close()
            server.ledger.wait(open=3)
            with dial(server.address) as peer:
                peer.sendall(V1)
                echoed(peer, b"x")
        server.ledger.wait(open=0)


def test_allow_and_deny_concern_the_proxy() -> None:
    with Server(proxy_protocol=["127.0.0.1"], allow=["127.0.0.1"]) as server:
        with dial(server.address) as peer:
            peer.sendall(V1)
            echoed(peer, b"x")
    with Server(proxy_protocol=["127.0.0.1"], deny=["127.0.0.1"], allow=["192.0.2.7"]) as server:
        with pytest.raises(ConnectionError), dial(server.address) as peer:
            peer.sendall(V1)
            peer.recv(1)
        assert server.ledger.totals.refused_by["deny"] == 1


def test_a_proxy_on_a_unix_socket(tmp_path: Path) -> None:
    for service in (Echo(), shout):
        path = tmp_path / "socket"
        with Server(path=path, service=service, proxy_protocol="unix") as server:
            with Client(path=path, timeout=10) as client:
                client.sendall(V1 + b"x")
                assert client.recv(1) == b"x"
            record = record_of(server)
            assert record.remote.address == CLAIMED
            assert record.proxy is not None
            assert record.proxy.transport == "unix"


def test_what_else_a_header_says_is_kept() -> None:
    ssl = b"\x07" + bytes(4) + b"\x21\x00\x07TLSv1.3\x22\x00\x02me\x23\x00\x03AES"
    tlvs = (
        (0x01, b"h2"),
        (0x02, "bücher.example".encode()),
        (0x05, b"\x00\x01"),
        (0x20, ssl),
        (0x04, b""),
    )
    header = ProxyHeader(("2001:db8::1", 1), ("2001:db8::2", 2), tlvs)
    with Server(proxy_protocol=["127.0.0.1"]) as server:
        with server.client(timeout=10, proxy_protocol=header) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        found = record_of(server).proxy_header
        assert found == header
        assert (found.alpn, found.authority, found.unique_id) == (
            b"h2",
            "bücher.example",
            b"\x00\x01",
        )
        assert found.tls == ("TLSv1.3", "AES", "me", True)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_forwarder_names_its_client_to_its_target(version: Any, host: str) -> None:
    with Server(host, proxy_protocol=["127.0.0.1", "::1"]) as target:
        service = Forward(*target.address, proxy_protocol=version)
        with Server(host, service=service, proxy_protocol=["127.0.0.2"]) as server:
            with dial(server.address) as peer:
                echoed(peer, b"x" * 300_000)
                own = peer.getsockname()[:2]
            record = record_of(target)
            assert record.remote.address == own
            assert record.proxy is not None
            assert record.proxy_header is not None
            host, port = server.address
            expected = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            assert str(record.proxy_header.destination) == expected
            assert record_of(server).bytes_in == 300_000


def test_a_forwarder_names_the_client_of_the_proxy_before_it() -> None:
    with Server(proxy_protocol=["127.0.0.1"]) as target:
        service = Forward(target, proxy_protocol="v2")
        with Server(service=service, proxy_protocol=["127.0.0.1"]) as server:
            with dial(server.address) as peer:
                peer.sendall(V1)
                echoed(peer, b"x")
            assert record_of(target).remote.address == CLAIMED


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("given", [None, []], ids=["", "faults"])
def test_a_client_sends_a_header_first(version: Any, given: Any) -> None:
    with Server(proxy_protocol=["127.0.0.1"]) as server:
        client = Client(*server.address, timeout=10, proxy_protocol=version, faults=given)
        with client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            own = client.getsockname()
        record = record_of(server)
        assert record.remote.address == own
        assert record.proxy_header is not None
        assert record.proxy_header.version == int(version[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Server(proxy_protocol=["10.1.0.0/8"]),
        lambda: Server(proxy_protocol=["localhost"]),
        lambda: Server(transport="udp", proxy_protocol=["10.0.0.0/8"]),
        lambda: Client("127.0.0.1", 9, proxy_protocol="v3"),  # type: ignore[arg-type]
        lambda: Client("127.0.0.1", 9, transport="udp", proxy_protocol="v1"),
        lambda: Client("127.0.0.1", 9, timeout=0, proxy_protocol="v1"),
        lambda: Forward("127.0.0.1", 9, proxy_protocol="v3"),  # type: ignore[arg-type]
        lambda: Client(
            "127.0.0.1", 9, proxy_protocol=ProxyHeader(("a.example", 1), ("127.0.0.1", 2))
        ),
        lambda: ProxyHeader(version=3),  # type: ignore[arg-type]
        lambda: ProxyHeader(("192.0.2.1", 1)),
        lambda: ProxyHeader(tlvs=((256, b""),)),
        lambda: ProxyHeader(tlvs=((1, b""),), version=1),
    ],
)
def test_what_makes_no_sense_is_an_error_that_names_it(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="proxy_protocol|ProxyHeader"):
        make()


def test_a_forwarder_of_datagrams_sends_no_header() -> None:
    service = Forward("127.0.0.1", 9, proxy_protocol="v2")
    with pytest.raises(ValueError, match="proxy_protocol='v2'"):
        Server(service=service, transport="udp").start()


def test_a_stop_waits_for_a_header_only_for_a_moment(serve: Serve) -> None:
    with serve(drain=60) as server:
        with dial(server.address) as none, dial(server.address) as part:
            part.sendall(V1[:10])
            server.ledger.wait(open=2)
            report = server.stop()
            assert report.seconds < LATE
            for peer in (none, part):
                with contextlib.suppress(ConnectionError):
                    assert peer.recv(1) == b""


@pytest.mark.parametrize("name", ["echo", "handler"])
def test_a_connection_whose_header_comes_during_a_stop_is_served(name: str) -> None:
    with SERVERS[name](proxy_protocol=["127.0.0.1"], drain=60) as server:
        with dial(server.address) as peer:
            server.ledger.wait(open=1)
            stopping = Background(server.stop)
            wait_until(lambda: server.state == "draining")
            peer.sendall(V1 + b"in time")
            peer.shutdown(socket.SHUT_WR)
            found = b"".join(iter(lambda: peer.recv(100), b""))
            # On a busy machine the 0.25 s of a first byte may be over.
            late = stopping.result().seconds > 0.25
            assert found == b"in time" or late


def test_a_peer_that_resets_within_the_header(serve: Serve) -> None:
    with serve() as server:
        for cut in (0, 5, len(V1)):
            peer = dial(server.address)
            peer.sendall(V1[:cut])
            server.ledger.wait(open=1, closed=0)
            reset(peer)
            server.ledger.wait(open=0)


def test_random_headers_never_do_harm() -> None:
    draw = random.Random(7)
    with Server(proxy_protocol=["127.0.0.1"]) as server:
        for number in range(1, 151):
            sent = bytearray(draw.choice([V1, V2]))
            for _ in range(draw.randrange(3)):
                sent[draw.randrange(len(sent))] = draw.randrange(256)
            sent += draw.randbytes(draw.randrange(40))
            with contextlib.suppress(OSError), dial(server.address) as peer:
                peer.sendall(sent)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1000):
                    pass
            record = server.ledger.wait(open=0, closed=number)[-1]
            assert record.closed_by in ("peer", "error", "reset")
        with dial(server.address) as peer:
            peer.sendall(V1)
            echoed(peer, b"alive")
