"""Tables in a narrow notebook: nothing is beyond the edge."""

from __future__ import annotations

import contextlib
from typing import Any

from support import closed_port, dial, read_exactly
from support.markup import html_of

from rsock import Forward, Server, Trace

# The width of a notebook's output in a window of half a screen.
WIDTH = 680


def widths(browser: Any, *things: object) -> list[int]:
    """How wide the content of each table is, in a page of that width."""
    with browser.new_context(viewport={"width": WIDTH, "height": 800}) as context:
        page = context.new_page()
        body = "".join(map(html_of, things))
        page.set_content(f"<body style='margin:0;font:14px sans-serif'>{body}</body>")
        found: list[int] = page.evaluate(
            "[...document.querySelectorAll('div:has(> table)')].map(each => each.scrollWidth)"
        )
        assert len(found) == len(things)
        return found


def test_what_ended_connections_is_within_the_page(browser: Any) -> None:
    with closed_port() as (host, port), Server(service=Forward(host, port)) as server:
        for _ in range(3):
            with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
                peer.recv(1)
        records = server.ledger.wait(open=0, closed=3)
        found = widths(browser, server.ledger, records, server, records[0])
    assert max(found) <= WIDTH


def test_the_data_of_a_trace_is_within_the_page(browser: Any) -> None:
    with Server(trace=Trace()) as server, dial(server.address) as peer:
        peer.sendall(bytes(range(250)) * 10)
        read_exactly(peer, 2_500)
        [record] = server.ledger.open
        assert record.trace is not None
        assert max(widths(browser, record.trace, record)) <= WIDTH


def test_a_note_makes_no_column_wider(browser: Any) -> None:
    with closed_port() as (host, port):
        with Server(service=Forward(host, port)) as server:
            with contextlib.suppress(ConnectionResetError), dial(server.address) as peer:
                peer.recv(1)
            server.ledger.wait(open=0, closed=1)
            text = html_of(server)
    assert "ended by error (connect" in text
    with browser.new_page() as page:
        page.set_content(text)
        heading = page.evaluate("document.querySelector('tbody th').getBoundingClientRect().width")
    # As wide as the longest heading, "connections", with its padding.
    assert heading < 150
