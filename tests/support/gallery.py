"""Every display and every drawing, of real connections, as HTML for a page.

Must never contain a display that was written by hand.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import rsock
from rsock import (
    TLS,
    Client,
    Endpoint,
    Forward,
    Limits,
    Recording,
    Script,
    Server,
    SocketOptions,
    Trace,
    drive,
    process_limits,
)
from rsock.faults import Latency, Reset
from support import dial, read_exactly, says_back
from support.markup import html_of
from support.project import ROOT

# What a peer may send: markup, a title for the terminal, a change of direction, broken UTF-8.
HOSTILE = b"<script>alert(1)</script>\x1b]0;owned\x07\xff\xfe \xe2\x80\xae&amp;"


def displays() -> dict[str, str]:
    """The HTML of each kind of object that a cell can end with, by its name."""
    shown: dict[str, str] = {}

    def show(**things: Any) -> None:
        shown.update((name, html_of(thing)) for name, thing in things.items())

    with Server(name="echo", trace=True) as echo, Server(service=Forward(echo)) as relay:
        with echo.client(timeout=10) as client, dial(echo.address) as peer:
            assert says_back(client)
            peer.sendall(HOSTILE)
            read_exactly(peer, len(HOSTILE))
            for _ in range(30):
                with dial(echo.address) as other:
                    assert says_back(other)
            echo.ledger.wait(open=2, closed=30)
            record = echo.ledger.open[1]
            show(
                server=echo,
                client=client,
                ledger=echo.ledger,
                open_record=record,
                records=echo.ledger.closed,
                no_records=echo.ledger[:0],
                trace=record.trace,
                trace_event=record.trace[0] if record.trace else None,
                tcp_info=record.tcp_info,
                five_tuple=client.five_tuple,
                endpoint=record.local,
                servers=rsock.servers(),
            )
            for _ in range(30):
                assert says_back(peer)
            show(long_trace=record.trace)
        with relay.client(timeout=10) as client:
            assert says_back(client)
            [record] = relay.ledger.open
            show(forwarded_record=record, leg=record.far)
        with echo.fault(Latency(0.001, jitter=0.0005)), echo.fault(Reset(after_bytes=5)):
            with dial(echo.address) as peer, contextlib.suppress(ConnectionResetError):
                peer.sendall(b"hello, world")
                read_exactly(peer, 12)
            echo.ledger.wait(open=0)
            record = echo.ledger.closed[-1]
            show(
                server_with_faults=echo,
                record_with_faults=record,
                faults=echo.faults,
                fault_count=echo.faults.counts()[0],
                fault=Latency(0.2, jitter=0.05),
                fault_events=record.faults,
            )
        show(
            drive_result=drive(echo.address, connections=2, messages=10), totals=echo.ledger.totals
        )
        show(stop_report=echo.stop(), stopped_server=echo)

    with Server(tls=TLS.for_tests()) as server, server.client(timeout=10) as client:
        assert says_back(client)
        assert client.record
        assert client.record.tls
        show(tls=client.record.tls, certificate=client.record.tls.peer)
    with tempfile.TemporaryDirectory(prefix="rsock-") as folder:
        file = Path(folder) / "recording"
        with Server() as target, Server(service=Forward(target, recording=file)) as relay:
            with relay.client(timeout=10) as client:
                assert says_back(client)
        recording = Recording.read(file)
        show(recording=recording, recorded_connection=recording.connections[0])
        with Server(path=str(Path(folder) / "socket"), transport="unix") as server:
            with server.client(timeout=10) as client:
                assert says_back(client)
                [record] = server.ledger.open
                show(unix_client=client, peer_credentials=record.peer_credentials)

    def fail(conn: rsock.Connection) -> None:
        conn.recv(100)
        raise ValueError(HOSTILE.decode("latin-1"))

    with Server(service=fail, on_error=lambda _: None) as server:
        with dial(server.address) as peer:
            peer.sendall(b"x")
            server.ledger.wait(open=0, closed=1)
        show(server_with_an_error=server, record_with_an_error=server.ledger.closed[0])
    script = Script().expect(b"hello").send(b"bye")
    with Server(service=script, on_error=lambda _: None) as server:
        with dial(server.address) as peer, contextlib.suppress(ConnectionResetError):
            peer.sendall(HOSTILE)
            while peer.recv(100):
                pass
        server.ledger.wait(open=0, closed=1)
        show(script_results=server.script_results, script_result=server.script_results[0])
    with Client() as client:
        show(created_client=client)
    show(
        limits=Limits(idle=0.25, per_host=4),
        options=SocketOptions(max_segment=1_460),
        trace_settings=Trace(),
        process_limits=process_limits(),
        hostile_endpoint=Endpoint("unix", "/tmp/<script>\x1b\udcff"),
    )
    return shown


def drawings() -> dict[str, str]:
    """The SVG of each kind of drawing, by its name: the pictures of the guide, drawn again."""
    source = ROOT / "docs" / "images" / "drawings.py"
    spec = importlib.util.spec_from_file_location("rsock_drawings", source)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: draw().svg for name, draw in module.PICTURES.items()}


def page(parts: dict[str, str], head: str = "", body: str = "") -> str:
    """A document with each part below its name; `body` has the attributes of the body."""
    sections = "".join(
        f'<section id="{name}"><h2>{name.replace("_", " ")}</h2><div class="output">{part}</div>'
        "</section>"
        for name, part in parts.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>rsock</title>{head}'
        f"<body {body}><main>{sections}</main></body></html>"
    )
