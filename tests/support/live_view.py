"""The live view of a server in a page of Playwright's: its buttons, and the questions that it asks.

Must never know which program shows the page.
"""

from __future__ import annotations

import time
from typing import Any

from support.exchange import read_to_end, says_back
from support.peers import dial, refused
from support.waiting import wait_until

QUESTION = b'"act":"ask"'


class LiveView:
    """A live view in a page, the address of its server, and how many questions it asked."""

    def __init__(self, page: Any, address: tuple[str, int]) -> None:
        self.page = page
        self.address = address
        self.questions = 0
        self.view = page.locator(".rsock-watch")
        self.view.get_by_text("serving", exact=False).wait_for()

    def sent(self, data: str | bytes | None) -> None:
        """Count the questions in what the page sends."""
        data = data.encode() if isinstance(data, str) else data or b""
        self.questions += QUESTION in data.replace(b" ", b"")

    def click(self, name: str) -> None:
        self.view.get_by_role("button", name=name, exact=True).click()

    def add_fault(self, text: str) -> None:
        self.view.get_by_label("A fault, such as latency:0.2").fill(text)
        self.click("add fault")

    def asks_again(self) -> None:
        """Wait for another question. (Playwright hears of it while it waits for the page.)"""
        before = self.questions
        wait_until(lambda: self.page.wait_for_timeout(50) or self.questions > before)

    def asks_no_more(self) -> None:
        """Four times the period of the questions pass, without one more than is on its way."""
        before = self.questions
        self.page.wait_for_timeout(2_000)
        assert self.questions <= before + 1

    def drains(self) -> None:
        """The button ends an open connection, and the server behind it."""
        with dial(self.address) as peer:
            assert says_back(peer)
            self.click("Drain: accept no more, and stop")
            assert read_to_end(peer) == b""
        self.view.get_by_text("stopped", exact=False).first.wait_for()
        assert refused(self.address)


def echo_time(peer: Any) -> float:
    before = time.monotonic()
    assert says_back(peer)
    return time.monotonic() - before
