"""Metrics for Prometheus: the numbers of the ledgers, also of servers that have stopped."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator

import prometheus_client
import pytest
from support import dial, output_of, read_to_end, reset, says_back, wait_until

import rsock
from rsock import TLS, Accept, Client, Forward, Limits, Server, drive
from rsock.faults import Latency, Slice
from rsock.metrics import Collector, register

# The long form: RSOCK_TEST_LONG=1 counts 100 000 connections.
CONNECTIONS = 100_000 if os.environ.get("RSOCK_TEST_LONG") else 2_000


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    """A registry with the counters of rsock, which go on from those of earlier tests."""
    registry = prometheus_client.CollectorRegistry()
    register(registry)
    return registry


_name = iter(f"web-{number}" for number in range(1_000))


@pytest.fixture
def name() -> str:
    """A name that no other server has."""
    return next(_name)


def value(registry: prometheus_client.CollectorRegistry, metric: str, **labels: str) -> float:
    found = registry.get_sample_value(f"rsock_{metric}", labels)
    return -1 if found is None else found


def visit(server: Server, times: int = 1) -> None:
    before = server.ledger.totals.closed
    for _ in range(times):
        with server.client() as client:
            assert says_back(client)
    server.ledger.wait(closed=before + times)


@pytest.mark.timeout(1_800 if os.environ.get("RSOCK_TEST_LONG") else 120)
def test_the_counters_are_those_of_the_ledger(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    with Server(name=name, history=10) as server:
        left = CONNECTIONS
        while left:
            some = min(left, 500)
            assert drive(server.address, connections=some, messages=2).missing == 0
            left -= some
        server.ledger.wait(open=0, closed=CONNECTIONS, timeout=60)
        for _ in range(2):
            totals = server.ledger.totals
            assert value(registry, "connections_accepted_total", server=name) == CONNECTIONS
            assert value(registry, "connections_open", server=name) in (0, -1)
            assert value(registry, "received_bytes_total", server=name) == totals.bytes_in > 0
            assert value(registry, "sent_bytes_total", server=name) == totals.bytes_out
            assert value(registry, "received_messages_total", server=name) == totals.messages_in
            for cause, number in totals.closed_by.items():
                labels = {"server": name, "closed_by": cause}
                assert value(registry, "connections_closed_total", **labels) == number
            for histogram in ("connection_rtt_seconds", "connection_retransmits"):
                assert value(registry, f"{histogram}_count", server=name) == CONNECTIONS
                labels = {"server": name, "le": "+Inf"}
                assert value(registry, f"{histogram}_bucket", **labels) == CONNECTIONS
            # The same again of a server that has ended.
            server.stop()


def test_a_histogram_is_cumulative_and_has_the_times_of_the_records(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    with Server(name=name) as server:
        visit(server, 20)
        times = [record.tcp_info.rtt for record in server.ledger.closed if record.tcp_info]
    assert len(times) == 20
    for bound in ("0.0001", "0.005", "2.5"):
        labels = {"server": name, "le": bound}
        expected = sum(time <= float(bound) for time in times)
        assert value(registry, "connection_rtt_seconds_bucket", **labels) == expected
    total = value(registry, "connection_rtt_seconds_sum", server=name)
    assert total == pytest.approx(sum(times))


def test_no_counter_falls_when_servers_stop_or_are_freed(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    def accepted() -> float:
        return value(registry, "connections_accepted_total", server="unnamed")

    before = max(0.0, accepted())
    for number in range(1, 41):
        with Server() as server:
            visit(server)
        del server
        gc.collect()
        if number % 10 == 0:
            # Between two readings more servers come and go than are kept.
            assert accepted() == before + number


def test_a_server_that_is_freed_without_a_stop_is_counted_to_its_end(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    server = Server(name=name).start()
    visit(server, 3)
    with pytest.warns(ResourceWarning):
        del server
        gc.collect()
    for _ in range(3):
        assert value(registry, "connections_accepted_total", server=name) == 3


def test_servers_that_exist_already_are_counted() -> None:
    code = """
import prometheus_client
from rsock import Server, metrics
with Server(name="early") as server:
    with server.client() as client:
        client.sendall(b"x")
        client.recv_exactly(1)
    metrics.register()
    get = prometheus_client.REGISTRY.get_sample_value
    print(get("rsock_connections_accepted_total", {"server": "early"}))
"""
    assert output_of(code) == "1.0\n"


def test_gauges_are_those_of_running_servers(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    with Server(service=Accept(), name=name) as server, server.client(), server.client():
        wait_until(lambda: value(registry, "accept_queue_connections", server=name) == 2)
        conn, _ = server.accept()
        with conn:
            assert value(registry, "accept_queue_connections", server=name) == 1
            assert value(registry, "connections_open", server=name) == 1
            assert value(registry, "server_ready", server=name) == 1
    assert value(registry, "server_ready", server=name) == -1


def test_handlers_are_counted(registry: prometheus_client.CollectorRegistry, name: str) -> None:
    def hold(conn: rsock.Connection) -> None:
        conn.sendall(b"x")
        conn.recv(1)

    limits = Limits(handler_threads=1)
    with Server(service=hold, name=name, limits=limits) as server, server.client() as client:
        assert client.recv(1) == b"x"
        with server.client():
            wait_until(lambda: value(registry, "handler_waits_total", server=name) == 1)
            assert value(registry, "handlers_running", server=name) == 1
            assert value(registry, "handler_threads", server=name) == 1
            client.close()


def test_refused_connections_have_their_kind(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    limits = Limits(connections=1, overflow="refuse")
    with Server(name=name, limits=limits) as server, server.client() as client:
        assert says_back(client)
        # The reset may come before the connect has returned.
        with pytest.raises(ConnectionResetError), dial(server.address) as peer:
            read_to_end(peer)
        labels = {"server": name, "kind": "connections"}
        wait_until(lambda: value(registry, "connections_refused_total", **labels) == 1)
        assert value(registry, "connections_refused_total", server=name, kind="deny") == 0


def test_what_faults_did_is_counted_by_their_kind_also_after_their_removal(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    def events(kind: str) -> float:
        return value(registry, "fault_events_total", server=name, kind=kind)

    with Server(name=name, faults=[]) as server:
        with server.fault(Slice(2)), server.fault(Latency(0.001)):
            visit(server)
            assert events("slice") >= 1
            found = events("latency")
            assert found >= 1
        assert events("latency") == found
    assert events("latency") == found


def test_the_number_of_label_values_is_bounded() -> None:
    code = """
import prometheus_client
from rsock import Server, metrics
metrics.register()
for number in range(150):
    Server(name=f"name {number}").start().stop()
    Server().start().stop()
names = {s.labels["server"] for m in metrics.Collector().collect() for s in m.samples}
print(len(names), {"unnamed", "other"} <= names)
"""
    assert output_of(code) == "102 True\n"


def test_promtool_finds_nothing_to_say(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, of Debian's package prometheus")
    with Server(name=name, faults=[Slice(2)]) as server:
        visit(server, 3)
        text = prometheus_client.generate_latest(registry)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_registry_takes_the_counters_once(
    registry: prometheus_client.CollectorRegistry,
) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        register(registry)
    assert isinstance(register(prometheus_client.CollectorRegistry()), Collector)
    with pytest.raises(TypeError, match="registry must be a .*CollectorRegistry, not int"):
        register(5)  # type: ignore[arg-type]


def test_a_forked_child_counts_its_own_servers() -> None:
    code = """
import os, prometheus_client, warnings
warnings.simplefilter("ignore")
from rsock import Server, metrics
metrics.register()
def accepted():
    get = prometheus_client.REGISTRY.get_sample_value
    return get("rsock_connections_accepted_total", {"server": "a"})
def visit():
    with Server(name="a") as server, server.client() as client:
        client.sendall(b"x")
        client.recv_exactly(1)
visit()
visit()
child = os.fork()
if child == 0:
    visit()
    print(accepted(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(accepted())
"""
    assert output_of(code) == "1.0\n2.0\n"


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import rsock
try:
    rsock.metrics.register()
except ImportError as error:
    print(error)
"""
    assert "pip install prometheus-client" in output_of(code)


def test_a_program_without_metrics_loads_nothing_for_them() -> None:
    code = "import sys, rsock; rsock.Server().start().stop(); print('rsock._counts' in sys.modules)"
    assert output_of(code) == "False\n"


def test_a_client_is_in_no_counter(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    with Server(name=name) as server, Client(*server.address) as client:
        assert says_back(client)
        assert value(registry, "connections_open", server=name) == 1


@pytest.fixture(autouse=True)
def nothing_registered_by_default() -> Iterator[None]:
    """No test of this process adds to the registry that others use."""
    yield
    names = {metric.name for metric in prometheus_client.REGISTRY.collect()}
    assert not any(each.startswith("rsock_") for each in names)


def test_handshakes_of_tls_are_counted_by_their_version_and_failures_with_them(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    tls = TLS.for_tests()
    with Server(name=name, tls=tls) as server:
        older = ssl.create_default_context(cadata=tls.ca_pem)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with dial(server.address) as raw:
            with older.wrap_socket(raw, server_hostname="localhost") as peer:
                # A handshake counts at its end, not at that of the connection.
                assert says_back(peer)
                totals = server.ledger.totals
                assert totals.tls_handshakes == {"TLSv1.2": 1, "TLSv1.3": 0}
        visit(server)
        # The ticket of the client that has closed.
        visit(server)
        dial(server.address).close()
        with pytest.raises(ssl.SSLCertVerificationError):
            server.client(tls=TLS(ca=TLS.for_tests().ca_pem.encode()))
        server.ledger.wait(open=0, closed=5)
        totals = server.ledger.totals
        assert totals.tls_handshakes == {"TLSv1.2": 1, "TLSv1.3": 2}
        assert (totals.tls_resumed, totals.tls_failed) == (1, 2)
        for version, number in totals.tls_handshakes.items():
            labels = {"server": name, "version": version}
            assert value(registry, "tls_handshakes_total", **labels) == number
        assert value(registry, "tls_handshakes_resumed_total", server=name) == 1
        assert value(registry, "tls_handshakes_failed_total", server=name) == 2
        expiry = value(registry, "tls_certificate_expiry_timestamp_seconds", server=name)
        assert expiry == ssl.cert_time_to_seconds(not_after(tls))
        server.reset()
        assert server.ledger.totals.tls_failed == 0
    with Server(name=f"{name} in clear text") as server:
        visit(server)
        assert (server.ledger.totals.tls_failed, server.ledger.totals.tls_resumed) == (0, 0)


def test_handshakes_with_the_target_of_a_forward_are_counted_apart(
    registry: prometheus_client.CollectorRegistry, name: str
) -> None:
    tls, other = TLS.for_tests(), TLS.for_tests()
    with (
        Server(tls=tls) as target,
        Server(name=name, service=Forward(target, tls=tls)) as server,
        Server(service=Forward(target, tls=other)) as mistaken,
        socket.create_server(("127.0.0.1", 0)) as silent,
        Server(service=Forward(silent.getsockname(), tls=tls, connect_timeout=0.1)) as waiting,
    ):
        with Client(*server.address) as client:
            # A handshake counts at its end, not at that of the connection.
            assert says_back(client)
            totals = server.ledger.totals
            assert totals.target_tls_handshakes == {"TLSv1.2": 0, "TLSv1.3": 1}
        # By the ticket of the session before.
        with Client(*server.address) as client:
            assert says_back(client)
        server.ledger.wait(closed=2)
        totals = server.ledger.totals
        assert totals.target_tls_handshakes == {"TLSv1.2": 0, "TLSv1.3": 2}
        assert (totals.target_tls_resumed, totals.target_tls_failed) == (1, 0)
        # The clients came in clear text.
        assert sum(totals.tls_handshakes.values()) == totals.tls_failed == 0
        labels = {"server": name, "version": "TLSv1.3"}
        assert value(registry, "target_tls_handshakes_total", **labels) == 2
        assert value(registry, "target_tls_handshakes_resumed_total", server=name) == 1
        assert value(registry, "target_tls_handshakes_failed_total", server=name) == 0
        # A certificate of others, and a time-out.
        for failing in (mistaken, waiting):
            # The reset of the client may be so fast that its connect sees it.
            with contextlib.suppress(ConnectionResetError), dial(failing.address) as client:
                read_to_end(client)
            failing.ledger.wait(closed=1)
            totals = failing.ledger.totals
            assert (totals.target_tls_failed, totals.tls_failed) == (1, 0)
            assert sum(totals.target_tls_handshakes.values()) == 0
        server.reset()
        assert server.ledger.totals.target_tls_resumed == 0


def test_a_target_that_refuses_the_connect_has_failed_no_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with Server(service=Forward(address, tls=TLS.for_tests())) as server:
        with contextlib.suppress(ConnectionResetError), dial(server.address) as client:
            read_to_end(client)
        [record] = server.ledger.wait(closed=1)
        assert record.closed_by == "error"
        assert server.ledger.totals.target_tls_failed == 0


def not_after(tls: TLS) -> str:
    """The end of a certificate's validity, as OpenSSL reads it."""
    context = ssl.create_default_context(cadata=tls.ca_pem)
    with Server(tls=tls) as server, dial(server.address) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as peer:
            found = peer.getpeercert()
    assert found is not None
    return str(found["notAfter"])


@pytest.mark.parametrize("end", ["limit", "stop", "reset"])
def test_a_connection_that_ends_during_the_handshake_has_failed_it(end: str) -> None:
    limits = Limits(first_byte=0.05) if end == "limit" else None
    with Server(tls=TLS.for_tests(), limits=limits) as server:
        with dial(server.address) as peer:
            server.ledger.wait(open=1)
            if end == "reset":
                reset(peer)
            elif end == "stop":
                server.stop()
            server.ledger.wait(closed=1)
        assert server.ledger.totals.tls_failed == 1
