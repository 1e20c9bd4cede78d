"""The child's end of `reliability.process`: calls functions by name and returns the results.

Reads a line, [name, arguments], and prints one: {"returned": …} or {"raised": …}. Ends when its
standard input closes. Must never keep what a call returned.
"""

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any


def named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    assert callable(found)
    return found  # type: ignore[no-any-return]


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        name, arguments = json.loads(line)
        try:
            answer = json.dumps({"returned": named(name)(*arguments)})
        except Exception:
            answer = json.dumps({"raised": traceback.format_exc()})
        print(answer, flush=True)


if __name__ == "__main__":
    main()
