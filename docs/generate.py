"""Writes the tables of the reference pages that follow from the code: settings and commands.

python docs/generate.py            write them
python docs/generate.py --check    change nothing; exit code 1 where a page is out of date
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ocrstream.config import SECTIONS, variable_of
from pipeline.cli import COMMANDS

DOCS = Path(__file__).resolve().parent
SETTING_FLAG = "setting_"
"""How the destinations of flags begin that set a setting; those are described in configuration.md, once."""


def settings_tables() -> str:
    """Every setting, a table a section."""
    parts = []
    for section in SECTIONS:
        parts.append(f"### `[{section.SECTION}]`\n\n{section.__doc__}\n")
        parts.append("| key | default | environment | flag | meaning |\n|---|---|---|---|---|")
        parts.extend(_setting_row(section.SECTION, field) for field in dataclasses.fields(section))
        parts.append("")
    return "\n".join(parts).rstrip()


def _setting_row(section: str, field: dataclasses.Field[Any]) -> str:
    told = field.metadata
    default = (
        ""
        if field.default in ("", ())
        else f"`{field.default:g}`"
        if _is_number(field.default)
        else f"`{field.default}`"
    )
    flag = f"`{told['flag']}`" if told["flag"] else ""
    meaning = _cell(told["help"]) + "".join(f"; {limit}" for limit in _limits(told))
    return f"| `{field.name}` | {default} | `{variable_of(section, field.name)}` | {flag} | {meaning} |"


def _limits(told: Any) -> Iterator[str]:
    if told["choices"]:
        yield "one of " + ", ".join(f"`{choice}`" for choice in told["choices"] if choice)
    if told["lowest"] is not None and told["highest"] is not None:
        yield f"{told['lowest']:g} to {told['highest']:g}"
    elif told["lowest"]:
        yield f"at least {told['lowest']:g}"
    if told["secret"]:
        yield "**secret**: from the environment only, never shown"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def command_tables() -> str:
    """Every command with what it takes, in the order of ``ocrstream --help``."""
    return "\n\n".join(_command(command) for _, commands in COMMANDS for command in commands)


def _command(command: Any) -> str:
    parser = argparse.ArgumentParser(prog=f"ocrstream {command.name}", add_help=False)
    command.add_arguments(parser)
    positional, flags, settings = _actions(parser)
    usage = " ".join(
        [f"ocrstream {command.name}", *("[OPTIONS]" for _ in parser._actions[:1]), *map(_shown, positional)]
    )
    parts = [f"### `{command.name}`\n\n{command.description}\n\n```sh\n{usage}\n```"]
    if positional or flags:
        rows = [f"| `{_name(action)}` | {_cell(action.help or '')} |" for action in (*positional, *flags)]
        parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]))
    if settings:
        parts.append("Settings: " + ", ".join(f"`{action.option_strings[0]}`" for action in settings))
    return "\n\n".join(parts)


def _actions(parser: argparse.ArgumentParser) -> tuple[list[argparse.Action], ...]:
    positional = [action for action in parser._actions if not action.option_strings]
    # Every command has --config; the page says so once.
    flags = [action for action in parser._actions if action.option_strings and action.dest != "config"]
    is_setting: Callable[[argparse.Action], bool] = lambda action: action.dest.startswith(SETTING_FLAG)  # noqa: E731
    return positional, [a for a in flags if not is_setting(a)], [a for a in flags if is_setting(a)]


def _shown(action: argparse.Action) -> str:
    name = str(action.metavar)
    return {"+": f"{name}…", "*": f"[{name}…]"}.get(str(action.nargs), name)


def _name(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0 and action.option_strings:
        value = " " + (str(action.metavar) if action.metavar else "{" + ",".join(action.choices or ()) + "}")
    return ", ".join(action.option_strings) + value if action.option_strings else str(action.metavar)


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {"configuration.md": settings_tables, "commands.md": command_tables}


def renewed(page: str, text: str) -> str:
    """A page's text with its generated part made anew."""
    begin, end = "<!-- generated: begin -->", "<!-- generated: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{page} should hold {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{PAGES[page]()}\n\n{end}", text)


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the reference tables that follow from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing, only tell")
    only_check = parser.parse_args().check
    stale = []
    for page in PAGES:
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        fresh = renewed(page, text)
        if fresh != text:
            stale.append(page)
            if not only_check:
                path.write_text(fresh, encoding="utf-8")
    if stale:
        sys.stderr.write(f"{', '.join(stale)}: {'out of date, run make docs' if only_check else 'written'}\n")
    return 1 if stale and only_check else 0


if __name__ == "__main__":
    sys.exit(main())
