"""What the plugin for pytest reports: the section of a failed test, and what a teardown finds."""

from __future__ import annotations

import re

import pytest
from support.plugin import alone, quick

pytest_plugins = ["pytester"]


def section(done: pytest.RunResult) -> list[str]:
    """The lines of the only section."""
    lines = [line.rstrip() for line in done.outlines]
    titles = [at for at, line in enumerate(lines) if re.fullmatch(r"-+ rsock -+", line)]
    assert len(titles) == 1, done.stdout.str()
    found = []
    for line in lines[titles[0] + 1 :]:
        if re.fullmatch(r"[=_]+ .* [=_]+", line):
            break
        found.append(line)
    return found


# --- the section ---------------------------------------------------------------------------


def test_a_test_that_fails_has_the_cause_first_and_then_what_the_server_saw(
    pytester: pytest.Pytester,
) -> None:
    code = """
def test_answer(make_rsock_server):
    def peer(conn):
        conn.sendall(conn.recv_exactly(10))
    with make_rsock_server(peer, name="mail").client(timeout=0.3) as client:
        client.sendall(b"hell\\x1b")
        client.recv(10)
"""
    done = quick(pytester, code, "--rsock-seed=7")
    done.assert_outcomes(failed=1)
    lines = section(done)
    assert lines[0].startswith(
        "time-out, connection 1: the handler waited for 10 bytes and had 5, then the client closed"
    )
    assert lines[1].startswith("mail 127.0.0.1:")
    assert lines[2].split() == ["#", "client", "in", "out", "lasted", "closed", "by"]
    assert lines[3].split()[:3] == ["1", lines[3].split()[1], "1"]
    assert lines[3].endswith("peer")
    assert lines[4] == "connection 1, from the client: 5 B"
    assert lines[5].split() == ["0", "68", "65", "6c", "6c", "1b", "hell."]
    assert lines[6] == "connection 1, to the client: 0 B, nothing"
    assert lines[-1] == "seed 7; once more: pytest test_inner.py::test_answer --rsock-seed=7"
    assert "\x1b[" not in "\n".join(lines)
    # What a fixture is shown as, among the arguments of the test.
    done.stdout.fnmatch_lines(["make_rsock_server = *.make of <mail>>"])


def test_a_script_tells_its_position_and_faults_what_they_did(pytester: pytest.Pytester) -> None:
    code = """
from rsock import Script
from rsock.faults import Latency

def test_script(make_rsock_server):
    script = Script().expect("HELO\\r\\n").send("250 ok\\r\\n").expect("QUIT\\r\\n")
    server = make_rsock_server(script, faults=[Latency(0.001)])
    with server.client(timeout=5.0) as client:
        client.sendall(b"HELO\\r\\n")
        assert client.recv_line() == b"250 ok\\r\\n"
        client.sendall(b"QUIET\\r\\n")
        client.recv_line()
"""
    done = quick(pytester, code)
    done.assert_outcomes(failed=1, errors=1)
    lines = section(done)
    assert (
        'the script expected b"QUIT\\r\\n" and received b"QUIET\\r\\n", at step 3 of 3' in lines[0]
    )
    text = "\n".join(lines)
    assert "connection 1: the script is at step 3 of 3 (test_inner.py:" in text
    assert "first difference at byte 3" in text
    assert "latency:0.001: 1 connection" in text
    assert "has the same faults again" in text


def test_long_traffic_and_many_connections_are_bounded(pytester: pytest.Pytester) -> None:
    code = """
def test_many(rsock_server):
    for _ in range(30):
        with rsock_server.client(timeout=5.0) as client:
            client.sendall(bytes(10_000))
            client.recv_exactly(10_000)
    raise LookupError
"""
    lines = section(quick(pytester, code))
    assert len(lines) < 40
    assert "… and 22 before them" in lines
    assert any("9.8 KiB, of which the last 48 are" in line for line in lines)


def test_the_section_is_there_when_the_setup_or_the_teardown_fails(
    pytester: pytest.Pytester,
) -> None:
    code = """
@pytest.fixture
def broken(rsock_server):
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"jello"

def test_setup(broken):
    pass
"""
    done = quick(pytester, code)
    done.assert_outcomes(errors=1)
    assert "the server sent b'hello', and the test expects b'jello'" in section(done)[0]
    code = """
@pytest.fixture
def broken(rsock_server):
    yield
    raise LookupError

def test_teardown(broken):
    pass
"""
    done = quick(pytester, code)
    done.assert_outcomes(passed=1, errors=1)
    assert re.match(r"no client has connected to server-\d+ \(127\.0\.0\.1:", section(done)[0])


def test_a_server_that_did_not_start_is_no_problem(pytester: pytest.Pytester) -> None:
    code = """
def test_taken(make_rsock_server):
    make_rsock_server(port=make_rsock_server().port)
"""
    done = quick(pytester, code)
    done.assert_outcomes(failed=1)
    assert any("accepted" in line for line in section(done))
    done.stdout.no_fnmatch_line("*cannot show its servers*")


def test_a_forked_child_that_fails_has_a_report(pytester: pytest.Pytester) -> None:
    code = """
def test_fork(rsock_server):
    if os.fork() == 0:
        raise LookupError("in the child")
    os.wait()
"""
    done = alone(pytester, code, "-W", "ignore::DeprecationWarning")
    assert "rsock cannot show its servers" in done.stdout.str()


@pytest.mark.parametrize("mark", ["skip", "xfail"])
def test_a_test_that_is_skipped_or_expected_to_fail_has_none(
    pytester: pytest.Pytester, mark: str
) -> None:
    code = f"""
def test_it(rsock_server):
    pytest.{mark}("as it should")
"""
    done = quick(pytester, code)
    assert done.ret == 0
    done.stdout.no_fnmatch_line("*- rsock -*")


def test_the_command_runs_the_test_again_with_the_same_faults(pytester: pytest.Pytester) -> None:
    code = """
from rsock.faults import Corrupt

@pytest.mark.parametrize("word", ["a b", "c"])
def test_it(make_rsock_server, word):
    servers = [make_rsock_server(faults=[Corrupt(0.5)]) for _ in range(2)]
    answers = []
    for server in servers:
        with server.client(timeout=5.0) as client:
            client.sendall(bytes(100))
            answers.append(client.recv_exactly(100).hex())
    print("answers:", *answers)
    assert answers[0] != answers[1]
    raise LookupError
"""

    def answers(*arguments: str) -> tuple[str, str]:
        done = quick(pytester, code, *arguments)
        [said] = re.findall(r"answers: .*", done.stdout.str())
        [command] = re.findall(r"once more: pytest (.*)", done.stdout.str())
        return said, command

    said, command = answers("test_inner.py::test_it[a b]")
    found = re.fullmatch(r"'test_inner.py::test_it\[a b\]' (--rsock-seed=\d+)", command)
    assert found is not None
    assert answers("test_inner.py::test_it[a b]", found[1]) == (said, command)
    assert answers("test_inner.py::test_it[a b]")[0] != said


def test_frames_of_rsock_are_hidden(pytester: pytest.Pytester) -> None:
    code = """
def test_it(make_rsock_server):
    make_rsock_server().url("not a scheme")
"""
    for arguments, is_hidden in (((), True), (("--full-trace",), False)):
        text = quick(pytester, code, *arguments).stdout.str()
        assert ("_server.py" not in text) == is_hidden
        assert "ValueError: scheme 'not a scheme' is none" in text


def test_sections_of_tests_that_pass_are_shown_on_request(pytester: pytest.Pytester) -> None:
    code = """
def test_it(rsock_server):
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        client.recv_exactly(5)
"""
    done = quick(pytester, code, "--rsock-show")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(
        ["*_ rsock: test_inner.py::test_it _*", "server-* stopped, 1 accepted", "seed * pytest *"]
    )
    assert "rsock:" not in quick(pytester, code).stdout.str()


# --- the teardown --------------------------------------------------------------------------

LEFT_OPEN = """
clients = []

def test_left(rsock_server):
    clients.append(rsock_server.client(timeout=5.0))
    clients[0].sendall(b"hello")
    clients[0].recv_exactly(5)

def test_clean():
    clients.pop().close()
"""
LEFT = "*the test has left 1 connection of server-* open: connection 1 from 127.0.0.1:*"


def test_a_connection_that_is_left_open_is_a_warning(pytester: pytest.Pytester) -> None:
    done = quick(pytester, LEFT_OPEN, "-W", "default::rsock.pytest_plugin.LeftOpenWarning")
    done.assert_outcomes(passed=2, warnings=1)
    done.stdout.fnmatch_lines(["*test_inner.py:*LeftOpenWarning: the test has left*"])
    # As the configuration of the inner run has it.
    done = quick(pytester, LEFT_OPEN)
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines([LEFT])


@pytest.mark.parametrize(
    ("option", "ini", "marker", "is_error"),
    [
        ("--rsock-strict", "", "", True),
        ("", "rsock_strict = true", "", True),
        ("", "", "@pytest.mark.rsock(strict=True)", True),
        ("--rsock-not-strict", "rsock_strict = true", "", False),
        ("--rsock-strict", "rsock_strict = true", "@pytest.mark.rsock(strict=False)", False),
    ],
)
def test_it_is_an_error_where_the_test_is_strict(
    pytester: pytest.Pytester, option: str, ini: str, marker: str, is_error: bool
) -> None:
    code = LEFT_OPEN.replace("def test_left", f"{marker}\ndef test_left")
    options = ["-W", "ignore::rsock.pytest_plugin.LeftOpenWarning", *option.split()]
    done = quick(pytester, code, *options, ini=ini)
    done.assert_outcomes(passed=2, errors=int(is_error))
    if is_error:
        done.stdout.fnmatch_lines(["*ERROR at teardown of test_left*", LEFT])
        assert any("left 1 connection" in line for line in done.outlines)


def test_a_client_that_has_closed_is_not_left_open(pytester: pytest.Pytester) -> None:
    code = """
import rsock

def handler(conn):
    while data := conn.recv(100):
        conn.sendall(data)

@pytest.mark.parametrize("round", range(20))
@pytest.mark.parametrize("service", [None, handler, rsock.Accept()])
@pytest.mark.parametrize("path", [False, True])
def test_it(make_rsock_server, round, service, path):
    # An abstract name: that of a folder would be too long.
    where = {"path": f"\\0rsock-{os.getpid()}-{id(round)}"} if path else {}
    server = make_rsock_server(service, **where)
    with server.client(timeout=5.0) as client:
        if isinstance(service, rsock.Accept):
            with server.accept(timeout=5.0)[0]:
                pass
        else:
            client.sendall(b"hello")
            client.recv_exactly(5)
"""
    done = quick(pytester, code, "--rsock-strict")
    done.assert_outcomes(passed=120)


def test_a_test_that_fails_is_not_told_of_connections_too(pytester: pytest.Pytester) -> None:
    code = LEFT_OPEN.replace("recv_exactly(5)\n", "recv_exactly(5)\n    raise LookupError\n", 1)
    quick(pytester, code, "--rsock-strict").assert_outcomes(passed=1, failed=1)


def test_a_client_that_diverges_is_an_error_of_the_test(pytester: pytest.Pytester) -> None:
    code = """
from rsock import Script

def test_it(make_rsock_server):
    server = make_rsock_server(Script().expect("hello").send("bye").expect("more"))
    with server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(3) == b"bye"
"""
    done = quick(pytester, code)
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "*1 client diverged from the*"])
    assert 'the script expected b"more" and received nothing' in section(done)[0]


# --- fixtures and the marker ---------------------------------------------------------------


def test_the_marker_gives_the_server_its_service_and_options(pytester: pytest.Pytester) -> None:
    code = """
from rsock import Greeting, Limits, LineEcho
from rsock.faults import Slice

@pytest.mark.rsock(limits=Limits(connections=3), history=7)
class TestIt:
    def test_class(self, rsock_server):
        assert rsock_server.limits.connections == 3
        assert repr(rsock_server.service) == "Echo()"

    @pytest.mark.rsock(service=Greeting("hi"), faults=[Slice(1)], seed=11, history=9)
    def test_both(self, rsock_server):
        assert rsock_server.limits.connections == 3
        assert rsock_server.seed == 11
        assert len(rsock_server.faults) == 1
        with rsock_server.client(timeout=5.0) as client:
            assert client.recv_exactly(2) == b"hi"

@pytest.mark.rsock(transport="udp")
def test_datagrams(rsock_server):
    assert rsock_server.transport == "udp"

def test_none(rsock_server):
    assert rsock_server.limits.connections != 3
    with rsock_server.client(timeout=5.0) as client:
        client.sendall(b"x")
        client.recv_exactly(1)
        assert rsock_server.ledger[0].trace[0].data == b"x"
"""
    quick(pytester, code).assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("(colour='red')", "@pytest.mark.rsock(colour='red'): no such keyword; it takes *service*"),
        ("(1, 2)", "@pytest.mark.rsock(1, 2) takes keywords only, such as service=*"),
        ("(strict='yes')", "@pytest.mark.rsock(strict='yes'): must be True, False or None"),
        ("(drain=-1)", "*ValueError: drain -1*"),
    ],
)
def test_a_marker_that_is_wrong_is_named(
    pytester: pytest.Pytester, marker: str, message: str
) -> None:
    code = f"""
@pytest.mark.rsock{marker}
def test_it(rsock_server):
    pass
"""
    done = quick(pytester, code)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([f"*{message.replace('[', '[[]')}"])


def test_a_seed_that_is_none_is_named(pytester: pytest.Pytester) -> None:
    for seed in ("soon", "-1"):
        done = quick(pytester, "def test(): pass", f"--rsock-seed={seed}")
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        done.stderr.fnmatch_lines([f"*argument --rsock-seed: invalid seed * value: '{seed}'"])


def test_a_udp_server(pytester: pytest.Pytester) -> None:
    code = """
def test_it(rsock_udp):
    with rsock_udp.client(timeout=5.0) as client:
        client.send(b"hello")
        assert client.recv(10) == b"hello"
"""
    quick(pytester, code, "--rsock-strict").assert_outcomes(passed=1)


def test_a_proxy_before_any_address(pytester: pytest.Pytester) -> None:
    code = """
import pathlib
from rsock.faults import Reset

def echoes(server):
    with server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        return client.recv_exactly(5) == b"hello"

def test_targets(rsock_proxy, rsock_server, make_rsock_server, monkeypatch, tmp_path):
    # Its whole name would be too long.
    monkeypatch.chdir(tmp_path)
    host, port = rsock_server.address
    assert echoes(rsock_proxy(rsock_server))
    assert echoes(rsock_proxy((host, port)))
    assert echoes(rsock_proxy(f"{host}:{port}"))
    unix = make_rsock_server(path="sock")
    assert echoes(rsock_proxy(pathlib.Path("sock")))
    six = make_rsock_server(host="::1")
    assert echoes(rsock_proxy(f"[::1]:{six.port}"))

def test_faults(rsock_proxy, rsock_server):
    proxy = rsock_proxy(rsock_server, faults=[Reset(after_bytes=2, direction="down")])
    with pytest.raises(ConnectionResetError):
        echoes(proxy)
    assert proxy.ledger.wait(closed=1)[0].closed_by == "fault"

@pytest.mark.parametrize("target", ["nowhere", "http://localhost:80/", ":80"])
def test_wrong(rsock_proxy, target):
    with pytest.raises(ValueError, match="target .*must be"):
        rsock_proxy(target)
"""
    quick(pytester, code).assert_outcomes(passed=5)
