"""The ``ocrstream`` command: a table of commands, each in the room it belongs to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from detector_consumer.__main__ import COMMAND as DETECT
from indexer.__main__ import COMMAND as INDEX
from ocrstream.process import Command, execute, set_up_logging
from pipeline import annotating, dead_letters, doctor, documents, models, reading, replaying, running
from producers.__main__ import COMMAND as PRODUCE
from recognizer_consumer.__main__ import COMMAND as RECOGNIZE
from search.__main__ import COMMAND as SERVE

COMMANDS: tuple[tuple[str, tuple[Command, ...]], ...] = (
    ("everything in one process", (running.COMMAND,)),
    ("one stage each, over Kafka and Elasticsearch", (PRODUCE, DETECT, RECOGNIZE, INDEX, SERVE)),
    ("what was read", (documents.SEARCH, documents.EXPORT, documents.IMPORT, annotating.COMMAND)),
    ("pictures, without a store", (reading.COMMAND,)),
    (
        "running it for months",
        (replaying.COMMAND, documents.RETENTION, dead_letters.COMMAND, models.COMMAND, doctor.COMMAND),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit code."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_not_understood(arguments.command, unknown))
    if arguments.command is None:
        parser.print_help()
        return 2
    command: Command = arguments.command
    set_up_logging()
    return execute(command.run, arguments)


def _not_understood(command: Command | None, unknown: Sequence[str]) -> str:
    is_query = command is documents.SEARCH and unknown[0].startswith("-") and not unknown[0].startswith("--")
    if is_query:
        return f"write -- before a query that begins with a minus: ocrstream search -- {' '.join(unknown)}"
    return f"unrecognized arguments: {' '.join(unknown)}"


def _parser() -> argparse.ArgumentParser:
    listing = "\n\n".join(
        f"{title}:\n" + "\n".join(f"  {command.name:<14}{command.description}" for command in commands)
        for title, commands in COMMANDS
    )
    parser = argparse.ArgumentParser(
        prog="ocrstream",
        usage="ocrstream COMMAND …",
        description="Point it at a camera or a video, and a second later every word that was seen can be searched.",
        epilog=f"{listing}\n\nocrstream COMMAND --help tells more. Try it: ocrstream run demo:",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ocrstream {version('ocrstream')}")
    parser.set_defaults(command=None)
    # The commands are listed in groups above; argparse's own list is suppressed.
    subparsers = parser.add_subparsers(prog="ocrstream", metavar="COMMAND", help=argparse.SUPPRESS)
    for _, commands in COMMANDS:
        for command in commands:
            subparser = subparsers.add_parser(command.name, description=command.description)
            command.add_arguments(subparser)
            subparser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
