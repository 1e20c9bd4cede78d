"""Tests on a virtual wire: each runs in a fresh process, which moves into a network of its own.

The network ends with the process. Must never run the code in the process of the tests.
"""

from __future__ import annotations

import pytest

from support.processes import run_script
from support.project import TESTS
from support.wire import may_wire

wired = pytest.mark.skipif(not may_wire(), reason="no network namespaces or TUN devices here")


def on_a_wire(code: str) -> None:
    """Run code in a process that has its own `Wire`, and fail if the code fails."""
    head = (
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from support import SOON, wait_until\n"
        "from support.wire import HOST, OTHER, Wire\n"
        "wire = Wire()\n"
        "import rsock\n"
        "FORGED = ('10.9.0.77', 4000)\n"
        "def serve(service=None, host='0.0.0.0', **more):\n"
        "    return rsock.Server(host, transport='udp', service=service, allow_external=True,\n"
        "                        **more)\n"
    )
    done = run_script(head + code, deadline=60.0)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
