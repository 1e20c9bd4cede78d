"""Python and datagrams: handlers of (data, address), and `Accept()` with `sendto`."""

from __future__ import annotations

import contextvars
import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import (
    SOON,
    Background,
    all_sleeping,
    error_number,
    given_back,
    held,
    run_script,
    threads,
    wait_until,
)

from rsock import (
    Accept,
    Client,
    Discard,
    Echo,
    Handler,
    Limits,
    LineEcho,
    Server,
    SocketOptions,
    StateError,
)

Address = tuple[str, int]


def shout(data: bytes, address: Address) -> bytes | None:
    return data.upper()


def ask(server: Server, data: bytes) -> bytes:
    with server.client(timeout=SOON) as client:
        client.send(data)
        return client.recv(70_000)


@pytest.fixture
def asked() -> Iterator[Server]:
    """A server with `Accept()`, whose datagrams a test receives by calls."""
    with Server(service=Accept(), transport="udp") as server:
        yield server


# --- handlers ------------------------------------------------------------------------------


def test_a_function_answers_with_what_it_returns() -> None:
    seen: list[tuple[bytes, Address]] = []

    def handle(data: bytes, address: Address) -> bytes | None:
        seen.append((data, address))
        return data.upper()

    with Server(service=handle, transport="udp") as server:
        with server.client(timeout=SOON) as client:
            client.send(b"hello")
            assert client.recv(10) == b"HELLO"
            mine = client.getsockname()
        assert seen == [(b"hello", mine)]
        assert repr(server.service) == f"Handler({handle.__qualname__})"
        (record,) = server.ledger.wait(open=1)
        assert (record.messages_in, record.bytes_out) == (1, 5)
    assert record.closed_by == "stop"


def test_nothing_is_sent_for_none_and_an_empty_datagram_for_no_bytes() -> None:
    def handle(data: bytes, address: Address) -> bytes | None:
        return None if data == b"quiet" else b""

    with Server(service=Handler(handle), transport="udp") as server:
        with server.client(timeout=SOON) as client:
            client.send(b"quiet")
            client.send(b"aloud")
            assert client.recv(10) == b""
        (record,) = server.ledger.open
        wait_until(lambda: record.messages_out == 1)
        assert record.messages_in == 2


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_has_bytes_is_an_answer(kind: Any) -> None:
    with Server(service=lambda data, address: kind(b"answer"), transport="udp") as server:
        assert ask(server, b"?") == b"answer"


def test_slow_handlers_do_not_hold_up_the_others() -> None:
    gate = threading.Event()

    def handle(data: bytes, address: Address) -> bytes | None:
        if data == b"slow":
            gate.wait(SOON)
        return data

    with Server(service=handle, transport="udp") as server:
        with server.client(timeout=SOON) as slow:
            slow.send(b"slow")
            assert ask(server, b"quick") == b"quick"
            gate.set()
            assert slow.recv(10) == b"slow"


def test_datagrams_wait_where_there_are_no_more_threads() -> None:
    gate = threading.Event()
    running: list[bytes] = []

    def handle(data: bytes, address: Address) -> bytes | None:
        running.append(data)
        gate.wait(SOON)
        return data

    limits = Limits(handler_threads=2)
    service = Handler(handle, ordered=False)
    with Server(service=service, transport="udp", limits=limits) as server:
        with server.client(timeout=SOON) as client:
            # More datagrams than are taken from the kernel at a time.
            sent = {b"%d" % number for number in range(200)}
            for data in sent:
                client.send(data)
            wait_until(lambda: len(running) == 2)
            assert len([name for name in threads().values() if "handler" in name]) <= 2
            gate.set()
            assert {client.recv(10) for _ in sent} == sent
        assert len(running) == 200
        assert server.ledger.totals.waited > 0


def test_each_call_has_a_context_of_its_own() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    found: list[str] = []

    def handle(data: bytes, address: Address) -> bytes | None:
        found.append(variable.get())
        variable.set("set")
        return data

    with Server(service=handle, transport="udp") as server:
        for _ in range(3):
            ask(server, b"x")
    assert found == ["unset"] * 3


# --- exceptions in handlers ----------------------------------------------------------------


def boom(data: bytes, address: Address) -> bytes | None:
    raise LookupError(data.decode())


def test_an_exception_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def handle(data: bytes, address: Address) -> bytes | None:
        return boom(data, address) if data == b"boom" else data

    with caplog.at_level(logging.ERROR, "rsock"), Server(service=handle, transport="udp") as server:
        with server.client(timeout=SOON) as client:
            client.send(b"boom")
            (record,) = server.ledger.wait(closed=1)
            assert (record.closed_by, record.error) == ("error", "LookupError: boom")
            client.send(b"still here")
            assert client.recv(20) == b"still here"
            mine = client.getsockname()
        # An error is logged after its record is closed, and before the stop has ended.
        assert server.stop().errors == 1
        assert [str(error) for error in server.errors] == ["boom"]
    (logged,) = caplog.records
    assert logged.getMessage() == (
        f"an exception in the handler of a datagram from {mine[0]}:{mine[1]}"
    )
    assert logged.exc_info is not None
    frames = logged.exc_text or ""
    assert "in boom" in frames
    assert "rsock/_handlers.py" not in frames


def test_exceptions_are_raised_or_called_with() -> None:
    server = Server(service=boom, transport="udp", on_error="raise").start()
    with server.client() as client:
        client.send(b"one")
        client.send(b"two")
        wait_until(lambda: len(server.errors) == 2)
    with pytest.raises(ExceptionGroup) as raised:
        server.stop()
    assert sorted(str(error) for error in raised.value.exceptions) == ["one", "two"]
    called: list[BaseException] = []
    with Server(service=boom, transport="udp", on_error=called.append) as server:
        with server.client() as client:
            client.send(b"three")
            wait_until(lambda: called)
    assert [str(error) for error in called] == ["three"]


@pytest.mark.parametrize("answer", ["text", 5, [b"x"]], ids=["str", "int", "list"])
def test_an_answer_of_another_kind_is_an_error(answer: Any) -> None:
    errors: list[BaseException] = []
    with Server(
        service=lambda data, address: answer, transport="udp", on_error=errors.append
    ) as server:
        with server.client() as client:
            client.send(b"?")
            wait_until(lambda: errors)
        assert server.ledger.totals.closed_by["error"] == 1
    assert isinstance(errors[0], TypeError)
    assert "bytes, or None" in str(errors[0])


def test_an_answer_that_no_datagram_has_room_for_is_an_error() -> None:
    errors: list[BaseException] = []
    with Server(
        service=lambda data, address: bytes(65_508), transport="udp", on_error=errors.append
    ) as server:
        with server.client() as client:
            client.send(b"?")
            wait_until(lambda: errors)
        assert server.ledger.totals.dropped == 1
    assert isinstance(errors[0], OSError)
    assert errors[0].errno == errno.EMSGSIZE


def test_answers_that_cannot_be_sent_leave_room_for_what_comes() -> None:
    # The system queues an error report for each beside the received data, in the same small buffer.
    options = SocketOptions(receive_buffer=4096)
    with (
        Server(
            service=lambda data, address: bytes(65_508) if data == b"all" else data,
            transport="udp",
            options=options,
            on_error=lambda error: None,
        ) as server,
        server.client(timeout=SOON) as client,
    ):
        for number in range(30):
            client.send(b"all")
            client.send(b"%d" % number)
            assert client.recv(10) == b"%d" % number
        wait_until(lambda: server.ledger.totals.dropped == 30)


def test_a_handler_that_exits_ends_the_server() -> None:
    def handle(data: bytes, address: Address) -> bytes | None:
        raise SystemExit(3)

    server = Server(service=handle, transport="udp").start()
    with server.client() as client:
        client.send(b"?")
        with pytest.raises(SystemExit):
            server.wait(SOON)


# --- the end -------------------------------------------------------------------------------


def test_what_waits_when_the_stop_begins_is_answered() -> None:
    server = Server(service=shout, transport="udp", drain=SOON)
    server.bind()
    with Client(*server.address, transport="udp", timeout=SOON) as client:
        sent = [b"n%d" % number for number in range(150)]
        for data in sent:
            client.send(data)
        server.start()
        report = server.stop()
        assert {client.recv(10) for _ in sent} == {data.upper() for data in sent}
    assert (report.drained, report.forced, report.abandoned) == (1, 0, 0)


def test_a_handler_that_does_not_return_is_abandoned() -> None:
    gate, inside = threading.Event(), threading.Event()

    def handle(data: bytes, address: Address) -> bytes | None:
        inside.set()
        gate.wait(SOON)
        return b"too late"

    server = Server(service=handle, transport="udp").start()
    with server.client(timeout=SOON) as client:
        client.send(b"?")
        assert inside.wait(SOON)
        started = time.monotonic()
        report = server.stop(0.1)
        assert time.monotonic() - started < 2.0
        assert report.abandoned == 1
        # A late handler does not keep the port.
        Server(*server.address, transport="udp").start().stop()
        gate.set()
        # Its answer is not sent.
        wait_until(lambda: not [name for name in threads().values() if "handler" in name])
        assert server.ledger.totals.messages_out == 0


def test_a_handler_may_stop_its_server() -> None:
    reports: list[Any] = []

    def handle(data: bytes, address: Address) -> bytes | None:
        reports.append(server.stop())
        return None

    server = Server(service=handle, transport="udp").start()
    with server.client() as client:
        client.send(b"stop")
        assert server.wait(SOON).cause == "stop"
    wait_until(lambda: reports)


def test_an_idle_server_gives_all_back_at_once() -> None:
    before = held()
    server = Server(service=shout, transport="udp").start()
    ask(server, b"x")
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 1.0
    given_back(before)


def test_an_unreferenced_server_ends() -> None:
    code = (
        "import gc, logging, socket, warnings\n"
        "from rsock import Server\n"
        "warnings.simplefilter('ignore')\n"
        "logging.disable()\n"
        "server = Server(service=lambda data, address: data, transport='udp').start()\n"
        "with server.client(timeout=5) as client:\n"
        "    client.send(b'x'); client.recv(1)\n"
        "address = server.address\n"
        "del server; gc.collect()\n"
        "import time; end = time.monotonic() + 5\n"
        "while True:\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:\n"
        "        try:\n"
        "            probe.bind(address)\n"
        "            break\n"
        "        except OSError:\n"
        "            assert time.monotonic() < end\n"
    )
    done = run_script(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_left_running_does_not_hold_up_the_exit() -> None:
    code = (
        "from rsock import Server, Accept\n"
        "for service in (None, lambda data, address: data, Accept()):\n"
        "    server = Server(service=service, transport='udp').start()\n"
        "    globals()[repr(service)] = server\n"
    )
    done = run_script(code, deadline=10.0)
    assert (done.returncode, done.stderr) == (0, "")


# --- Accept() and sendto -------------------------------------------------------------------


def test_accept_gives_data_and_address_and_sendto_answers(asked: Server) -> None:
    with asked.client(timeout=SOON) as client:
        client.send(b"question")
        data, address = asked.accept(SOON)
        assert (data, address) == (b"question", client.getsockname())
        assert asked.sendto(b"answer", address) == 6
        assert client.recv(10) == b"answer"
        client.send(b"")
        assert asked.accept(SOON) == (b"", client.getsockname())
    (record,) = asked.ledger.open
    assert (record.messages_in, record.messages_out, record.bytes_out) == (2, 1, 6)


def test_nothing_is_taken_before_it_is_asked_for(asked: Server) -> None:
    with asked.client(timeout=SOON) as client:
        for number in range(5):
            client.send(b"%d" % number)
        assert asked.ledger.totals.accepted == 0
        assert [asked.accept(SOON)[0] for _ in range(5)] == [b"%d" % n for n in range(5)]
    with pytest.raises(TimeoutError):
        asked.accept(0.01)


def test_iteration_ends_when_the_server_stops(asked: Server) -> None:
    def serve() -> int:
        count = 0
        for data, (host, port) in asked:
            asked.sendto(data.upper(), (host, port))
            count += 1
        return count

    loop = Background(serve)
    for number in range(10):
        assert ask(asked, b"n%d" % number) == b"N%d" % number
    wait_until(loop.asleep)
    assert asked.stop().forced == 0
    assert loop.result() == 10


def test_a_waiting_accept_ends_with_the_stop(asked: Server) -> None:
    waiting = Background(asked.accept)
    wait_until(waiting.asleep)
    started = time.monotonic()
    asked.stop()
    with pytest.raises(StateError):
        waiting.result()
    assert time.monotonic() - started < 2.0
    with pytest.raises(StateError):
        asked.sendto(b"late", ("127.0.0.1", 9999))


def test_a_server_may_write_first(asked: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(SOON)
        asked.sendto(b"news", peer.getsockname())
        assert peer.recvfrom(10) == (b"news", asked.address)
        (record,) = asked.ledger.open
        assert (record.messages_in, record.messages_out) == (0, 1)
        assert error_number(lambda: asked.sendto(bytes(65_508), peer.getsockname())) == 90


def test_accept_times_out_also_after_a_refused_send(asked: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        # Connected to one peer only, so that the system rejects what others send.
        deaf.bind(("127.0.0.1", 0))
        deaf.connect(("127.0.0.1", 9))
        refusing = deaf.getsockname()
        asked.sendto(b"refused", refusing)
        # The error is read although no call waits for a datagram.
        (record,) = asked.ledger.wait(closed=1)
        with asked.client(timeout=SOON) as peer:
            asked.sendto(b"news", peer.getsockname())
            assert peer.recv(10) == b"news"
    assert (record.remote.address, record.closed_by) == (refusing, "reset")
    with pytest.raises(TimeoutError):
        Background(asked.accept, 0.01).result()


def test_a_server_with_an_idle_limit_sleeps_after_an_answer_that_cannot_be_sent() -> None:
    with Server(
        service=lambda data, address: bytes(65_508),
        transport="udp",
        limits=Limits(idle=60.0),
        on_error=lambda error: None,
    ) as server:
        with server.client() as client:
            client.send(b"all")
            wait_until(lambda: server.ledger.totals.dropped == 1)
        (worker,) = (number for number, name in threads().items() if name == "rsock-worker-0")
        wait_until(lambda: all_sleeping([worker]))


def test_an_address_that_may_not_be_written_to_takes_no_slot() -> None:
    limits = Limits(connections=1)
    with Server(service=Accept(), transport="udp", limits=limits) as server:
        with server.client() as client:
            client.send(b"x")
            server.accept(SOON)
            with pytest.raises(PermissionError, match="no more than it has sent"):
                server.sendto(b"unasked", ("192.0.2.1", 9999))
            (record,) = server.ledger
            assert (record.remote.address, record.closed_by) == (client.getsockname(), None)
        assert server.ledger.totals.dropped == 1


def test_what_is_too_long_is_cut_and_counted() -> None:
    with Server(service=Accept(), transport="udp", limits=Limits(datagram=4)) as server:
        with server.client() as client:
            client.send(b"longer")
            client.send(b"fits")
            assert [server.accept(SOON)[0] for _ in range(2)] == [b"long", b"fits"]
        assert server.ledger.totals.truncated == 1


def test_silent_peers_are_forgotten() -> None:
    limits = Limits(idle=0.05)
    with Server(service=Accept(), transport="udp", limits=limits) as server:
        with server.client() as client:
            client.send(b"x")
            server.accept(SOON)
            (record,) = server.ledger.wait(open=0, closed=1)
        assert (record.closed_by, record.limit) == ("limit", "idle")


# --- what is refused -----------------------------------------------------------------------


def test_a_function_must_take_what_its_transport_gives() -> None:
    with pytest.raises(TypeError, match="on UDP with two arguments, the data and the sender"):
        Server(service=lambda conn: None, transport="udp")
    with pytest.raises(TypeError, match="with one argument, the connection"):
        Server(service=shout)
    with pytest.raises(TypeError, match="on UDP with two arguments"):
        Server(service=Handler(lambda conn: None), transport="udp")
    with pytest.raises(TypeError, match="a handler is called"):
        Handler(lambda: None)  # type: ignore[arg-type]

    async def later(data: bytes, address: Address) -> bytes | None:
        return None

    with pytest.raises(TypeError, match="coroutine function"):
        Server(service=later, transport="udp")  # type: ignore[arg-type]


def test_services_of_streams_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"LineEcho.* serves streams only; on UDP") as raised:
        Server(service=LineEcho(), transport="udp")
    assert "Echo()" in str(raised.value)
    Server(service=Discard(), transport="udp")


def test_sendto_is_for_python_alone() -> None:
    with Server(service=Echo(), transport="udp") as server:
        with pytest.raises(TypeError, match="sendto"):
            server.sendto(b"x", ("127.0.0.1", 9999))
        with pytest.raises(TypeError, match="accept"):
            server.accept()
    with Server(service=Accept()) as server, pytest.raises(TypeError, match="sendto"):
        server.sendto(b"x", ("127.0.0.1", 9999))
    with pytest.raises(StateError):
        Server(service=Accept(), transport="udp").sendto(b"x", ("127.0.0.1", 9999))
