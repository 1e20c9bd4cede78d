"""The fixture `rsock_recording`: recorded once with the real server, then played without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.plugin import alone, quick, run_here

from rsock import Recording

pytest_plugins = ["pytester"]

# The real server of an inner run, and the client under test.
SHOP = """
def prices(conn):
    conn.sendall(b"hi\\r\\n")
    while line := conn.recv_line():
        conn.sendall({b"tea": b"4.20", b"cup": b"1.10"}[line.split()[-1]] + b"\\r\\n")

def real_shop():
    calls.append("real")
    server = rsock.Server(service=prices, on_error="raise").start()
    servers.append(server)
    return server.address

def ask(server, *questions, greeting=True):
    answers = []
    with server.client(timeout=5.0) as client:
        if greeting:
            assert client.recv_line() == b"hi\\r\\n"
        for question in questions:
            client.sendall(question + b"\\r\\n")
            answers.append(client.recv_line().strip())
    return answers

calls = []

@pytest.fixture(autouse=True)
def stops():
    yield
    while servers:
        servers.pop().stop()
"""
TEA = f"""{SHOP}
def test_price(rsock_recording):
    server = rsock_recording(real_shop)
    assert ask(server, b"price tea", b"price cup") == [b"4.20", b"1.10"]
    print("calls:", *calls)
"""


def record(pytester: pytest.Pytester, code: str, *arguments: str, ini: str = "") -> Path:
    """Record the only recording of a test file; return its path."""
    done = quick(pytester, code, "--rsock-record=recordings", *arguments, ini=ini)
    assert done.ret == 0
    done.stdout.fnmatch_lines(["rsock: records to 'recordings'"])
    [path] = (pytester.path / "recordings").rglob("*.rec")
    return path


def files(pytester: pytest.Pytester) -> list[str]:
    """All files below the folder of the recordings, those that are hidden included."""
    folder = pytester.path / "recordings"
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


# --- recorded, then played -----------------------------------------------------------------


def test_it_is_recorded_once_and_then_played_without_the_server(pytester: pytest.Pytester) -> None:
    path = record(pytester, TEA)
    assert path == pytester.path / "recordings" / "test_inner" / "test_price.rec"
    recording = Recording.read(path)
    assert recording.torn is None
    [connection] = recording.connections
    assert connection.up == b"price tea\r\nprice cup\r\n"
    done = quick(pytester, TEA, "-s")
    done.assert_outcomes(passed=1)
    assert "calls: real" not in done.stdout.str()
    assert files(pytester) == ["test_inner/test_price.rec"]


def test_without_a_recording_the_command_that_records_is_told(pytester: pytest.Pytester) -> None:
    done = quick(pytester, TEA)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "no recording recordings/test_inner/test_price.rec",
            "To record it from the real server: pytest test_inner.py::test_price "
            "--rsock-record=recordings",
        ]
    )
    # What it says works.
    quick(pytester, TEA, "test_inner.py::test_price", "--rsock-record=recordings")
    quick(pytester, TEA).assert_outcomes(passed=1)


def test_a_client_that_has_changed_is_told_where_it_diverges(pytester: pytest.Pytester) -> None:
    record(pytester, TEA)
    code = TEA.replace('b"price cup"', 'b"price pot"')
    done = quick(pytester, code)
    done.assert_outcomes(failed=1, errors=1)
    done.stdout.fnmatch_lines(
        [
            "*- rsock -*",
            'reset, connection 1: the client sends something else: recorded is b"price cup\\r\\n", '
            'and received was b"price pot\\r\\n", at recordings/test_inner/test_price.rec, line *',
            "connection 1: */recordings/test_inner/test_price.rec, line *: the client sends*",
            '  first difference at byte 6: expected b"c", received b"p"',
            "replayed recordings/test_inner/test_price.rec; to record it again: pytest "
            "test_inner.py::test_price --rsock-record=recordings",
        ]
    )


def test_a_client_that_stops_early_is_told(pytester: pytest.Pytester) -> None:
    record(pytester, TEA)
    code = TEA.replace(', b"price cup") == [b"4.20", b"1.10"]', ') == [b"4.20"]')
    done = quick(pytester, code)
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["*11 bytes of the client did not come, and 6 bytes for it were*"])


def test_one_connection_more_is_told(pytester: pytest.Pytester) -> None:
    record(pytester, TEA)
    code = TEA.replace('print("calls:", *calls)', "ask(server)")
    done = quick(pytester, code)
    done.assert_outcomes(failed=1, errors=1)
    done.stdout.fnmatch_lines(["*connection 2: *test_price.rec has 1 connection and no more*"])


def test_datagrams_are_recorded_too(pytester: pytest.Pytester) -> None:
    code = """
def upper(data, address):
    return data[:2] + data[2:].upper()

def names():
    servers.append(rsock.Server(service=upper, transport="udp").start())
    return servers[-1].address

@pytest.mark.parametrize("number", [b"\\x01\\x02", b"\\x03\\x04"])
def test_it(rsock_recording, number, request):
    server = rsock_recording(names, transport="udp", carry=[(0, 2)])
    with server.client(timeout=5.0) as client:
        client.send(number + b"who?")
        assert client.recv(100) == number + b"WHO?"
    while servers:
        servers.pop().stop()
"""
    done = quick(pytester, code, "--rsock-record=recordings")
    done.assert_outcomes(passed=2)
    assert len(files(pytester)) == 2
    # Another number is one that `carry` takes over.
    quick(pytester, code).assert_outcomes(passed=2)
    for path in (pytester.path / "recordings").rglob("*.rec"):
        assert Recording.read(path).transport == "udp"
        path.write_bytes(path.read_bytes().replace(rb"\x01\x02", rb"\x05\x06"))
    quick(pytester, code).assert_outcomes(passed=2)


def test_tls_is_recorded_in_clear_text_and_played_in_tls(pytester: pytest.Pytester) -> None:
    code = """
def target():
    servers.append(rsock.Server(tls=tls).start())
    return servers[-1].address

tls = rsock.TLS.for_tests()

def test_it(rsock_recording, rsock_tls):
    server = rsock_recording(target, target_tls=tls, tls=True)
    with server.client(timeout=5.0) as client:
        client.sendall(b"hello")
        assert client.recv_exactly(5) == b"hello"
        assert client.record.tls is not None
    while servers:
        servers.pop().stop()
"""
    path = record(pytester, code)
    assert b'b"hello"' in path.read_bytes()
    quick(pytester, code).assert_outcomes(passed=1)


# --- what is kept, and where ----------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "raise LookupError",
        "pytest.skip('not today')",
        "rsock_recording(real_shop, speed=-1)",
    ],
)
def test_a_test_that_does_not_pass_keeps_the_recording_that_was_there(
    pytester: pytest.Pytester, end: str
) -> None:
    path = record(pytester, TEA)
    before = path.read_bytes()
    code = TEA.replace('print("calls:", *calls)', end)
    done = quick(pytester, code, "--rsock-record=recordings")
    assert done.parseoutcomes() != {"passed": 1}
    assert path.read_bytes() == before
    assert not [each for each in files(pytester) if "/." in each]


def test_it_is_recorded_again_on_request(pytester: pytest.Pytester) -> None:
    path = record(pytester, TEA)
    code = TEA.replace('b"price cup"', 'b"price cup", b"price tea"').replace(
        'b"1.10"]', 'b"1.10", b"4.20"]'
    )
    assert record(pytester, code) == path
    assert Recording.read(path).connections[0].up.endswith(b"price cup\r\nprice tea\r\n")
    quick(pytester, code).assert_outcomes(passed=1)


def test_each_test_and_each_recording_of_it_has_a_file(pytester: pytest.Pytester) -> None:
    code = f"""{SHOP}
class TestShop:
    @pytest.mark.parametrize("what", ["tea", "cup", "a/b c::d", "a/b:c::d", "x" * 300])
    def test_price(self, rsock_recording, what):
        server = rsock_recording(real_shop)
        if len(what) == 3:
            ask(server, what.encode())

def test_price(rsock_recording):
    ask(rsock_recording(real_shop), b"tea")
    ask(rsock_recording(real_shop), b"cup")
"""
    quick(pytester, code, "--rsock-record=recordings").assert_outcomes(passed=6)
    found = files(pytester)
    assert len(found) == 7
    for name in ("TestShop.test_price[tea]", "TestShop.test_price[cup]", "test_price"):
        assert f"test_inner/{name}.rec" in found
    assert "test_inner/test_price-2.rec" in found
    assert all(len(Path(name).name) < 200 and " " not in name for name in found)
    quick(pytester, code).assert_outcomes(passed=6)


def test_the_folder_is_found_beside_the_test_or_above_it(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\n")
    folder = pytester.mkdir("tests") / "shop"
    folder.mkdir()
    (folder / "test_tea.py").write_text(f"import rsock, pytest\nservers = []\n{TEA}")

    # Where the command of the error puts it, and where the other folder is.
    run_here(pytester).stdout.fnmatch_lines(["*--rsock-record=tests/shop/recordings"])
    run_here(pytester, "--rsock-record=tests/recordings").assert_outcomes(passed=1)
    above = pytester.path / "tests" / "recordings" / "shop" / "test_tea" / "test_price.rec"
    assert above.exists()
    run_here(pytester).assert_outcomes(passed=1)
    run_here(pytester, "--rsock-record=tests/shop/recordings").assert_outcomes(passed=1)
    assert (folder / "recordings" / "test_tea" / "test_price.rec").exists()
    above.unlink()
    run_here(pytester).assert_outcomes(passed=1)
    # Elsewhere, by the configuration; the path is that from the root.
    elsewhere = pytester.path / "elsewhere"
    run_here(pytester, f"--rsock-record={elsewhere}").assert_outcomes(passed=1)
    assert (elsewhere / "tests" / "shop" / "test_tea" / "test_price.rec").exists()
    run_here(pytester, "-o", "rsock_recordings=elsewhere").assert_outcomes(passed=1)
    run_here(pytester, "-o", "rsock_recordings=nowhere").stdout.fnmatch_lines(
        ["no recording nowhere/tests/shop/test_tea/test_price.rec"]
    )


@pytest.mark.parametrize("is_recorded", [True, False])
def test_parallel_runs_record_and_play(pytester: pytest.Pytester, is_recorded: bool) -> None:
    pytest.importorskip("xdist")
    code = f"""{SHOP}
@pytest.mark.parametrize("number", range(6))
def test_price(rsock_recording, number):
    assert ask(rsock_recording(real_shop), b"tea") == [b"4.20"]
"""
    record = ["--rsock-record=recordings"] if is_recorded else []
    if not is_recorded:
        quick(pytester, code, "--rsock-record=recordings").assert_outcomes(passed=6)
    alone(pytester, code, "-p", "xdist", "-n", "2", *record).assert_outcomes(passed=6)
    assert len(files(pytester)) == 6


# --- secrets, and what is wrong ------------------------------------------------------------


def test_secrets_do_not_reach_the_file(pytester: pytest.Pytester) -> None:
    code = f"""{SHOP}
@pytest.mark.rsock(redact=rb"cup-(\\w+)")
def test_price(rsock_recording):
    server = rsock_recording(lambda: echo(), redact=[(rb"pin=\\d+", b"pin=0")])
    with server.client(timeout=5.0) as client:
        client.sendall(b"token abc; cup-def; pin=83105297461; end")
        assert client.recv_exactly(40).endswith(b" end")

def echo():
    servers.append(rsock.Server().start())
    return servers[-1]
"""
    ini = "rsock_redact =\n    token (\\w+)\n    never"
    path = record(pytester, code, ini=ini)
    [connection] = Recording.read(path).connections
    assert connection.up == b"token [redacted]; cup-[redacted]; pin=0; end"
    # As long a number is in no time and no port.
    for secret in (b"abc", b"def", b"83105297461"):
        assert secret not in path.read_bytes()
    # Another secret is none.
    other = code.replace("abc; cup-def; pin=83105297461;", "xyz; cup-uvw; pin=64220918375;")
    other = other.replace("recv_exactly(40)", "recv_until(b'end')")
    quick(pytester, other, ini=ini).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("rsock_recording(real_shop, redact='text')", "*TypeError: redact *"),
        ("rsock_recording(real_shop, redact=rb'(')", "*ValueError: redact*"),
        ("rsock_recording(real_shop, speed=0)", "*ValueError: speed 0*"),
        ("rsock_recording(real_shop, colour='red')", "*TypeError: *colour*"),
        ("rsock_recording()", "*TypeError: *target*"),
    ],
)
def test_a_wrong_argument_is_named_where_it_plays(
    pytester: pytest.Pytester, call: str, message: str
) -> None:
    record(pytester, TEA)
    done = quick(pytester, TEA.replace("rsock_recording(real_shop)", call))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([message])


def test_a_wrong_argument_is_named_where_it_is_recorded(pytester: pytest.Pytester) -> None:
    for call in ("rsock_recording('nowhere')", "rsock_recording(real_shop, redact=rb'(')"):
        code = TEA.replace("rsock_recording(real_shop)", call)
        quick(pytester, code, "--rsock-record=recordings").assert_outcomes(failed=1)
        assert files(pytester) == []


def test_a_file_that_is_no_recording_is_named(pytester: pytest.Pytester) -> None:
    path = record(pytester, TEA)
    path.write_text("rsock recording 99\n")
    done = quick(pytester, TEA)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*ValueError: *test_price.rec*99*"])
