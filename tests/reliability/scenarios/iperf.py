"""iperf3 through Forward, each direction and both at once, at full speed for the given time."""

import json
import socket
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from support import wait_until

from reliability import load
from reliability.figures import Figure, at_most, equal, only_shown
from reliability.process import Served, resident_bytes
from reliability.scenario import Scenario, Size

if TYPE_CHECKING:
    from rsock import Server

MIB = 1 << 20
# Up, down, both: the client's options.
DIRECTIONS = {"up": [], "down": ["--reverse"], "both": ["--bidir"]}


def server(port: int) -> "Server":
    from rsock import Forward, Server

    return Server(service=Forward("127.0.0.1", port))


def errors(server: "Server") -> list[str]:
    """Errors of connections that neither side caused."""
    server.ledger.wait(open=0, timeout=30.0)
    return [record.error or "" for record in server.ledger.closed if record.closed_by == "limit"]


def listens(port: int) -> bool:
    with open("/proc/net/tcp") as table:
        return any(f":{port:04X} 00000000:0000 0A" in line for line in table)


def run(size: Size) -> Iterator[Figure]:
    seconds = size.of(brief=1, short=3, long=30)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    target = subprocess.Popen(
        ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: listens(port), load.PATIENCE)
        with Served(server, port) as child:
            memory = resident_bytes(child.pid)
            for direction, options in DIRECTIONS.items():
                if direction != "up" and size.form == "brief":
                    continue
                yield from _one_direction(child, direction, options, seconds)
            grown = resident_bytes(child.pid) - memory
            yield at_most("memory grown", grown, 8 * MIB, "B")
            yield equal("ended by a limit", child.call_with_server(errors), [])
            child.stop()
            yield from child.afterwards()
    finally:
        target.kill()
        target.wait()


def _one_direction(
    child: Served, direction: str, options: list[str], seconds: int
) -> Iterator[Figure]:
    host, port = child.address
    done = subprocess.run(
        [
            "iperf3",
            "--client",
            host,
            "--port",
            str(port),
            "--time",
            str(seconds),
            "--json",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=seconds + load.PATIENCE,
        check=False,
    )
    yield equal(f"{direction}: iperf3's exit code", done.returncode, 0)
    if done.returncode == 0:
        rate = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
        yield only_shown(f"{direction}: through the forwarder", rate / 1e9, "Gbit/s")


SCENARIO = Scenario(
    "iperf", "iperf3 through Forward, each direction and both at once", run, needs=("iperf3",)
)
