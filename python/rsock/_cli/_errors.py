"""How a command gives up, and in what words. Must load nothing."""

__all__ = ["Failure", "OutputGone", "UsageError", "told"]


class Failure(Exception):
    """It could not be done; the text is the one line that says why."""


class OutputGone(Exception):
    """Whoever read standard output has gone, as `| head` does: no news to anybody."""


class UsageError(Exception):
    """What was asked for makes no sense; the text says what, and what would."""


def told(error: OSError) -> str:
    """What an OSError says, without its number: `bind 127.0.0.1:80: Permission denied`."""
    text = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {text}" if error.filename else text
