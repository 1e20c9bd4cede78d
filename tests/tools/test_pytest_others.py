"""The plugin for pytest beside other plugins and frameworks.

`tests/plugin_matrix.py` makes the environments that have all of them; elsewhere, the tests of those
that are missing are skipped.
"""

from __future__ import annotations

import importlib.util

import pytest
from support.plugin import inner

pytest_plugins = ["pytester"]

ASK = """
async def ask(server):
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"hello\\n")
    line = await asyncio.wait_for(reader.readline(), 5.0)
    writer.close()
    await writer.wait_closed()
    return line
"""


def needs(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: tests/plugin_matrix.py")


@needs("xdist")
def test_in_parallel_runs_sections_and_seeds_arrive(pytester: pytest.Pytester) -> None:
    code = """
@pytest.mark.parametrize("number", range(6))
def test_echo(number, rsock_server):
    assert rsock_server.seed == 7
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"

def test_fails(make_rsock_server):
    with make_rsock_server().client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"jello"
"""
    done = inner(pytester, code, "-n", "2", "--rsock-seed=7", "--rsock-show")
    done.assert_outcomes(passed=6, failed=1)
    text = done.stdout.str()
    assert (
        "wrong bytes, connection 1: the server sent b'hello', and the test expects b'jello'" in text
    )
    assert text.count("_ rsock: test_inner.py::test_echo[") == 6


@needs("pytest_asyncio")
def test_pytest_asyncio(pytester: pytest.Pytester) -> None:
    code = f"""{ASK}
@pytest.mark.asyncio
async def test_echo(rsock_server, make_rsock_server):
    assert await ask(rsock_server) == b"hello\\n"
    [record] = await rsock_server.ledger.wait_async(open=0, closed=1)
    assert record.bytes_in == 6
    assert await ask(make_rsock_server(lambda conn: conn.sendall(conn.recv_line()))) == b"hello\\n"

@pytest.mark.asyncio
async def test_fails(make_rsock_server):
    server = make_rsock_server(lambda conn: conn.sendall(conn.recv_exactly(10)))
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"hello")
    try:
        await asyncio.wait_for(reader.readexactly(10), 0.2)
    finally:
        writer.close()
"""
    done = inner(pytester, code)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        ["time-out, connection 1: the handler waited for 10 bytes and had 5*"]
    )


@needs("anyio")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(pytester: pytest.Pytester, backend: str) -> None:
    code = f"""
import anyio

@pytest.fixture
def anyio_backend():
    return {backend!r}

@pytest.mark.anyio
async def test_echo(rsock_server):
    async with await anyio.connect_tcp(*rsock_server.address) as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
    [record] = await rsock_server.ledger.wait_async(open=0, closed=1)
    assert record.bytes_in == 5
"""
    # Its own workers may be found unclosed by trio's collection of garbage.
    inner(pytester, code, "--rsock-strict").assert_outcomes(passed=1)


@needs("pytest_trio")
def test_pytest_trio(pytester: pytest.Pytester) -> None:
    code = """
import trio

@pytest.mark.trio
async def test_echo(rsock_server):
    async with await trio.open_tcp_stream(*rsock_server.address) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    [record] = await rsock_server.ledger.wait_async(open=0, closed=1)
    assert record.bytes_in == 5
"""
    inner(pytester, code, "--rsock-strict").assert_outcomes(passed=1)


def test_unittest(pytester: pytest.Pytester) -> None:
    code = """
import unittest

class TestEcho(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(rsock.Server())

    def test_echo(self):
        with self.server.client(timeout=5.0) as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv_exactly(5), b"hello")

class TestFixture(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _server(self, rsock_server):
        self.server = rsock_server

    def test_fails(self):
        with self.server.client(timeout=5.0) as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv_exactly(5), b"jello")

def test_after_them():
    assert rsock.servers() == []
"""
    done = inner(pytester, code)
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(
        ["wrong bytes, connection 1: the server sent b'hello', and the test *"]
    )


@needs("hypothesis")
def test_hypothesis_with_one_server_for_all_examples(pytester: pytest.Pytester) -> None:
    code = """
from hypothesis import HealthCheck, given, settings, strategies as st

@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(min_size=1, max_size=100))
def test_echo(rsock_server, data):
    rsock_server.reset()
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(data)
        assert client.recv_exactly(len(data)) == data
    [record] = rsock_server.ledger.wait(open=0, closed=1)
    assert (record.id, record.bytes_in) == (1, len(data))

@settings(
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.binary(min_size=1, max_size=3))
def test_fails(rsock_server, data):
    rsock_server.reset()
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(data)
        assert client.recv_exactly(len(data)) == b"x"
"""
    done = inner(pytester, code, "--rsock-strict")
    done.assert_outcomes(passed=1, failed=1)
    # That of the last example, which is the smallest one.
    done.stdout.fnmatch_lines(["*connection 1: the server sent b'*', and the test expects b'x'*"])


@needs("pytest_randomly")
def test_pytest_randomly_leaves_the_seed_alone(pytester: pytest.Pytester) -> None:
    code = """
import sys

@pytest.mark.parametrize("number", range(5))
def test_seeds(rsock_server, number):
    assert "pytest_randomly" in sys.modules
    assert rsock_server.seed not in servers
    servers.append(rsock_server.seed)
"""
    done = inner(pytester, code, "-p", "no:xdist", is_shuffled=True)
    done.assert_outcomes(passed=5)


@needs("pytest_socket")
def test_pytest_socket_allows_the_loopback(pytester: pytest.Pytester) -> None:
    code = """
def test_echo(rsock_server, make_rsock_server):
    for server in (rsock_server, make_rsock_server(lambda conn: conn.sendall(conn.recv_line()))):
        with socket.create_connection(server.address, 5.0) as sock:
            sock.sendall(b"hello\\n")
            assert sock.recv(100) == b"hello\\n"
        with server.client(timeout=5.0) as client:
            client.sendall(b"hello\\n")
            assert client.recv_exactly(6) == b"hello\\n"

def test_others():
    import pytest_socket
    with pytest.raises(pytest_socket.SocketConnectBlockedError):
        socket.create_connection(("192.0.2.1", 80), 0.1)
"""
    # The plugin warns before it raises.
    options = ("--disable-socket", "--allow-hosts=127.0.0.1", "-W", "ignore:A test tried to use")
    inner(pytester, code, *options).assert_outcomes(passed=2)
