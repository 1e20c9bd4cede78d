"""Servers that play a dialogue, and their results. It must never know what a dialogue says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rsock import Client, ScriptResult, Server, Service

from .waiting import SOON, wait_until


@contextlib.contextmanager
def played(service: Service, **options: Any) -> Iterator[tuple[Server, Client]]:
    """A server of a Script or a Replay, with a client; a divergence is only in its results."""
    options.setdefault("on_error", lambda error: None)
    with Server(service=service, **options) as server, server.client(timeout=SOON) as client:
        yield server, client


def result(server: Server, count: int = 1) -> ScriptResult:
    """The last result of a server, once that many dialogues have ended."""

    def ended() -> list[ScriptResult]:
        return [each for each in server.script_results if each.position is None]

    wait_until(lambda: len(ended()) >= count)
    return ended()[-1]
