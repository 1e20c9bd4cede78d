"""The command line: from arguments to an exit code.

`rsock` and `python -m rsock` run it. This file owns the exit codes and the error messages. `import
rsock` must never load it, and it must load no command except the one to run.
"""

import sys
from collections.abc import Sequence
from typing import Final

from .._printable import printable_lines
from . import _streams
from ._errors import Failure, OutputGone, UsageError, message

__all__ = ["main"]

# The exit codes that a shell reports for a program that SIGINT or SIGPIPE ended.
_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141

_MISSING: Final = (
    "the command line needs the package rich: pip install rich, or in a clone pip install '.[cli]'"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; None takes the process's own arguments.

    0: done, or drained after Ctrl-C or SIGTERM. 1: it failed, and a line on standard error says
    why. 2: the arguments are wrong. 130 and 143: ended by a second Ctrl-C or SIGTERM, or by the
    first if there is nothing to drain. 141: the reader of the output has closed it.
    """
    _streams.prepare()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except UsageError as error:
        return _say(str(error), 2)
    except Failure as error:
        return _say(str(error), 1)
    except (OutputGone, BrokenPipeError):
        # BrokenPipeError from the last flush; commands handle those of their sockets.
        _streams.abandon_output()
        return _PIPE_CLOSED
    except OSError as error:
        return _say(message(error), 1)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    from . import _arguments

    arguments = _arguments.parse(argv)
    try:
        import rich  # noqa: F401
    except ImportError:
        raise Failure(_MISSING) from None
    return arguments.command(arguments)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"rsock: {printable_lines(text.rstrip())}\n")
    return code
