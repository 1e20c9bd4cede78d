"""Scenario 18: random addresses. Each gives a typed error at once, and nothing is opened."""

import random
import socket
import time
from collections.abc import Iterator
from typing import Any

from reliability.figures import Figure, at_most, equal, only_shown
from reliability.process import Child, held
from reliability.scenario import Scenario, Size

# socket.gaierror: the unknown name of a port, which is looked up in a file.
ALLOWED = (ValueError, TypeError, OverflowError, socket.gaierror)
LETTERS = "aZ09.-_:%[]/@ \t\n\0é漢\ud800*?#"
HOSTS = ["127.0.0.1", "::1", "localhost", "fe80::1%lo", "0.0.0.0", "255.255.255.255", "[::1]"]


def host(dice: random.Random) -> Any:
    kind = dice.randrange(10)
    if kind == 0:
        return dice.choice([None, 1, 1.5, b"127.0.0.1", (), ("a",), ["127.0.0.1"], object(), True])
    text = dice.choice(HOSTS)
    if kind < 4:
        return text
    letters = [*text, *dice.choices(LETTERS, k=dice.randrange(8))]
    dice.shuffle(letters)
    return "".join(letters) * dice.choice([1, 1, 1, 30])


def port(dice: random.Random) -> Any:
    return dice.choice(
        [0, 1, 80, 65_535, 65_536, -1, 1 << 40, -(1 << 70), 1.5, float("nan"), True, None, b"80",
         "http", "80", "", "no-such-service", "a b", "\0", "\ud800", "x" * 300, (), object()]
    )  # fmt: skip


def fuzz(seed: int, count: int) -> dict[str, Any]:
    """Create servers and clients at `count` addresses; return the outcomes."""
    import rsock

    dice = random.Random(seed)
    found: dict[str, Any] = {"refused": 0, "taken": 0, "other": [], "slowest": 0.0}
    for _ in range(count):
        where = host(dice), port(dice)
        ask = dice.choice([(where, None), where])
        began = time.perf_counter()
        try:
            rsock.Server(*ask)
            found["taken"] += 1
        except ALLOWED:
            found["refused"] += 1
            # An address that no server may have is also invalid for a client, and no name server is
            # asked for it.
            try:
                with rsock.Client() as client:
                    client.connect(where)
            except (*ALLOWED, OSError):
                pass
            except BaseException as error:
                found["other"].append(f"{where!r}: {error!r}")
        except BaseException as error:
            found["other"].append(f"{where!r}: {error!r}")
        found["slowest"] = max(found["slowest"], time.perf_counter() - began)
    found["other"] = found["other"][:5]
    return found


def run(size: Size) -> Iterator[Figure]:
    count = size.of(brief=500, short=20_000, long=500_000)
    with Child() as child:
        child.call(fuzz, 0, 20)
        before = held(child.pid)
        found = child.call(fuzz, 1, count)
        yield only_shown("refused, taken", f"{found['refused']:,}, {found['taken']:,}")
        yield equal("anything but a typed error", found["other"], [])
        yield at_most("slowest", found["slowest"], 0.05, "s")
        now = held(child.pid)
        yield equal("descriptors, threads left", (*now,), (*before,))
        yield equal("exit code", child.end(), 0)
        yield equal("written to standard error", child.said(), "")


SCENARIO = Scenario("18", "addresses from a fuzzer", run)
