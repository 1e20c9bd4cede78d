"""Invalid input is refused at once, with the right exception, and leaves nothing open."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import socketserver
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from support import (
    LOOPBACK,
    closed_port,
    error_number,
    given_back,
    has_ipv6,
    held,
    listener,
    output_of,
    reserved_port,
)

from rsock import Accept, Client, Echo, Handler, Limits, Server, SocketOptions
from rsock.faults import Latency

# Every call that takes an address. `Any`, because the values are wrong on purpose.
Place = Callable[[Any, Any], object]


def connect(host: Any, port: Any) -> None:
    with Client() as client:
        client.connect((host, port))


def connect_ex(host: Any, port: Any) -> None:
    with Client() as client:
        client.connect_ex((host, port))


PLACES: dict[str, Place] = {
    "Server": Server,
    "Server of a pair": lambda host, port: Server((host, port)),
    "bind": lambda host, port: Server().bind((host, port)),
    "Client": Client,
    "Client of a pair": lambda host, port: Client((host, port)),
    "connect": connect,
    "connect_ex": connect_ex,
}
everywhere = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def refused_at_once(
    kind: type[Exception], place: Place, host: object, port: object, *named: str
) -> None:
    """Check that `place` refuses the address quickly, names the value, and leaves nothing open."""
    before = held()
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        place(host, port)
    took = time.monotonic() - began
    assert caught.type is kind
    for text in named:
        assert text in str(caught.value)
    # Far less than a query to a resolver takes.
    assert took < 0.2
    # The traceback may hold objects; those are not leaks of the library.
    caught.value.__traceback__ = None
    given_back(before)


@everywhere
@pytest.mark.parametrize("port", [-1, 65_536, 1 << 40, -(1 << 70)])
def test_a_port_out_of_range_is_an_overflow_error(place: Place, port: int) -> None:
    refused_at_once(OverflowError, place, LOOPBACK, port, str(port))


@everywhere
@pytest.mark.parametrize("port", [1.5, b"80", (80,)])
def test_a_port_of_another_type_is_a_type_error(place: Place, port: object) -> None:
    refused_at_once(TypeError, place, LOOPBACK, port)


@everywhere
@pytest.mark.parametrize("port", ["no-such-service", "", "ht tp"])
def test_an_unknown_port_name_is_an_error_of_the_resolver(place: Place, port: str) -> None:
    refused_at_once(socket.gaierror, place, LOOPBACK, port, port)


@everywhere
def test_a_port_name_with_a_nul_is_a_value_error(place: Place) -> None:
    refused_at_once(ValueError, place, LOOPBACK, "http\0", "http")


@everywhere
@pytest.mark.parametrize(
    "host",
    ["evil host", " evil", "evil ", "evil\0host", "evil" * 75, "evil\udc80host"],
    ids=["space inside", "space before", "space after", "NUL", "300 characters", "surrogate"],
)
def test_a_host_that_cannot_be_one_is_a_value_error(place: Place, host: str) -> None:
    refused_at_once(ValueError, place, host, 80, "evil")


@everywhere
def test_an_empty_host_is_a_value_error(place: Place) -> None:
    refused_at_once(ValueError, place, "", 80)


def test_an_empty_host_for_a_server_is_refused_naming_the_wildcards() -> None:
    refused_at_once(ValueError, Server, "", 0, '"0.0.0.0"', '"::"')


@everywhere
@pytest.mark.parametrize("host", [5, b"127.0.0.1", 1.5])
def test_a_host_of_another_type_is_a_type_error(place: Place, host: object) -> None:
    refused_at_once(TypeError, place, host, 80)


@pytest.mark.parametrize("address", [(LOOPBACK,), (LOOPBACK, 0, 0), (), 5])
def test_an_address_that_is_no_pair_is_a_type_error(address: Any) -> None:
    with pytest.raises(TypeError):
        Server(address)
    with pytest.raises(TypeError):
        Server().bind(address)
    with pytest.raises(TypeError):
        Client(address)
    with Client() as client, pytest.raises(TypeError):
        client.connect(address)


# --- addresses the system refuses ----------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        lambda: Server("nonexistent.invalid").start(),
        lambda: Server().bind(("nonexistent.invalid", 0)),
        lambda: Client("nonexistent.invalid", 80),
        lambda: connect("nonexistent.invalid", 80),
    ],
    ids=["start", "bind", "Client", "connect"],
)
def test_an_unknown_host_is_a_gaierror_with_its_code(place: Callable[[], object]) -> None:
    with pytest.raises(socket.gaierror) as caught:
        place()
    codes = {value for name, value in vars(socket).items() if name.startswith("EAI_")}
    assert caught.value.errno in codes
    assert caught.value.args[0] == caught.value.errno


def test_an_unknown_host_is_no_matter_for_the_constructor() -> None:
    before = held()
    assert Server("nonexistent.invalid").state == "new"
    given_back(before)


def test_a_taken_port_is_named_with_step_and_address() -> None:
    with listener() as holder:
        port = holder.getsockname()[1]
        before = held()
        with pytest.raises(OSError, match="Address already in use") as caught:
            Server(LOOPBACK, port).start()
        assert caught.value.errno == errno.EADDRINUSE
        assert f"bind {LOOPBACK}:{port}: Address already in use" in str(caught.value)
        caught.value.__traceback__ = None
        given_back(before)


@pytest.mark.parametrize("step", ["bind", "listen", "start"])
def test_every_step_that_binds_says_so_of_a_taken_port(step: str) -> None:
    with listener() as holder:
        port = holder.getsockname()[1]
        server = Server(LOOPBACK, port)
        with pytest.raises(OSError, match=f"bind {LOOPBACK}:{port}: ") as caught:
            getattr(server, step)()
        assert caught.value.errno == errno.EADDRINUSE


def test_a_port_taken_by_a_server_of_this_process_names_it_and_how_to_stop_it() -> None:
    with Server(name="the first one") as first:
        with pytest.raises(OSError, match="Address already in use") as caught:
            Server(LOOPBACK, first.port).start()
        assert caught.value.errno == errno.EADDRINUSE
        text = str(caught.value)
        assert f"bind {LOOPBACK}:{first.port}: Address already in use" in text
        assert "the first one" in text
        assert "stop" in text.partition("in use")[2]
        assert first.state == "serving"


def test_a_port_taken_by_a_server_on_the_wildcard_names_it_too() -> None:
    with Server("0.0.0.0", name="everywhere") as first:
        with pytest.raises(OSError, match="everywhere") as caught:
            Server(LOOPBACK, first.port).start()
        assert caught.value.errno == errno.EADDRINUSE


def test_the_call_that_the_message_names_frees_the_port() -> None:
    with reserved_port() as port:
        first = Server(LOOPBACK, port, name="in the way").start()
        with pytest.raises(OSError, match="in the way"):
            Server(LOOPBACK, port).start()
        first.stop()
        with Server(LOOPBACK, port) as second:
            assert second.port == port


PRIVILEGED = """
import os, socket
import rsock
if os.getuid() == 0:
    os.setuid(65534)
try:
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 7))
except PermissionError:
    try:
        rsock.Server("127.0.0.1", 7).start()
    except OSError as error:
        print(type(error).__name__, error.errno, error)
else:
    print("allowed")
"""


def test_a_privileged_port_is_a_permission_error_with_step_and_address() -> None:
    said = output_of(PRIVILEGED).strip()
    if said == "allowed":
        pytest.skip("this system lets everybody bind low ports")
    assert said.startswith(f"PermissionError {errno.EACCES} ")
    assert "bind 127.0.0.1:7: Permission denied" in said


@pytest.mark.skipif(
    Path("/proc/sys/net/ipv4/ip_nonlocal_bind").read_text().strip() != "0",
    reason="this system binds foreign addresses",
)
def test_a_foreign_address_is_named_with_step_and_address() -> None:
    before = held()
    with pytest.raises(OSError, match=r"bind 203\.0\.113\.1:0: ") as caught:
        Server("203.0.113.1").start()
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert os.strerror(errno.EADDRNOTAVAIL) in str(caught.value)
    caught.value.__traceback__ = None
    given_back(before)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_taken_ipv6_port_is_shown_in_brackets() -> None:
    with listener("::1") as holder:
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match="Address already in use") as caught:
            Server("::1", port).start()
        assert f"bind [::1]:{port}: " in str(caught.value)


def test_a_refused_connection_is_named_with_step_and_address() -> None:
    with closed_port() as (host, port):
        before = held()
        with pytest.raises(ConnectionRefusedError) as caught:
            Client(host, port)
        assert caught.value.errno == errno.ECONNREFUSED
        assert f"connect {host}:{port}: Connection refused" in str(caught.value)
        caught.value.__traceback__ = None
        given_back(before)


# --- services and other arguments ----------------------------------------------------------


async def coroutine_function(connection: object) -> None: ...


async def asynchronous_generator(connection: object) -> AsyncIterator[bytes]:
    yield b""


def generator(connection: object) -> Iterator[bytes]:
    yield b""


def function_of_none() -> None: ...


def function_of_two(connection: object, more: object) -> None: ...


class Awaited:
    async def __call__(self, connection: object) -> None: ...


class Requests(socketserver.BaseRequestHandler): ...


class Lines(asyncio.Protocol): ...


class Whatever: ...


@pytest.mark.parametrize(
    ("service", "instead"),
    [
        (5, "Echo()"),
        ("Echo", "Echo()"),
        ([], "Echo()"),
        (object(), "Echo()"),
        (Echo, "Echo()"),
        (Accept, "Accept()"),
        (Whatever, "Echo()"),
        (Requests, "function of one connection"),
        (Lines, "function of one connection"),
        (coroutine_function, "def coroutine_function(conn)"),
        (functools.partial(coroutine_function), "plain function"),
        (asynchronous_generator, "plain function"),
        (Awaited(), "plain function"),
        (generator, "plain function"),
        (function_of_none, "one argument"),
        (function_of_two, "functools.partial"),
        (lambda: None, "one argument"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_object_that_is_no_service_is_refused_naming_what_would_be(
    service: Any, instead: str
) -> None:
    before = held()
    with pytest.raises(TypeError) as caught:
        Server(service=service)
    assert instead in str(caught.value)
    given_back(before)
    # A function of two parameters may be a handler of datagrams.
    if callable(service) and service is not function_of_two:
        with pytest.raises(TypeError) as caught:
            Handler(service)
        assert instead in str(caught.value)


@pytest.mark.parametrize(
    "service",
    [print, functools.partial(function_of_two, more=1), lambda _, __=True: None, [].append],
    ids=["builtin", "partial", "default", "method"],
)
def test_whatever_takes_one_argument_may_be_a_handler(service: Any) -> None:
    handler = Server(service=service).service
    assert isinstance(handler, Handler)
    assert handler.function is service


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transport", "sctp"),
        ("path", ""),
        ("seed", -1),
        ("seed", 2**64),
        ("on_error", "print"),
        ("workers", 0),
        ("workers", -1),
        ("history", -1),
        ("drain", -0.5),
        ("drain", float("nan")),
    ],
)
def test_an_argument_of_server_it_cannot_honour_is_named(name: str, value: Any) -> None:
    before = held()
    with pytest.raises(ValueError, match=name):
        Server(**{name: value})
    given_back(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "many"),
        ("workers", 1.5),
        ("history", "long"),
        ("drain", "soon"),
        ("name", 5),
        ("limits", 100),
        ("trace", 1),
        ("trace", {"bytes": 1}),
        ("limits", {"connections": 1}),
        ("options", {"nodelay": True}),
        ("fd", "3"),
        ("on_error", 5),
    ],
)
def test_an_argument_of_server_of_another_type_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        Server(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transport", "sctp"),
        ("path", ""),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("spin", -1.0),
        ("spin", float("nan")),
    ],
)
def test_an_argument_of_client_it_cannot_honour_is_named(name: str, value: Any) -> None:
    before = held()
    with pytest.raises(ValueError, match="(?i)" + name):
        Client(**{name: value})
    given_back(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", "soon"), ("spin", "fast"), ("options", 5), ("source_address", 5)],
)
def test_an_argument_of_client_of_another_type_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        Client(**{name: value})


@pytest.mark.parametrize("arguments", [{"ports": 80}, {"Host": "x"}])
def test_an_unknown_argument_is_a_type_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Server(**arguments)
    with pytest.raises(TypeError):
        Client(**arguments)


def test_a_descriptor_below_zero_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="-1"):
        Server(fd=-1)


def test_a_descriptor_that_is_no_listening_socket_is_refused() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises((OSError, ValueError)):
            Server(fd=reader).start()
        os.fstat(reader)  # still owned by the caller
    finally:
        os.close(reader)
        os.close(writer)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert error_number(Server(fd=reader).start) == errno.EBADF


@pytest.mark.parametrize("faults", ["latency", b"", 0, [0], (object(),), Latency, [Latency]])
def test_what_is_no_fault_is_refused(faults: Any) -> None:
    with pytest.raises(TypeError, match=r"faults|Latency is a class"):
        Server(faults=faults)


@pytest.mark.parametrize("path", [1, b"/", ("/",)])
def test_a_path_of_a_url_that_is_none_is_named(path: Any) -> None:
    with Server() as server, pytest.raises(TypeError, match="path") as caught:
        server.url("http", path)
    assert repr(path) in str(caught.value)


def test_seconds_beyond_every_float_are_as_long_as_there_is() -> None:
    Server(drain=10**400)
    with pytest.raises(ValueError, match="drain -1000"):
        Server(drain=-(10**400))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"path": "\0none", "limits": Limits(per_host=7)}, "per_host=7"),
        ({"path": "\0none", "options": SocketOptions(mode=0o600)}, "mode=0o600"),
        ({"options": SocketOptions(mode=0o600)}, "mode=0o600"),
        ({"options": SocketOptions(linger=2)}, "linger=2"),
    ],
)
def test_an_option_that_does_not_fit_the_server_is_named_with_its_value(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Server(**options)


# --- limits and options --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("per_host", 0),
        ("idle", 0.0),
        ("first_byte", -1.0),
        ("write", float("inf")),
        ("line", 0),
        ("line", 2**31),
        ("datagram", 0),
        ("datagram", (1 << 23) + 1),
        ("handler_threads", 0),
        ("handler_threads", 10_001),
        ("connections", 0),
        ("connections", -1),
        ("overflow", "drop"),
        ("half_close", -1.0),
        ("half_close", 0.0),
        ("half_close", float("nan")),
        ("half_close", float("inf")),
        ("write_buffer", 0),
        ("write_buffer", -65_536),
    ],
)
def test_a_limit_that_cannot_hold_is_named_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Server(limits=Limits(**{name: value}))
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connections", "many"),
        ("connections", 1.5),
        ("connections", True),
        ("overflow", 1),
        ("half_close", "long"),
        ("line", None),
        ("write_buffer", None),
        ("write_buffer", 1e6),
    ],
)
def test_a_limit_of_another_type_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", 0o1000),
        ("backlog", -1),
        ("linger", -1),
        ("linger", 0.5),
        ("send_buffer", 0),
        ("send_buffer", 1 << 40),
        ("receive_buffer", -1),
        ("max_segment", -1),
        ("max_segment", 70_000),
        ("keepalive", (0, 10, 5)),
        ("keepalive", (60, 40_000, 5)),
        ("keepalive", (60, 10, 128)),
        ("user_timeout", 0),
        ("user_timeout", -1.0),
        ("user_timeout", 1e9),
    ],
)
def test_a_socket_option_that_cannot_be_set_is_named_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        SocketOptions(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nodelay", 1),
        ("backlog", "16"),
        ("keepalive", "yes"),
        ("keepalive", 60),
        ("keepalive", (60, 10)),
        ("keepalive", (60.0, 10, 5)),
        ("keepalive", [60, 10, 5]),
        ("user_timeout", "30"),
        ("send_buffer", 4096.0),
    ],
)
def test_a_socket_option_of_another_type_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        SocketOptions(**{name: value})


@pytest.mark.parametrize(("kind", "field"), [(Limits, "connections"), (SocketOptions, "backlog")])
def test_limits_and_options_are_given_by_name_and_never_change(kind: type[Any], field: str) -> None:
    with pytest.raises(TypeError):
        kind(4)
    with pytest.raises(TypeError):
        kind(conections=4)
    with pytest.raises(FrozenInstanceError):
        setattr(kind(), field, 1)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())


def test_a_server_tells_the_limits_and_options_it_was_given() -> None:
    limits, options = Limits(connections=3), SocketOptions(backlog=7)
    server = Server(limits=limits, options=options)
    assert (server.limits, server.options) == (limits, options)
    assert (Server().limits, Server().options) == (Limits(), SocketOptions())


# --- use after close -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.recv(1),
        lambda c: c.recv_into(bytearray(1)),
        lambda c: c.recv_exactly(1),
        lambda c: c.recv_until(b"x"),
        lambda c: c.recv_line(),
        lambda c: c.send(b"x"),
        lambda c: c.sendall(b"x"),
        lambda c: c.shutdown(socket.SHUT_WR),
        lambda c: c.getpeername(),
        lambda c: c.getsockname(),
        lambda c: c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        lambda c: c.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        lambda c: c.connect((LOOPBACK, 80)),
        lambda c: c.tcp_info,
        lambda c: c.five_tuple,
    ],
    ids=[
        "recv",
        "recv_into",
        "recv_exactly",
        "recv_until",
        "recv_line",
        "send",
        "sendall",
        "shutdown",
        "getpeername",
        "getsockname",
        "setsockopt",
        "getsockopt",
        "connect",
        "tcp_info",
        "five_tuple",
    ],
)
def test_a_closed_client_answers_with_a_bad_descriptor(
    echo: Server, use: Callable[[Client], object]
) -> None:
    client = echo.client()
    client.close()
    assert error_number(lambda: use(client)) == errno.EBADF
