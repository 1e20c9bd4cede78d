"""The marker `@pytest.mark.rsock(…)` of a test. Owns which keywords it takes; must never make a
server.
"""

from typing import Any

import pytest

from .._server import ServerOptions

__all__ = ["options_of"]

_NAME = "rsock"


def options_of(item: pytest.Item) -> dict[str, Any]:
    """Return the keywords of the markers of a test; those of the closest marker come first.

    Fails the test if a marker has others.
    """
    known = {"service", "host", "port", "strict", "redact", *ServerOptions.__annotations__}
    options: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(_NAME))):
        if marker.args:
            given = ", ".join(map(repr, marker.args))
            _fail(f"@pytest.mark.rsock({given}) takes keywords only, such as service=…")
        for name, value in marker.kwargs.items():
            if name not in known:
                takes = ", ".join(sorted(known))
                _fail(f"@pytest.mark.rsock({name}={value!r}): no such keyword; it takes {takes}")
        strict = marker.kwargs.get("strict")
        if not isinstance(strict, bool | None):
            _fail(f"@pytest.mark.rsock(strict={strict!r}): must be True, False or None")
        options |= marker.kwargs
    return options


def _fail(text: str) -> None:
    pytest.fail(text, pytrace=False)
