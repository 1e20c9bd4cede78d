"""A subclass of Server or Client may have an `__init__` of its own, as with `socket.socket`."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import pytest
from support import given_back, held, says_back

from rsock import Client, Server, StateError


class Labelled(Server):
    def __init__(self, label: str, *, port: int = 0, extra: object = None) -> None:
        self.extra = extra
        super().__init__("127.0.0.1", port, name=label)


class Greeting(Client):
    def __init__(self, server: Server, greeting: bytes) -> None:
        super().__init__(*server.address, timeout=5.0)
        self.greeting = greeting
        self.sendall(greeting)


class Mixin:
    def __init__(self, *args: Any, mixed: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mixed = mixed


class MixedServer(Mixin, Server):
    pass


class MixedClient(Mixin, Client):
    pass


class EmptyServer(Server):
    def __init__(self) -> None:
        pass


class EmptyClient(Client):
    def __init__(self) -> None:
        pass


def test_a_subclass_takes_arguments_of_its_own() -> None:
    with Labelled("label", extra=3) as server, Greeting(server, b"hello") as client:
        assert (server.name, server.extra) == ("label", 3)
        assert client.recv_exactly(5) == client.greeting == b"hello"


def test_a_mixin_takes_its_arguments_and_passes_on_the_others() -> None:
    with (
        MixedServer("127.0.0.1", mixed="server") as server,
        MixedClient(*server.address, timeout=5.0, mixed="client") as client,
    ):
        assert (server.mixed, client.mixed) == ("server", "client")
        assert says_back(client)


@pytest.mark.parametrize("kind", [Server, Client])
def test_a_wrong_argument_is_one_of_init(kind: Any) -> None:
    for arguments, options in (((1, 2, 3, 4), {}), ((), {"unknown": 1})):
        with pytest.raises(TypeError) as caught:
            kind(*arguments, **options)
        assert "__new__" not in str(caught.value)
        assert str(caught.value).startswith((f"{kind.__name__}()", f"{kind.__name__}.__init__()"))
    assert "*args" not in str(inspect.signature(kind))


def test_a_server_without_its_init_says_what_is_missing() -> None:
    server = EmptyServer()
    for use in ("start", "stop", "wait", "run", "accept", "client", "__enter__"):
        with pytest.raises(StateError, match=r"super\(\)\.__init__"):
            getattr(server, use)()
    for name in ("state", "address", "ledger", "service", "limits", "options", "errors"):
        with pytest.raises(StateError, match=r"super\(\)\.__init__"):
            getattr(server, name)
    assert "EmptyServer" in repr(server)
    del server
    gc.collect()


def test_a_client_without_its_init_is_a_closed_one() -> None:
    client = EmptyClient()
    assert (client.fileno(), client.record) == (-1, None)
    for use in (
        lambda: client.recv(1),
        lambda: client.connect(("127.0.0.1", 1)),
        lambda: client.settimeout(1.0),
        client.getsockname,
        client.to_socket,
    ):
        with pytest.raises(OSError, match="closed"):
            use()
    client.close()


def test_init_can_be_called_once() -> None:
    before = held()
    with Server() as server, server.client(timeout=5.0) as client:
        with pytest.raises(StateError, match="already"):
            Client.__init__(client, *server.address)
        with pytest.raises(StateError, match="already"):
            Server.__init__(server)
        assert says_back(client)
    given_back(before)
