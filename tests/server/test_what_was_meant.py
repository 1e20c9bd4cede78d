"""Arguments that are wrong in a way that people are: the error says what was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rsock
from rsock import Client, Echo, Forward, Limits, Server, SocketOptions, Trace

# Typed without checks: each of these calls is wrong.
server: Any = Server
client: Any = Client
forward: Any = Forward
limits: Any = Limits
options: Any = SocketOptions
trace: Any = Trace
services: Any = rsock


def shout(conn: rsock.Connection) -> None:
    """A handler."""


def served(**options: Any) -> object:
    """A client of a server, with options that may be wrong."""
    with Server() as started:
        return started.client(**options)


HOSTS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "server-port-alone": (lambda: server(8080), TypeError, "port=8080"),
    "server-port-as-text": (lambda: server("8080"), ValueError, "port=8080"),
    "server-both": (lambda: server("127.0.0.1:80"), ValueError, '("127.0.0.1", 80)'),
    "server-both-ipv6": (lambda: server("[::1]:80"), ValueError, '("::1", 80)'),
    "server-service-first": (lambda: server(Echo()), TypeError, "service="),
    "server-service-class": (lambda: server(Echo), TypeError, "service="),
    "server-function-first": (lambda: server(shout), TypeError, "service="),
    "server-service-second": (lambda: server("127.0.0.1", Echo()), TypeError, "service="),
    "server-pair-and-service": (lambda: server(("::1", 0), shout), TypeError, "service="),
    "server-list": (lambda: server(["127.0.0.1", 80]), TypeError, "tuple"),
    "server-path": (lambda: server("/tmp/x.sock"), ValueError, "path="),
    "server-path-object": (lambda: server(Path("/tmp/x.sock")), TypeError, "path="),
    "run-server-port-alone": (lambda: services.run_server(8080), TypeError, "port=8080"),
    "client-port-alone": (lambda: client(8080), TypeError, 'Client("127.0.0.1", 8080)'),
    "client-host-alone": (lambda: client("127.0.0.1"), TypeError, "Client(host, port)"),
    "client-both": (lambda: client("localhost:80"), ValueError, '("localhost", 80)'),
    "client-url": (lambda: client("http://a"), ValueError, "not a URL"),
    "client-server": (lambda: client(Server()), TypeError, "*server.address"),
    "client-path": (lambda: client("/tmp/x.sock"), ValueError, "path="),
    "forward-port-alone": (lambda: forward(80), TypeError, "a host and a port"),
    "forward-both": (lambda: forward("127.0.0.1:80"), ValueError, '("127.0.0.1", 80)'),
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_wrong_address_is_told_what_was_meant(name: str) -> None:
    call, kind, meant = HOSTS[name]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert meant in str(caught.value)
    assert "__new__" not in str(caught.value)


class Own(Server):
    """A subclass with an argument of its own."""

    def __init__(self, extra: object, **options: Any) -> None:
        super().__init__(**options)


own: Any = Own

KEYWORDS: dict[str, tuple[Callable[[], object], str]] = {
    "server": (lambda: server(limit=Limits()), "did you mean 'limits'?"),
    "server-of-a-subclass": (lambda: own(1, prot=8080), "did you mean 'port'?"),
    "server-by-a-habit": (lambda: server(handler=shout), "did you mean service=…?"),
    "server-with-a-limit": (
        lambda: server(max_connections=1),
        "did you mean limits=Limits(connections=…)?",
    ),
    "client-with-an-option": (
        lambda: client(nodelay=True),
        "did you mean options=SocketOptions(nodelay=…)?",
    ),
    "server-unlike-any": (lambda: server(zzz=1), "it has host, port, service, "),
    "run-server": (lambda: services.run_server(servce=Echo()), "did you mean 'service'?"),
    "client": (lambda: client(timout=3), "did you mean 'timeout'?"),
    "client-of-a-server": (lambda: served(timout=3), "did you mean 'timeout'?"),
    "limits": (lambda: limits(conections=5), "did you mean 'connections'?"),
    "limits-in-capitals": (lambda: limits(IDLE=5), "did you mean 'idle'?"),
    "limits-with-a-word-more": (lambda: limits(write_timeout=5), "did you mean 'write'?"),
    "limits-unlike-any": (lambda: limits(zzz=5), "it has connections, per_host, "),
    "options": (lambda: options(no_delay=True), "did you mean 'nodelay'?"),
    "options-without-underscore": (lambda: options(reuseaddress=True), "'reuse_address'?"),
    "trace": (lambda: trace(byte=5), "did you mean 'bytes'?"),
    "forward": (lambda: forward("a", 1, conect_timeout=3), "did you mean 'connect_timeout'?"),
    "line-echo": (lambda: services.LineEcho(quitt=b""), "did you mean 'quit'?"),
    "echo": (lambda: services.Echo(quit=1), "it has none"),
    "quote": (lambda: services.Quote(txt="a"), "did you mean 'text'?"),
    "by-connection": (lambda: services.ByConnection(Echo(), rets=Echo()), "did you mean 'rest'?"),
    "handler": (lambda: services.Handler(shout, functon=1), "did you mean 'function'?"),
    "accept": (lambda: services.Accept(x=1), "it has none"),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_an_unknown_keyword_is_told_what_was_meant(name: str) -> None:
    call, meant = KEYWORDS[name]
    with pytest.raises(TypeError) as caught:
        call()
    text = str(caught.value)
    assert "() got an unexpected keyword argument '" in text
    assert meant in text
    assert "__" not in text


def test_settings_take_keywords_only() -> None:
    for make in (limits, options, trace):
        with pytest.raises(TypeError, match="keywords only"):
            make(5)


def test_what_explains_a_keyword_changes_no_signature() -> None:
    assert next(iter(inspect.signature(Limits).parameters)) == "connections"
    assert str(inspect.signature(rsock.ByConnection)) == "(*services, rest=None)"
    assert str(inspect.signature(Echo)) == "()"


def test_a_host_of_digits_alone_is_still_an_address_where_a_port_is_given() -> None:
    # As inet_aton(3) reads it.
    assert Server("0", 0).host == "0"
    assert Server("0").host == "0"
