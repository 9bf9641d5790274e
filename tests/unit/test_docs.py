"""The pages in docs/ say what the program is: nothing is missing, no link leads nowhere, every command works."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import inspect
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pytest
from starlette.routing import Mount, Route

from ocrstream import errors, messages, runner, wire
from ocrstream.config import (
    OTHERS_VARIABLES,
    SECTIONS,
    Configuration,
    DetectorSettings,
    ProducerSettings,
    RecognizerSettings,
    variable_of,
)
from ocrstream.geometry import box_polygon
from ocrstream.messages import (
    Appearance,
    Crop,
    Crops,
    DeadLetter,
    EngineInfo,
    Frame,
    FrameInfo,
    PictureRef,
    RawRecord,
    Region,
    Text,
    Texts,
)
from ocrstream.models import EngineOptions
from ocrstream.picture import Picture
from ocrstream.storage import Filter, Hit, elastic_layout, embedded_layout
from pipeline.cli import COMMANDS
from pipeline.topology import TOPOLOGY
from producers.progress import Event
from search.asking import Asked
from search.export import export
from search.showing import hit_json
from search.web import Status, build_app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for folder in ("docs", "deploy", "benchmarks") for p in (ROOT / folder).rglob("*.md"))]
)
CODE = [
    path
    for folder in ("ocrstream", *(row.folder for row in TOPOLOGY), "search", "pipeline")
    for path in (ROOT / folder).rglob("*.py")
]
ALL_COMMANDS = {command.name: command for _, commands in COMMANDS for command in commands}

INFO = FrameInfo("gate", "0a1b", 1, 8, 8, live=True, picture=PictureRef(messages.FRAMES, 0, 7))
ENGINE = EngineInfo("ppocr", "0123456789ab")
REGION = Region(0, box_polygon(0, 0, 8, 8), 0.9)
PICTURE = Picture.from_array(np.zeros((8, 8, 3), np.uint8))
APPEARANCE = Appearance("0a1b-000", "gate", "B12", 0.9, 1, 2, None, None, "0a1b", 1, ((0.0, REGION.polygon),), True)
TEXTS = Texts(INFO, ENGINE, ENGINE, (Text(REGION, "B12", 0.9),), (APPEARANCE,))
EVERY_MESSAGE = (
    Frame(INFO, PICTURE),
    Crops(INFO, ENGINE, (Crop(REGION, (PICTURE,)),)),
    TEXTS,
    DeadLetter(messages.FRAMES, 0, 7, "detector", "why", "where", RawRecord("gate", b"", {"ocr-schema": b"x"}, 1)),
)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def words_in_code(text: str) -> set[str]:
    """What stands in backticks, outside of fenced blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)))


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^[ \t]*```{language}\n(.*?)^[ \t]*```", text, flags=re.DOTALL | re.MULTILINE)


def keys_of(value: Any) -> set[str]:
    """Every key of a JSON value, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_of(inner)}
    return {key for inner in value for key in keys_of(inner)} if isinstance(value, (list, tuple)) else set()


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command, exit_on_error=False)
    ALL_COMMANDS[command].add_arguments(parser)
    return parser


# What has to be there


@pytest.mark.parametrize("name", ["configuration.md", "commands.md"])
def test_the_generated_tables_are_what_the_code_says(name: str) -> None:
    assert generator().renewed(name, page(name)) == page(name), "run: make docs"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.SECTION)
def test_every_setting_is_described(section: type[Any]) -> None:
    (_, _, rest) = page("configuration.md").partition(f"### `[{section.SECTION}]`\n")
    table = rest.partition("\n### ")[0]
    for field in dataclasses.fields(section):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{field.name}` |")]
        assert f"`{variable_of(section.SECTION, field.name)}`" in row
        assert field.metadata["help"] in row
        assert not field.metadata["flag"] or f"`{field.metadata['flag']}`" in row


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_and_flag_is_described(command: str) -> None:
    (_, _, rest) = page("commands.md").partition(f"### `{command}`\n")
    described = rest.partition("\n### ")[0]
    assert ALL_COMMANDS[command].description in described
    flags = {flag for action in parser_of(command)._actions for flag in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", described))
    # These two are every command's; the page says so once.
    assert flags - {"-h", "--help", "--config"} == named - {"-not"}, "-not is a word of the query language"


def test_every_topic_header_and_schema_is_described() -> None:
    described = words_in_code(page("messages.md"))
    schemas = {wire.encode(message).headers[wire.SCHEMA_HEADER].decode() for message in EVERY_MESSAGE}
    assert {*messages.TOPICS, *schemas, wire.SCHEMA_HEADER, wire.META_HEADER} <= described


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
def test_every_field_of_a_message_is_described(message: messages.Message) -> None:
    record = wire.encode(message)
    meta = json.loads(record.headers.get(wire.META_HEADER, record.value))
    missing = keys_of(meta) - words_in_code(page("messages.md"))
    assert not missing


def test_every_error_is_described() -> None:
    classes = {name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)}
    assert classes | {runner.StageFailedError.__name__} <= words_in_code(page("operations.md"))


def metric_names() -> set[str]:
    """The counters, gauges and durations that the code writes, as operations.md spells them."""
    names: set[str] = set()
    for path in CODE:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
                continue
            if call.func.attr in ("add", "set", "observe") and ast.unparse(call.func.value).endswith("metrics"):
                names |= _spelt(call.args[0])
    return names


def _spelt(name: ast.expr) -> set[str]:
    if isinstance(name, ast.Constant):
        return {str(name.value)}
    assert isinstance(name, ast.JoinedStr), f"a counter's name should be literal: {ast.unparse(name)}"
    text = ast.unparse(name)[2:-1].replace("{self._stage.name}", "STAGE")
    return {text.replace("{event}", event) for event in get_args(Event)} if "{event}" in text else {text}


def test_every_counter_is_described() -> None:
    names = metric_names()
    assert {"producer.reconnects", "STAGE.dropped", "indexer.delay"} <= names
    assert not names - words_in_code(page("operations.md"))


def warnings_in_the_code() -> Iterator[str]:
    for path in CODE:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("log.warning", "log.error"):
                assert isinstance(call.args[0], ast.Constant)
                yield str(call.args[0].value)


def test_every_warning_is_explained() -> None:
    table = page("operations.md").partition("## Warnings, and what to do")[2]
    for warning in warnings_in_the_code():
        fixed = [part.strip(" :;,().") for part in re.split(r"%[-+ .0-9]*[a-z]", warning)]
        # One that is nothing but an error's own sentence explains itself.
        assert not any(fixed) or any(len(part) > 6 and part in table for part in fixed), warning


def test_every_address_of_the_page_is_described() -> None:
    routes = build_app(Mock(), Mock()).routes
    paths = {route.path for route in routes if isinstance(route, (Route, Mount))}
    assert len(paths) == len(routes)
    assert not paths - words_in_code(page("api.md"))


def test_every_parameter_and_field_of_the_api_is_described() -> None:
    described = words_in_code(page("api.md"))
    parameters = {field.name for field in dataclasses.fields(Asked)} - {"sources"} | {"source"}
    fields = keys_of(hit_json(Hit(TEXTS, 1.0, {})))
    status = {field.name for field in dataclasses.fields(Status)}
    assert not (parameters | fields | status) - described


def test_every_field_of_the_documents_is_described() -> None:
    described = words_in_code(page("index.md"))
    for family in elastic_layout.FAMILIES:
        for name, mapping in elastic_layout.MAPPINGS[family].items():
            for inner in mapping.get("properties", {"": None}):
                assert f"{name}.{inner}".rstrip(".") in described
    tables = re.findall(r"CREATE (?:VIRTUAL )?TABLE (\w+)", embedded_layout.SCHEMA)
    assert {"frames", "words"} <= set(tables) <= described
    columns = set(embedded_layout.FRAME_COLUMNS.split(", ")) - {field.name for field in dataclasses.fields(FrameInfo)}
    assert columns <= described


def test_every_field_of_an_export_is_described() -> None:
    store = Mock()
    store.scan.return_value = [TEXTS, dataclasses.replace(TEXTS, lines=())]
    store.appearances.return_value = [APPEARANCE]
    out = io.StringIO()
    assert export(store, Filter(), "jsonl", out) == 2
    assert export(store, Filter(), "jsonl", out, "appearances") == 1
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [record["kind"] for record in records] == ["region", "frame", "appearance"]
    described = words_in_code(page("export.md"))
    assert not {key for record in records for key in record} - described
    assert {record["kind"] for record in records} <= described


# What is there has to be true


def test_the_stages_of_the_readme_are_the_topology() -> None:
    rows = re.findall(
        r"^\| \d \| \[`(\w+)/`\]\((\w+)\) \|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    shown = []
    for folder, link, rest in rows:
        command, _takes, _gives, reads, writes = (cell.strip() for cell in rest.split("|"))
        assert link == folder
        shown.append((folder, command.strip("`"), tuple(re.findall(r"`([^`]+)`", reads)), writes.strip("`")))
    assert shown == [(row.folder, row.command, row.takes, row.gives) for row in TOPOLOGY]


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leads_nowhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


TOP_FOLDERS = {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()} | {
    "docs",
    "deploy",
    ".ci",
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(path: Path) -> None:
    for word in words_in_code(path.read_text(encoding="utf-8")):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", word) and "/" in word and word.split("/")[0] in TOP_FOLDERS:
            assert (ROOT / word).exists(), word


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text(encoding="utf-8"))
        waiting += [(path.parent / link).resolve() for link in links if not re.match(r"[a-z]+:", link)]
    assert set(DOCS.rglob("*.md")) <= reached


def commands_shown() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for block in fenced(path.read_text(encoding="utf-8"), "sh"):
            for line in block.splitlines():
                match = re.match(r"\s*(?:cat \S+ \| )?(?:\.venv/bin/)?(ocrstream [a-z-].*|make .*)", line)
                if match and "[OPTIONS]" not in line:
                    yield str(path.relative_to(ROOT)), match[1]


@pytest.mark.parametrize(("where", "line"), list(commands_shown()))
def test_every_command_that_is_shown_is_one(where: str, line: str) -> None:
    program, command, *arguments = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
    else:
        parser_of(command).parse_args(arguments)


def test_commands_are_shown_at_all() -> None:
    assert {line.split()[1] for _, line in commands_shown() if line.startswith("ocrstream")} == set(ALL_COMMANDS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_variable_that_is_named_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in words_in_code(text):
        if match := re.match(r"ocrstream ([a-z][a-z-]*)\b", word):
            assert match[1] in ALL_COMMANDS, word
        if match := re.match(r"make ([a-z-]+)", word):
            assert re.search(rf"^{match[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), word
    known = {variable_of(section.SECTION, field.name) for section in SECTIONS for field in dataclasses.fields(section)}
    for variable in re.findall(r"\bOCRSTREAM_[A-Z_]+[A-Z]\b", text):
        assert variable in known | OTHERS_VARIABLES | {"OCRSTREAM_TEST", "OCRSTREAM_BENCH"}, variable


def test_the_examples_of_configuration_files_are_some(tmp_path: Path) -> None:
    plain, by_source = (_configuration(tmp_path, example) for example in fenced(page("configuration.md"), "toml"))
    assert plain.section(ProducerSettings).fps == 5
    assert [name for name, _ in by_source.section(DetectorSettings).masks] == ["hall"]
    (variable,) = re.findall(r"`(OCRSTREAM_RECOGNIZER_FORMATS)='([^']+)'`", page("configuration.md"))
    ((name, (pattern,)),) = Configuration(None, dict([variable])).section(RecognizerSettings).formats
    assert (name, pattern) == ("platform-*", by_source.section(RecognizerSettings).formats[0][1][0])


def _configuration(tmp_path: Path, example: str) -> Configuration:
    (tmp_path / "ocrstream.toml").write_text(example)
    configuration = Configuration(argparse.Namespace(config=str(tmp_path / "ocrstream.toml")), {})
    for section in SECTIONS:
        configuration.section(section)
    return configuration


def test_the_example_of_an_engine_works() -> None:
    (example,) = fenced(page("models.md"), "python")
    (entry_point,) = fenced(page("models.md"), "toml")
    assert tomllib.loads(entry_point)["project"]["entry-points"]["ocrstream.detectors"]["mine"].endswith(":MyDetector")
    namespace: dict[str, Any] = {}
    exec(example, namespace)
    detector = namespace["MyDetector"](EngineOptions())
    ((line,),) = detector.detect([np.zeros((20, 30, 3), np.uint8)])
    assert line.polygon == box_polygon(0, 0, 30, 20)
    assert detector.info.name == "mine"
