"""A Jupyter kernel of this interpreter, driven the way that JupyterLab drives it.

For processes of their own: Jupyter's client keeps threads and descriptors, which must never be
those of the tests.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

from support.project import TESTS
from support.waiting import sleeping, wait_until

# How long a kernel may take to start, and a cell to end, on a busy machine.
PATIENCE = 60.0


class Outcome(NamedTuple):
    """What a cell showed: its printed text and its result, or the error that it raised."""

    text: str
    error: str

    @property
    def ok(self) -> bool:
        return not self.error


class Kernel:
    """A kernel, with all of Jupyter's files in `folder`, whose path must be short."""

    def __init__(self, folder: Path) -> None:
        for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
            os.environ["JUPYTER_" + name] = str(folder / name)
        os.environ["IPYTHONDIR"] = str(folder / "ipython")
        os.environ["PYTHONPATH"] = str(TESTS)
        # A kernel named "python3" may be any interpreter that is installed on the machine.
        spec = folder / "DATA_DIR" / "kernels" / "of-this-test"
        spec.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.joinpath("kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": "", "language": "python"})
        )
        jupyter: Any = importlib.import_module("jupyter_client")
        # Sockets in a folder instead of ports, which other tests might take meanwhile.
        self._manager: Any = jupyter.KernelManager(
            kernel_name=spec.name, transport="ipc", ip=str(folder / "ipc")
        )
        self._folder = folder

    def __enter__(self) -> Self:
        self._manager.start_kernel(cwd=str(self._folder))
        try:
            self._connect()
        except BaseException:
            self._manager.shutdown_kernel(now=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _connect(self) -> None:
        self._client: Any = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)

    @property
    def pid(self) -> int:
        pid: int = self._manager.provisioner.pid
        return pid

    def begin(self, code: str) -> str:
        """Send a cell; `end` waits for it."""
        # Otherwise the kernel refuses cells for a moment after one that raised.
        message: str = self._client.execute(code, stop_on_error=False)
        return message

    def end(self, message: str) -> Outcome:
        """Wait for the end of a cell; return what it showed."""
        error = self.reply(message)
        text = ""
        while True:
            told = self._client.get_iopub_msg(timeout=PATIENCE)
            if told["parent_header"].get("msg_id") != message:
                continue
            content = told["content"]
            if told["msg_type"] == "stream":
                text += content["text"]
            elif told["msg_type"] == "execute_result":
                text += content["data"]["text/plain"]
            elif told["msg_type"] == "status" and content["execution_state"] == "idle":
                return Outcome(text, error)

    def reply(self, message: str) -> str:
        """Wait until a cell has ended; return the error that it raised, or an empty text."""
        while True:
            reply = self._client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == message:
                break
        content = reply["content"]
        return "" if content["status"] == "ok" else f"{content['ename']}: {content['evalue']}"

    def run(self, code: str) -> str:
        """Run a cell that must succeed; return what it showed."""
        outcome = self.end(self.begin(code))
        assert outcome.ok, outcome
        return outcome.text

    def printed(self, message: str) -> str:
        """Wait for the first text that a running cell prints."""
        while True:
            told = self._client.get_iopub_msg(timeout=PATIENCE)
            if told["parent_header"].get("msg_id") == message and told["msg_type"] == "stream":
                text: str = told["content"]["text"]
                return text

    def wait_blocked(self) -> None:
        """Wait until the thread that runs the cells is blocked."""
        wait_until(lambda: sleeping(self.pid, self.pid), PATIENCE, "the cell is blocked")

    def interrupt(self) -> None:
        """What the button with the square does."""
        self._manager.interrupt_kernel()

    def restart(self) -> float:
        """What the button with the arrow does; return the time until the new kernel answers."""
        before = time.monotonic()
        self._client.stop_channels()
        self._manager.restart_kernel(now=False)
        self._connect()
        return time.monotonic() - before
