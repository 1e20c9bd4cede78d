"""The services in Rust over real sockets, compared with the text of their RFCs."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import (
    Background,
    arrived,
    dial,
    dial_narrow,
    ended,
    exchange,
    payload,
    read_exactly,
    read_to_end,
    reset,
    rss,
    says_back,
    wait_until,
)

from rsock import (
    Accept,
    ByConnection,
    Chargen,
    Daytime,
    Discard,
    Echo,
    Forward,
    Greeting,
    Limits,
    LineEcho,
    Quote,
    Server,
    Service,
    SocketOptions,
    StateError,
    Time,
)

KIB, MIB = 1 << 10, 1 << 20

# RFC 864: "On line N, put characters (0+N mod 95) through (71+N mod 95)."
RING = bytes(range(ord(" "), ord("~") + 1))
PATTERN = b"".join(bytes(RING[(n + i) % 95] for i in range(72)) + b"\r\n" for n in range(95))


def pattern(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def end_of(server: Server) -> tuple[str | None, str | None]:
    """What ended the only connection of a server, and the limit's name."""
    server.ledger.wait(open=0, closed=1, timeout=10.0)
    [record] = server.ledger.closed
    return record.closed_by, record.limit


def answer(service: Service) -> bytes:
    """The answer of a service to a client that sends nothing."""
    with Server(service=service) as server:
        with dial(server.address) as peer:
            said = read_to_end(peer)
        assert end_of(server) == ("service", None)
    return said


# --- services with one answer --------------------------------------------------------------


def test_daytime_is_a_line_of_ascii_that_tells_the_time_and_closes() -> None:
    before = datetime.now(UTC)
    line = answer(Daytime()).decode("ascii")
    # "Weekday, Month Day, Year Time-Zone", as in RFC 867.
    time_sent = datetime.strptime(line, "%A, %B %d, %Y %H:%M:%S-UTC\r\n").replace(tzinfo=UTC)
    assert before - timedelta(seconds=1) < time_sent <= datetime.now(UTC)
    assert line.startswith(time_sent.strftime("%A, %B "))


def test_time_is_32_bits_of_seconds_since_1900() -> None:
    epoch = datetime(1900, 1, 1, tzinfo=UTC)
    before = datetime.now(UTC)
    word = answer(Time())
    assert len(word) == 4
    # The number within its era of 2^32 seconds, whichever that is.
    time_sent = struct.unpack("!I", word)[0]
    least, most = ((at - epoch) // timedelta(seconds=1) for at in (before, datetime.now(UTC)))
    assert (time_sent - least) % (1 << 32) <= most - least


def test_a_quote_is_sent_as_it_is() -> None:
    assert answer(Quote("Less is more. – Mies\r\n")) == "Less is more. – Mies\r\n".encode()
    assert answer(Quote(bytearray(b"\x00" * 511))) == b"\x00" * 511


def test_a_greeting_is_sent_as_it_is() -> None:
    assert answer(Greeting(b"Hello, Client!\0")) == b"Hello, Client!\0"
    assert answer(Greeting("Grüße")) == "Grüße".encode()
    assert answer(Greeting(b"")) == b""


@pytest.mark.parametrize(
    "service",
    [Daytime(), Time(), Quote("q"), Greeting(b"g")],
    ids=["daytime", "time", "quote", "g"],
)
def test_a_flooding_client_still_gets_the_whole_reply(service: Service) -> None:
    # A close with unread input would reset the connection and discard the reply, so the server
    # reads the input.
    with Server(service=service) as server:
        for _ in range(20):
            with dial(server.address) as peer:
                peer.sendall(payload(300 * KIB))
                assert read_to_end(peer) != b""


def test_a_long_greeting_arrives_whole_beside_a_flood() -> None:
    message = payload(3 * MIB)
    flood = payload(64 * KIB)
    with Server(service=Greeting(message)) as server, dial(server.address) as peer:
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                peer.sendall(flood)

        sender = Background(send)
        got = read_to_end(peer)
        stop.set()
        assert got == message
        sender.result()


def test_a_greeting_that_waits_for_its_reader_is_whole_though_the_reader_says_nothing() -> None:
    message = payload(MIB)
    options = SocketOptions(send_buffer=8 * KIB)
    with Server(service=Greeting(message), options=options) as server:
        with dial_narrow(server.address) as peer:
            # The server sees the client's end long before it has sent everything.
            peer.shutdown(socket.SHUT_WR)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
            assert read_to_end(peer) == message
        assert end_of(server) == ("peer", None)


def test_a_stop_waits_for_no_peer_that_has_received_all_and_stays() -> None:
    with Server(service=Greeting(b"hello"), drain=10.0) as server:
        with dial(server.address) as peer:
            assert read_exactly(peer, 5) == b"hello"
            report = server.stop()
            assert (report.forced, ended(peer)) == (0, True)
        # The linger of a close is 2 s, and the drain is 10 s.
        assert report.seconds < 1.5
    assert end_of(server) == ("service", None)


def test_those_in_the_queue_at_a_stop_are_greeted() -> None:
    server = Server(service=Greeting(b"hello")).listen()
    with dial(server.address) as first, dial(server.address) as second:
        server.start()
        assert server.stop().forced == 0
        assert (read_to_end(first), read_to_end(second)) == (b"hello", b"hello")


# --- Discard -------------------------------------------------------------------------------


def test_discard_takes_everything_and_never_answers() -> None:
    # RFC 863: "any data received is thrown away. No response is sent."
    with Server(service=Discard()) as server:
        with dial(server.address) as peer:
            peer.sendall(payload(8 * MIB))
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""
        assert end_of(server) == ("peer", None)
        [record] = server.ledger.closed
        assert (record.bytes_in, record.bytes_out) == (8 * MIB, 0)


# --- Chargen -------------------------------------------------------------------------------


def test_chargen_sends_the_pattern_of_rfc_864_without_end() -> None:
    with Server(service=Chargen()) as server:
        with dial(server.address) as peer:
            peer.sendall(b"any data received is thrown away")
            assert read_exactly(peer, 5 * MIB) == pattern(5 * MIB)


def test_one_who_floods_chargen_and_does_not_read_is_over_the_limit_of_writing() -> None:
    with Server(service=Chargen(), limits=Limits(write=0.3)) as server:
        with dial_narrow(server.address) as peer, contextlib.suppress(ConnectionError):
            while True:
                peer.sendall(b"x" * KIB)
        assert end_of(server) == ("limit", "write")


def test_chargen_discards_input_of_a_client_that_does_not_read() -> None:
    data = payload(16 * MIB)
    with Server(service=Chargen()) as server, dial_narrow(server.address) as peer:
        peer.sendall(data)
        wait_until(lambda: server.ledger.totals.bytes_in == 16 * MIB)


def test_chargen_ends_at_a_careful_close() -> None:
    with Server(service=Chargen()) as server:
        with dial(server.address) as peer:
            got = read_exactly(peer, 100 * KIB)
            peer.shutdown(socket.SHUT_WR)
            got += read_to_end(peer)
        assert got == pattern(len(got))
        assert end_of(server) == ("peer", None)


def test_chargen_ends_at_a_rude_abort() -> None:
    with Server(service=Chargen()) as server:
        # The reset arrives while the server writes or waits to write.
        for number in range(50):
            peer = dial(server.address)
            size = 100 + 50_000 * (number % 10)
            assert read_exactly(peer, size) == pattern(size)
            reset(peer)
        server.ledger.wait(open=0, closed=50, timeout=10.0)
        assert server.ledger.totals.closed_by["reset"] == 50


def test_chargen_ends_when_one_who_does_not_read_goes() -> None:
    with Server(service=Chargen()) as server:
        peer = dial_narrow(server.address)
        stuck(server)
        # With unread data in its queue, the peer's system answers with a reset.
        peer.close()
        assert end_of(server) == ("reset", None)


def stuck(server: Server) -> int:
    """Wait until the only connection makes no more progress; return how many bytes it has sent."""
    server.ledger.wait(open=1)
    seen: list[int] = []

    def stands() -> bool:
        [record] = server.ledger.open
        seen.append(record.bytes_out)
        time.sleep(0.02)
        return len(seen) > 10 and seen[-1] == seen[-10] > 0

    wait_until(stands, deadline=10.0, what="nothing more is sent")
    return seen[-1]


def test_chargen_holds_no_more_than_the_write_buffer_for_one_who_does_not_read() -> None:
    options = SocketOptions(send_buffer=16 * KIB)
    with Server(service=Chargen(), options=options) as server:
        memory = rss()
        with dial_narrow(server.address) as peer:
            sent = stuck(server)
            assert sent < MIB
            assert rss() - memory < 2 * MIB
            # Nothing was lost or duplicated where the transfer stalled.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
            assert read_exactly(peer, 2 * MIB) == pattern(2 * MIB)


def test_chargen_starves_no_other_connection() -> None:
    with Server(
        service=ByConnection(Chargen(), Chargen(), Chargen(), rest=Echo()), workers=1
    ) as server:
        generators = [dial(server.address) for _ in range(3)]
        readers = [Background(read_exactly, peer, 16 * MIB) for peer in generators]
        with dial(server.address) as bystander:
            rounds = 0
            while any(reader.running for reader in readers):
                assert says_back(bystander)
                rounds += 1
        assert [len(reader.result(20.0)) for reader in readers] == [16 * MIB] * 3
        assert rounds > 10
        for peer in generators:
            peer.close()


def test_chargen_ends_with_its_server() -> None:
    with Server(service=Chargen(), drain=10.0) as server:
        with dial(server.address) as peer:
            reader = Background(read_to_end, peer)
            wait_until(lambda: server.ledger.totals.bytes_out > MIB)
            report = server.stop()
            got = reader.result()
        assert (report.forced, got) == (0, pattern(len(got)))
        assert report.seconds < 5.0
    assert end_of(server) == ("stop", None)


# --- LineEcho ------------------------------------------------------------------------------


def test_lines_come_back_and_exit_closes() -> None:
    with Server(service=LineEcho()) as server:
        with dial(server.address) as peer:
            peer.sendall(b"hello\nwor")
            assert read_exactly(peer, 6) == b"hello\n"
            peer.sendall(b"ld\r\nexit\nnever")
            assert read_to_end(peer) == b"world\r\n"
        assert end_of(server) == ("service", None)


def test_what_has_no_ending_is_answered_when_the_peer_has_finished() -> None:
    with Server(service=LineEcho()) as server:
        with dial(server.address) as peer:
            assert exchange(peer, b"a\nthe rest") == b"a\nthe rest"
        assert end_of(server) == ("peer", None)


def test_lines_may_come_back_without_their_endings() -> None:
    with (
        Server(service=LineEcho(quit="bye", newline=False)) as server,
        dial(server.address) as peer,
    ):
        assert exchange(peer, b"a\n\nb\r\nexit\nbye\nc") == b"abexit"


def test_a_carriage_return_without_a_line_feed_is_no_ending() -> None:
    with Server(service=LineEcho(newline=False)) as server:
        for said, expected in {
            b"a\nb\r": b"ab\r",
            b"exit\r": b"exit\r",
            b"c\r\r\n": b"c\r",
        }.items():
            with dial(server.address) as peer:
                assert exchange(peer, said) == expected


def test_many_lines_come_back_whole_however_they_are_read() -> None:
    lines = b"".join(b"%d\n" % number * (number % 50) for number in range(4_000))
    limits = Limits(write_buffer=4 * KIB)
    options = SocketOptions(send_buffer=8 * KIB, receive_buffer=8 * KIB)
    with Server(service=LineEcho(), limits=limits, options=options) as server:
        with dial(server.address) as peer:
            assert exchange(peer, lines) == lines


def test_a_line_larger_than_the_write_buffer_comes_back_whole() -> None:
    line = payload(300 * KIB, seed=5).replace(b"\n", b"x") + b"exit\n"
    limits = Limits(write_buffer=4 * KIB, line=MIB)
    with Server(service=LineEcho(limit=MIB), limits=limits) as server:
        with dial(server.address) as peer:
            # The end of the line, which equals the quit line when it arrives in parts, is not a
            # quit line.
            assert exchange(peer, line * 3 + b"exit\n" + line) == line * 3
        assert end_of(server)[0] in ("service", "peer")


@pytest.mark.parametrize(
    ("limit", "line"), [(1_000, 65_536), (65_536, 1_000)], ids=["the service's", "the server's"]
)
def test_the_smaller_of_two_limits_of_a_line_holds(limit: int, line: int) -> None:
    with Server(service=LineEcho(limit=limit), limits=Limits(line=line)) as server:
        with dial(server.address) as peer:
            longest = b"x" * 999 + b"\n"
            assert exchange(peer, longest * 50) == longest * 50
        with dial(server.address) as peer:
            peer.sendall(b"x" * 999)
            arrived(peer)
            server.ledger.wait(open=1, closed=1)
            peer.sendall(b"x\n")
            # There is input that the server will not read, so the end may be a reset.
            with contextlib.suppress(ConnectionResetError):
                assert read_to_end(peer) == b""
        server.ledger.wait(open=0, closed=2)
        assert [(record.closed_by, record.limit) for record in server.ledger.closed] == [
            ("peer", None),
            ("limit", "line"),
        ]
    assert server.ledger.totals.closed_by["limit"] == 1


def test_the_limit_of_a_line_concerns_only_those_who_read_lines() -> None:
    limits = Limits(line=1)
    for service, expected in ((Echo(), payload(MIB)), (Discard(), b"")):
        with Server(service=service, limits=limits) as server, dial(server.address) as peer:
            assert exchange(peer, payload(MIB)) == expected


# --- ByConnection --------------------------------------------------------------------------


def test_each_connection_gets_its_own_service() -> None:
    service = ByConnection(Greeting("first"), Discard(), LineEcho(), rest=Quote("rest"))
    with Server(service=service, workers=2) as server:
        expected = [b"first", b"", b"a\n", b"rest", b"rest"]
        for said in expected:
            with dial(server.address) as peer:
                assert exchange(peer, b"a\n") == said


def test_the_last_service_is_that_of_all_later_connections_where_none_is_named() -> None:
    with Server(service=ByConnection(Greeting("busy"), Echo())) as server:
        for said in (b"busy", b"a", b"a"):
            with dial(server.address) as peer:
                assert exchange(peer, b"a") == said


def test_a_forwarder_may_be_one_of_them() -> None:
    with Server() as inner:
        service = ByConnection(Greeting("busy"), Forward(inner))
        with Server(service=service) as outer:
            for said in (b"busy", b"a", b"a"):
                with dial(outer.address) as peer:
                    assert exchange(peer, b"a") == said
        inner.ledger.wait(open=0, closed=2)
    # It is prepared as it would be on its own.
    with pytest.raises(StateError, match="needs its address"):
        Server(service=service).start()


def test_a_cycle_through_a_forwarder_among_others_is_collected() -> None:
    class Owner(Server):
        service_of_mine: ByConnection

    owner = Owner()
    owner.service_of_mine = ByConnection(Echo(), rest=Forward(owner))
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def handler(conn: object) -> None: ...


@pytest.mark.parametrize(
    ("services", "rest", "said"),
    [
        ((), None, "needs a service"),
        ((Echo,), None, "service 1 of ByConnection is a class"),
        ((Echo(),), Accept(), "rest of ByConnection takes connections in another way"),
        ((Echo(), ByConnection(handler)), None, "service 2 .* has handlers of its own"),
        ((Echo(), 3), None, "service 2 .* is no service.*: 3"),
    ],
    ids=["nothing", "a class", "Accept", "nested handlers", "a number"],
)
def test_by_connection_takes_services_and_handlers_only(
    services: tuple[Any, ...], rest: Any, said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        ByConnection(*services, rest=rest)


# --- datagrams -----------------------------------------------------------------------------


def datagram_answers(service: Service, *said: bytes) -> list[bytes]:
    """What a service answers to each datagram on UDP."""
    with Server(service=service, transport="udp") as server:
        with server.client(timeout=10.0) as client:
            answers = []
            for data in said:
                client.send(data)
                answers.append(client.recv(65_535))
        # An answer is counted after it has been sent.
        wait_until(lambda: server.ledger.totals.messages_out == len(said))
        assert server.ledger.totals.messages_in == len(said)
    return answers


def test_daytime_answers_a_datagram_with_a_line() -> None:
    [line] = datagram_answers(Daytime(), b"ignored")
    time_sent = datetime.strptime(line.decode("ascii"), "%A, %B %d, %Y %H:%M:%S-UTC\r\n")
    assert abs(datetime.now(UTC) - time_sent.replace(tzinfo=UTC)) < timedelta(seconds=30)


def test_time_answers_an_empty_datagram_with_32_bits() -> None:
    [word] = datagram_answers(Time(), b"")
    since_1970 = (struct.unpack("!I", word)[0] - 2_208_988_800) % (1 << 32)
    assert abs(time.time() - since_1970) < 30


def test_quote_and_greeting_answer_every_datagram_with_their_text() -> None:
    assert datagram_answers(Quote("quoted"), b"", b"any", b"x" * 9_000) == [b"quoted"] * 3
    # The largest datagram of IPv4.
    message = payload(65_507)
    assert datagram_answers(Greeting(message), b"") == [message]


def test_chargen_answers_each_datagram_with_0_to_512_characters() -> None:
    answers = datagram_answers(Chargen(), *[b"ignored"] * 300)
    assert all(PATTERN.startswith(answer) and len(answer) <= 512 for answer in answers)
    assert len({len(answer) for answer in answers}) > 50


def test_discard_answers_no_datagram() -> None:
    with Server(service=Discard(), transport="udp") as server, server.client() as client:
        for size in (0, 1, 1_000, 65_507):
            client.send(b"x" * size)
        wait_until(lambda: server.ledger.totals.messages_in == 4, 10.0)
        assert server.ledger.totals.messages_out == 0


@pytest.mark.parametrize(
    "service",
    [LineEcho(), ByConnection(Echo()), Greeting(b"x" * 65_508)],
    ids=["LineEcho", "ByConnection", "too long a Greeting"],
)
def test_what_has_no_datagram_form_is_a_type_error_on_udp(service: Service) -> None:
    with pytest.raises(TypeError, match=r"serves streams only; on UDP .* such as Echo\(\)"):
        Server(service=service, transport="udp")


# --- repr, equality ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Echo()",
        "LineEcho()",
        "LineEcho(quit=b'bye')",
        "LineEcho(quit=None, newline=False, limit=100)",
        "Discard()",
        "Chargen()",
        "Daytime()",
        "Time()",
        "Quote(b'it\\'s \"quoted\"\\r\\n\\t\\x00\\xff\\\\')",
        'Quote(b"it\'s")',
        "Greeting(b'Hello, Client!\\x00')",
        "ByConnection(Greeting(b'busy'), Echo(), rest=Discard())",
    ],
)
def test_the_display_of_a_service_is_how_it_is_written(text: str) -> None:
    service = eval(text)
    assert repr(service) == text
    assert text in repr(Server(service=service))
    assert service == eval(text)
    assert hash(service) == hash(eval(text))


def test_services_are_equal_when_they_do_the_same() -> None:
    different = [
        Echo(),
        LineEcho(),
        LineEcho(quit=None),
        LineEcho(limit=100),
        Discard(),
        Time(),
        Quote("a"),
        Quote("b"),
        Greeting("a"),
        ByConnection(Echo()),
        ByConnection(rest=Echo()),
        ByConnection(Echo(), Echo()),
    ]
    assert [[a == b for b in different] for a in different] == [
        [a is b for b in different] for a in different
    ]
    assert len(set(different)) == len(different)
    assert Greeting("a") == Greeting(memoryview(b"a"))
    assert LineEcho() == LineEcho(b"exit", True, 65_536)
    other: object = 3
    assert Echo() != other


def test_a_long_text_is_cut_in_the_display() -> None:
    assert repr(Greeting(b"x" * 400_000)) == f"Greeting(b'{'x' * 60}'… of 400000 bytes)"


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (LineEcho, {"quit": 3}, TypeError, "quit must be bytes or a str, not int: 3"),
    (LineEcho, {"quit": "\ud800"}, ValueError, "quit '.ud800': not valid text"),
    (LineEcho, {"quit": b"a\nb"}, ValueError, r"quit=b'a\\nb': can never come"),
    (LineEcho, {"quit": b"a\r"}, ValueError, r"quit=b'a\\r': can never come"),
    (LineEcho, {"limit": 4}, ValueError, "quit=b'exit': .* limit=4"),
    (LineEcho, {"newline": 1}, TypeError, "newline must be True or False, not int: 1"),
    (LineEcho, {"limit": 0}, ValueError, "limit 0: must be from 1"),
    (LineEcho, {"limit": True}, TypeError, "limit must be an int, not bool: True"),
    (LineEcho, {"limit": None}, TypeError, "limit must be an int, not NoneType"),
    (Quote, {}, TypeError, "needs an argument: text"),
    (Quote, {"text": None}, TypeError, "text must be bytes or a str, not NoneType: None"),
    (Quote, {"text": "ü" * 256}, ValueError, "text of 512 bytes: .*RFC 865"),
    (Greeting, {}, TypeError, "needs an argument: message"),
    (Greeting, {"message": ["a"]}, TypeError, "message must be bytes or a str, not list"),
    (Chargen, {"lines": 1}, TypeError, "lines"),
    (Server, {"service": LineEcho}, TypeError, r"is the class LineEcho; .* LineEcho\(\)"),
]


@pytest.mark.parametrize(("make", "given", "error", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_is_refused_by_name(
    make: Any, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        make(**given)
