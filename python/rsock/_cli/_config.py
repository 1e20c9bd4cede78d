"""`rsock config`: a check of a file of options. It must never run what the file describes."""

import argparse

from ._errors import Failure, UsageError
from ._namespace import Arguments as Base

__all__ = ["Arguments", "add_arguments", "run"]


class Arguments(Base):
    """The arguments of `rsock config`."""

    what: str
    file: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "rsock config check FILE"
    parser.description = (
        "Check a TOML file for --config: its keys are the options of the commands.\n\n"
        "    drain = 5\n"
        "    [limit]\n"
        "    idle = 30          # --limit-idle 30\n"
        "    [serve]            # for rsock serve only\n"
        '    service = "app:shout"\n'
        '    listen = ["0.0.0.0:8080"]\n\n'
        "Options of the command line count most, then the environment (RSOCK_DRAIN=5),\n"
        "then the file."
    )
    parser.add_argument("what", metavar="check", help="what to do with the file")
    parser.add_argument("file", metavar="FILE", help="its path")


def run(arguments: Arguments) -> int:
    """Check a file; print each problem, or that there is none."""
    from ._arguments import COMMANDS
    from ._layers import File, Layers, all_options, options

    if arguments.what != "check":
        raise UsageError(f"config {arguments.what!r}: must be check\nTry 'rsock config --help'.")
    commands = [name for name in COMMANDS if name != "config"]
    try:
        file = File(arguments.file, commands)
    except UsageError as error:
        # The file is what was asked about, so this is an answer.
        raise Failure(str(error)) from None
    parsers = all_options(commands, __package__)
    known = {name: options(parser) for name, parser in parsers.items()}
    problems = file.unknown(known)
    for name, parser in parsers.items():
        problems += Layers(parser).add(file.of(name, known[name]))
    if problems:
        problems.sort(key=lambda problem: problem.line)
        raise Failure("\n".join(dict.fromkeys(map(str, problems))))
    print(f"{arguments.file}: {len(file)} option{'' if len(file) == 1 else 's'}, nothing wrong")
    return 0
