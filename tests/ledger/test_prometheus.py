"""A real Prometheus scrapes a command, and answers with the numbers of its ledger."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LOOPBACK, SOON, dial, says_back, wait_until
from support.command_line import PATIENCE, Running

CONFIG = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: rsock
    static_configs:
      - targets: ["{target}"]
"""
VISITS = 25


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Prometheus:
    """A Prometheus that answers queries."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{LOOPBACK}:{port}/api/v1/query?"

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The series that a query finds: labels and values."""
        url = self._url + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(url, timeout=SOON) as answered:
            answer: dict[str, Any] = json.load(answered)
        assert answer["status"] == "success", answer
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def answers(self) -> bool:
        try:
            return bool(self.ask("vector(1)"))
        except OSError:
            return False


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed")
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(target=target))
    port = free_port()
    command = [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]
    output = folder / "prometheus.txt"
    with (
        output.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT) as process,
    ):
        try:
            made = Prometheus(port)

            def answers() -> bool:
                assert process.poll() is None, output.read_text()
                return made.answers()

            wait_until(answers, PATIENCE)
            yield made
        finally:
            process.kill()


def test_prometheus_has_the_numbers_of_the_ledger(tmp_path: Path) -> None:
    account = tmp_path / "account.jsonl"
    with Running(
        "echo", "0", "--name", "web", "--metrics", "0", "--ledger", str(account), "--json"
    ) as command:
        host, port = json.loads(command.line())["address"]
        address = tuple(json.loads(command.line())["address"])
        with prometheus(tmp_path, f"{host}:{port}") as found:
            for _ in range(VISITS):
                with dial(address) as peer:
                    assert says_back(peer)
            for _ in range(VISITS):
                assert json.loads(command.line())["event"] == "closed"

            def closed() -> bool:
                series = found.ask("sum(rsock_connections_closed_total)")
                return bool(series) and series[0][1] == VISITS

            wait_until(closed, PATIENCE)
            wait_until(lambda: account.read_text().count("\n") == VISITS)
            records = [json.loads(line) for line in account.read_text().splitlines()]
            labels = {"job": "rsock", "instance": f"{host}:{port}", "server": "web"}
            expected = {
                "rsock_connections_accepted_total": VISITS,
                "rsock_connections_open": 0,
                "rsock_received_bytes_total": sum(each["bytes_in"] for each in records),
                "rsock_sent_bytes_total": sum(each["bytes_out"] for each in records),
                "rsock_received_messages_total": sum(each["messages_in"] for each in records),
                "rsock_server_ready": 1,
                "rsock_connection_rtt_seconds_count": VISITS,
            }
            for name, value in expected.items():
                assert found.ask(name) == [({"__name__": name, **labels}, value)]
            causes = Counter(each["closed_by"] for each in records)
            series = found.ask("rsock_connections_closed_total > 0")
            assert {each["closed_by"]: value for each, value in series} == causes
            assert found.ask("up") == [
                ({"__name__": "up", "job": "rsock", "instance": f"{host}:{port}"}, 1)
            ]
