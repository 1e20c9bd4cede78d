"""The exceptions that end a command. This file owns their texts, and must import nothing."""

__all__ = ["Failure", "OutputGone", "UsageError", "message"]


class Failure(Exception):
    """The command failed; the text is the one line that says why."""


class OutputGone(Exception):
    """The reader of standard output has closed it, as `| head` does: no message is printed."""


class UsageError(Exception):
    """The arguments are wrong; the text says which, and what would be right."""


def message(error: OSError) -> str:
    """Return the text of an OSError without its number: `bind 127.0.0.1:80: Permission denied`."""
    text = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {text}" if error.filename else text
