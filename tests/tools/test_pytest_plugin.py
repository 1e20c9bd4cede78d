"""The plugin of rsock for pytest: its fixtures, in separate pytest runs as users have them.

Every inner run is a separate process with warnings as errors. The blocks of
docs/guide/testing.md run here too, each as a test file.
"""

from __future__ import annotations

import os
import re
import socket

import failure_section
import pytest
from support import LOOPBACK, dial, output_of, refused, says_back
from support.pages import BLOCK
from support.plugin import ENDS, SEPARATE, alone, inner, run_alone
from support.project import ROOT

import rsock
from rsock.pytest_plugin import MakeServer

pytest_plugins = ["pytester"]

# --- cost for a run that does not use them -------------------------------------------------


def test_loading_the_plugin_loads_nothing_else() -> None:
    code = """
import sys, pytest
before = set(sys.modules)
import _rsock_pytest
print(*sorted(set(sys.modules) - before))
"""
    assert output_of(code).split() == ["_rsock_pytest"]


def test_loading_the_plugin_starts_and_opens_nothing() -> None:
    code = """
import contextlib, os
def held():
    links = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.add(os.readlink(f"/proc/self/fd/{number}"))
    return len(os.listdir("/proc/self/task")), links
import pytest
before = held()
import _rsock_pytest, rsock.pytest_plugin
assert before == held(), held()
"""
    assert output_of(code, options=("-W", "error")) == ""


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    done = inner(pytester, "def test(rsock_server): pass", "-p", "no:rsock")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*fixture 'rsock_server' not found*"])


def test_pytest_shows_how_they_are_used(pytester: pytest.Pytester) -> None:
    done = inner(pytester, "", "--fixtures", "-v")
    done.stdout.fnmatch_lines(
        [
            "*fixtures defined from _rsock_pytest*",
            "rsock_server -- *",
            "*echoes on a free port*",
            "rsock_udp -- *",
            "make_rsock_server -- *",
            "*returns a started `rsock.Server`*",
            "*rsock.pytest_plugin.MakeServer*",
            "rsock_proxy -- *",
        ]
    )


# --- what they provide, in this run --------------------------------------------------------


def test_the_server_listens_when_the_test_begins(rsock_server: rsock.Server) -> None:
    assert rsock_server.state == "serving"
    with dial(rsock_server.address) as peer:
        assert says_back(peer)
    assert rsock_server.ledger.wait(open=0, closed=1)[0].bytes_in == 5


def test_each_call_makes_another_server(
    rsock_server: rsock.Server, make_rsock_server: MakeServer
) -> None:
    made = [rsock_server, make_rsock_server(), make_rsock_server()]
    assert len({server.address for server in made}) == 3
    for server in made:
        with dial(server.address) as peer:
            assert says_back(peer)


def test_options_are_those_of_the_server(make_rsock_server: MakeServer) -> None:
    limits = rsock.Limits(connections=3)
    server = make_rsock_server(
        rsock.Accept(), host=(LOOPBACK, 0), limits=limits, name="mine", history=5
    )
    assert (server.name, server.limits, server.host) == ("mine", limits, LOOPBACK)
    with server.client() as client:
        conn, address = server.accept(5.0)
        assert address == client.getsockname()
        conn.close()


def test_the_arguments_are_checked(make_rsock_server: MakeServer) -> None:
    with pytest.raises(TypeError, match="colour"):
        make_rsock_server(colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="drain"):
        make_rsock_server(drain=-1)


def test_a_start_that_fails_is_the_tests_affair(make_rsock_server: MakeServer) -> None:
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen()
        with pytest.raises(OSError, match="Address already in use"):
            make_rsock_server(port=holder.getsockname()[1])


def test_a_test_may_stop_its_servers_itself(make_rsock_server: MakeServer) -> None:
    server = make_rsock_server()
    with make_rsock_server() as other:
        assert other.state == "serving"
    assert server.stop().cause == "stop"
    assert refused(server.address)


def test_a_test_may_take_the_errors_of_handlers_itself(make_rsock_server: MakeServer) -> None:
    def handler(conn: rsock.Connection) -> None:
        raise LookupError("no such record")

    server = make_rsock_server(handler)
    with server.client(timeout=5.0) as client:
        assert client.recv(1) == b""
    with pytest.raises(ExceptionGroup) as raised:
        server.stop()
    assert raised.group_contains(LookupError, match="no such record")


def test_errors_may_go_elsewhere(make_rsock_server: MakeServer) -> None:
    def handler(conn: rsock.Connection) -> None:
        raise LookupError("no such record")

    errors: list[BaseException] = []
    server = make_rsock_server(handler, on_error=errors.append)
    with server.client(timeout=5.0) as client:
        assert client.recv(1) == b""
    server.stop()
    assert [str(error) for error in errors] == ["no such record"]


# --- how tests end -------------------------------------------------------------------------


def test_servers_are_gone_after_the_test(pytester: pytest.Pytester) -> None:
    code = """
def test_passes(rsock_server, make_rsock_server):
    servers.extend([rsock_server, make_rsock_server()])

def test_fails(rsock_server, make_rsock_server):
    servers.extend([rsock_server, make_rsock_server()])
    raise AssertionError("as it should")

def test_after_them():
    assert [server.state for server in servers] == 4 * ["stopped"]
    assert all(refuses(server.address) for server in servers)
    assert rsock.servers() == []
"""
    done = alone(pytester, code)
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*AssertionError: as it should*"])


def test_the_last_server_is_stopped_first(pytester: pytest.Pytester) -> None:
    code = """
import pytest

ends = []
clients = []

def until_the_end(conn):
    while conn.recv(1024):
        conn.sendall(b"got it")
    ends.append(conn.server.name)

@pytest.mark.filterwarnings("ignore::rsock.pytest_plugin.LeftOpenWarning")
def test_three(make_rsock_server):
    for name in "abc":
        server = make_rsock_server(until_the_end, name=name, drain=10.0)
        client = server.client(timeout=5.0)
        client.sendall(b"hello")
        assert client.recv(1024) == b"got it"
        # Open until after the teardown.
        clients.append(client)

def test_after_it():
    assert ends == ["c", "b", "a"]
    for client in clients:
        client.close()
"""
    alone(pytester, code).assert_outcomes(passed=2)


def test_what_a_handler_raises_is_an_error_of_the_test(pytester: pytest.Pytester) -> None:
    code = """
def handler(conn):
    assert conn.recv_line() == b"hello\\n", "a greeting comes first"

def test_greeting(make_rsock_server):
    talk(make_rsock_server(handler), b"bye\\n")
"""
    done = inner(pytester, code)
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_greeting*",
            "*1 exception in handlers of *",
            "*, in handler",
            "*AssertionError: a greeting comes first*",
            "*assert b'bye\\n' == b'hello\\n'*",
            "*in the handler of connection 1 from 127.0.0.1:*",
        ]
    )


def test_a_run_that_uses_no_fixture_does_not_load_rsock(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_plain="""
import sys

def test_plain():
    assert "_rsock_pytest" in sys.modules
    assert not [name for name in sys.modules if name.startswith("rsock")]
"""
    )
    done = pytester.runpytest_subprocess(*SEPARATE, timeout=40)
    done.assert_outcomes(passed=1)


def test_a_handler_may_fail_its_test(pytester: pytest.Pytester) -> None:
    code = """
def handler(conn):
    pytest.fail(f"no client should connect, and {conn.recv_line()!r} came")

def test_silence(make_rsock_server):
    servers.append(make_rsock_server(handler))
    talk(servers[0], b"hello\\n")

def test_after_it():
    assert servers[0].state == "stopped"
"""
    done = alone(pytester, code)
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*Failed: no client should connect, and b'hello\\n' came*"])


def test_all_servers_are_stopped_and_all_errors_reported(pytester: pytest.Pytester) -> None:
    code = """
def first(conn):
    raise LookupError("this is the first")

def last(conn):
    raise ZeroDivisionError("this is the last")

def test_three(make_rsock_server):
    servers.extend([make_rsock_server(first), make_rsock_server(), make_rsock_server(last)])
    talk(servers[0], b"")
    talk(servers[2], b"")
    assert servers[1].state == "serving"

def test_after_it():
    assert [server.state for server in servers] == 3 * ["stopped"]
"""
    done = alone(pytester, code)
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(
        [
            "*2 servers ended with errors*",
            "*ZeroDivisionError: this is the last*",
            "*LookupError: this is the first*",
        ]
    )


def test_a_test_that_fails_shows_what_its_handler_raised(pytester: pytest.Pytester) -> None:
    code = """
def handler(conn):
    raise LookupError("no such record")

def test_answer(make_rsock_server):
    with make_rsock_server(handler).client(timeout=5.0) as client:
        assert client.recv(1024) == b"the record"
"""
    done = alone(pytester, code)
    done.assert_outcomes(failed=1, errors=1)
    done.stdout.fnmatch_lines(["*LookupError: no such record*"])


def test_ctrl_c_in_a_test_stops_its_servers(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(ENDS)
    code = """
def test_interrupted(make_rsock_server):
    for name in ("a", "b"):
        servers.append(make_rsock_server(name=name))
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)

def test_after_it():
    raise AssertionError("not to be run")
"""
    done = alone(pytester, code)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*KeyboardInterrupt*", "ended: a stopped", "ended: b stopped"])
    done.stdout.no_fnmatch_line("*not to be run*")


def test_ctrl_c_while_they_are_stopped_ends_the_wait_and_the_run(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(ENDS)
    # The last server waits until its handler returns, and so does the first one.
    code = """
held = threading.Event()
clients = []

def handler(conn):
    while conn.recv(1024):
        conn.sendall(b"got it")
    if conn.server.name == "b":
        os.kill(os.getpid(), signal.SIGINT)
    held.wait(30)

def test_interrupted(make_rsock_server):
    for name in ("a", "b"):
        server = make_rsock_server(handler, name=name, drain=30.0)
        servers.append(server)
        client = server.client(timeout=5.0)
        client.sendall(b"hello")
        assert client.recv(1024) == b"got it"
        clients.append(client)

def test_after_it():
    raise AssertionError("not to be run")
"""
    done = alone(pytester, code)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert done.duration < 20
    done.stdout.fnmatch_lines(["*KeyboardInterrupt*", "ended: a stopped", "ended: b stopped"])
    done.stdout.no_fnmatch_line("*not to be run*")


def test_many_servers_one_after_the_other_leave_nothing(pytester: pytest.Pytester) -> None:
    rounds = int(os.environ.get("RSOCK_PLUGIN_ROUNDS", "200"))
    code = f"""
def usage():
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return (
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    )

@pytest.mark.parametrize("number", range({rounds}))
def test_echo(number, rsock_server):
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"

@pytest.fixture(autouse=True)
def notes(request):
    # What the first tenth needs stays.
    if request.node.name in ("test_echo[{rounds // 10}]", "test_at_the_end"):
        servers.append(usage())
    return

def test_at_the_end():
    (fds, tasks, rss), (fds_after, tasks_after, rss_after) = servers
    print("usage:", *servers)
    assert (fds_after, tasks_after) == (fds, tasks)
    # pytest itself keeps 2.6 KiB for the report of each test, without a server too.
    assert rss_after - rss < 4_096 + 4 * {rounds}
"""
    done = alone(pytester, code, "-rA")
    done.assert_outcomes(passed=rounds + 1)
    print(*re.findall("usage: .*", done.stdout.str()))


# --- with other plugins --------------------------------------------------------------------


def test_it_works_in_parallel_runs(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    code = """
@pytest.mark.parametrize("number", range(6))
def test_echo(number, rsock_server):
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"

def test_handler(make_rsock_server):
    def handler(conn):
        raise LookupError("no such record")
    talk(make_rsock_server(handler), b"")
"""
    done = alone(pytester, code, "-p", "xdist", "-n", "2")
    done.assert_outcomes(passed=7, errors=1)
    done.stdout.fnmatch_lines(["*LookupError: no such record*"])


def test_it_serves_coroutines(rsock_server: rsock.Server, make_rsock_server: MakeServer) -> None:
    import asyncio

    def handler(conn: rsock.Connection) -> None:
        conn.sendall(conn.recv_line().upper())

    async def ask(server: rsock.Server) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"hello\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line

    async def both() -> tuple[bytes, bytes]:
        return await ask(rsock_server), await ask(make_rsock_server(handler))

    assert asyncio.run(both()) == (b"hello\n", b"HELLO\n")


# --- its page in the docs ------------------------------------------------------------------

PAGE = ROOT / "docs" / "guide" / "testing.md"
BLOCKS = [
    (block["code"], "recorded" in block["note"])
    for block in BLOCK.finditer(PAGE.read_text())
    if "no-run" not in block["note"]
]


@pytest.mark.parametrize(("code", "is_recorded"), BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_a_block_of_the_page_is_a_test_that_passes(
    pytester: pytest.Pytester, code: str, is_recorded: bool
) -> None:
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makepyfile(test_block=code)
    for options in [["--rsock-record=recordings"], []] if is_recorded else [[]]:
        done = run_alone(pytester, *options)
        outcomes = done.parseoutcomes()
        assert set(outcomes) == {"passed"}, outcomes
        assert done.ret == 0


@pytest.mark.parametrize("number", range(len(failure_section.parts(PAGE.read_text()))))
def test_a_section_on_the_page_is_the_output_of_a_run(number: int) -> None:
    found = failure_section.parts(PAGE.read_text())[number]
    assert failure_section.same(failure_section.run(found["code"]), found["text"])
