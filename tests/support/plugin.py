"""A pytest within a test, for the plugin of rsock.

Owns how it is started, with warnings as errors. Must never load what the
tests load.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Loaded here, because a run within this process forgets the modules that it has loaded.
import rsock._pytest._section
import rsock._pytest._servers
import rsock.faults
import rsock.pytest_plugin  # noqa: F401

# Inner tests look at what earlier ones left in these lists.
COMMON = """
import asyncio
import contextlib
import os
import signal
import socket
import threading
import time

import pytest

# Loaded here, because a run within this process forgets the modules that it has loaded.
import rsock._pytest._section
import rsock._pytest._servers
import rsock.faults
import rsock.pytest_plugin  # noqa: F401

import rsock

servers = []


def refuses(address):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5.0)
    return True


def talk(server, data):
    with server.client(timeout=5.0) as client:
        client.sendall(data)
        while client.recv(1024):
            pass
"""

# Of a run beside the other plugins. Unset, the option is a warning of pytest-asyncio.
SEPARATE = ["-p", "no:cacheprovider"]
if importlib.util.find_spec("pytest_asyncio"):
    SEPARATE += ["-o", "asyncio_default_fixture_loop_scope=function"]

# Of a run without them.
ALONE = ["-p", "rsock", "-p", "no:cacheprovider"]

# Prints at the very end of an inner run how the servers of its test file ended.
ENDS = """
import sys


def pytest_unconfigure(config):
    for server in getattr(sys.modules.get("test_inner"), "servers", ()):
        print("\\nended:", server.name, server.state)
"""


def inner(
    pytester: pytest.Pytester,
    code: str,
    *arguments: str,
    ini: str = "",
    is_shuffled: bool = False,
) -> pytest.RunResult:
    """Run `code` as a test file in a separate process, beside all plugins that are installed.

    The tests run in their order, unless `is_shuffled`.
    """
    _write(pytester, code, ini)
    order = [] if is_shuffled else ["-p", "no:randomly"]
    return pytester.runpytest_subprocess(*SEPARATE, *order, *arguments, timeout=100)


def alone(pytester: pytest.Pytester, code: str, *arguments: str, ini: str = "") -> pytest.RunResult:
    """The same with the plugin of rsock alone, and those that the arguments name.

    Loading the others takes most of the time of a short run.
    """
    _write(pytester, code, ini)
    return run_alone(pytester, *arguments)


def run_alone(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the test files that there are in a separate process, with the plugin of rsock alone."""
    with _no_other_plugin():
        return pytester.runpytest_subprocess(*ALONE, *arguments, timeout=100)


def quick(pytester: pytest.Pytester, code: str, *arguments: str, ini: str = "") -> pytest.RunResult:
    """The same in this process, which is faster: for what needs no process of its own."""
    _write(pytester, code, ini)
    return run_here(pytester, *arguments)


def run_here(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the test files that there are in this process, with the plugin of rsock alone."""
    with _no_other_plugin():
        return pytester.runpytest_inprocess(*ALONE, *arguments)


@contextmanager
def _no_other_plugin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        yield


def _write(pytester: pytest.Pytester, code: str, ini: str) -> None:
    pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}\n")
    pytester.makepyfile(test_inner=COMMON + code)
    # A file of the same length, written within the second of the one before it, has the compiled
    # form of that one.
    shutil.rmtree(pytester.path / "__pycache__", ignore_errors=True)
