"""What the image and the compose files promise, checked without an engine; `make compose-test` brings them up."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.version import Version

from ocrstream import config
from pipeline.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

STAGE_SETTINGS: dict[str, tuple[type[Any], ...]] = {
    "produce": (config.KafkaSettings, config.ProducerSettings),
    "detect": (config.KafkaSettings, config.DetectorSettings),
    "recognize": (config.KafkaSettings, config.RecognizerSettings),
    "index": (config.KafkaSettings, config.ElasticsearchSettings, config.IndexerSettings),
    "serve": (config.KafkaSettings, config.ElasticsearchSettings),
}
SERVERS = ("kafka", "elasticsearch", "kibana")
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def filled_in(text: str, **environment: str) -> str:
    """What compose makes of a value."""
    return VARIABLE.sub(lambda match: environment.get(match[1], match[2] or ""), text)


def variables_of(*sections: type[Any]) -> set[str]:
    return {config.variable_of(s.SECTION, field.name) for s in sections for field in dataclasses.fields(s)}


def test_every_stage_is_a_service_and_runs_its_own_command() -> None:
    assert set(SERVICES) == {*STAGE_SETTINGS, *SERVERS, "kibana-setup"}
    assert set(STAGE_SETTINGS) <= {command.name for _, commands in COMMANDS for command in commands}
    for name in ("detect", "recognize", "index", "serve"):
        assert SERVICES[name]["command"] == name


def test_the_built_in_camera_is_the_source_until_others_are_named() -> None:
    command = SERVICES["produce"]["command"]
    assert filled_in(command) == "produce demo:"
    assert filled_in(command, OCRSTREAM_SOURCES="rtsp://a/1 /media/b.mp4") == "produce rtsp://a/1 /media/b.mp4"


@pytest.mark.parametrize("name", STAGE_SETTINGS)
def test_every_setting_of_a_stage_can_be_given_in_the_environment(name: str) -> None:
    missing = variables_of(*STAGE_SETTINGS[name]) - set(SERVICES[name]["environment"])
    assert not missing, f"docker-compose.yml does not pass {missing} on to {name}"


@pytest.mark.parametrize("name", STAGE_SETTINGS)
def test_no_stage_is_given_a_variable_that_it_refuses(name: str) -> None:
    environment = {
        variable: filled_in(str(value))
        for variable, value in SERVICES[name]["environment"].items()
        if value is not None
    }
    settings = config.Configuration(environment=environment)
    assert settings.section(config.KafkaSettings).servers == "kafka:9092"
    if name in ("index", "serve"):
        assert settings.section(config.ElasticsearchSettings).url == "http://elasticsearch:9200"
    assert variables_of(*config.SECTIONS) >= set(SERVICES[name]["environment"])


def test_variables_of_the_compose_file_itself_do_not_stop_a_command_beside_it() -> None:
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "docker-compose.gpu.yml").read_text()
    named = {match[1]: "" for match in VARIABLE.finditer(text)}
    assert {"OCRSTREAM_SOURCES", "OCRSTREAM_IMAGE", "OCRSTREAM_GPU_IMAGE"} <= set(named)
    config.Configuration(environment=named)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert filled_in(port).startswith("127.0.0.1:")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_its_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["restart"]
    assert service["logging"]["options"]["max-size"]
    if name != "kibana-setup":
        assert service["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_until_what_it_needs_is_healthy(name: str) -> None:
    waits_for = SERVICES[name].get("depends_on", {})
    assert all(condition == {"condition": "service_healthy"} for condition in waits_for.values())
    environment = " ".join(map(str, SERVICES[name]["environment"].values()))
    needs = {server for server in SERVERS if server != name and f"{server}:" in filled_in(environment)}
    assert set(waits_for) == needs | ({"index"} if name == "produce" else set())


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_versions_are_pinned(name: str) -> None:
    image = filled_in(SERVICES[name]["image"])
    assert re.fullmatch(r"[\w./]+:\d+\.\d+\.\d+", image)
    if name != "kafka":
        client = next(Requirement(d) for d in PROJECT["dependencies"] if d.startswith("elasticsearch"))
        assert client.specifier.contains(image.rpartition(":")[2]), "the client's major version fits the server's"


@pytest.mark.parametrize("name", [*STAGE_SETTINGS, "kibana-setup"])
def test_our_services_run_without_rights_they_do_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_gpu_file_gives_both_model_stages_a_gpu() -> None:
    assert set(GPU["services"]) == {"detect", "recognize"}
    for name, service in GPU["services"].items():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
        extras = service["build"]["args"]["EXTRAS"].split()
        assert "gpu" in extras
        assert set(extras) <= set(PROJECT["optional-dependencies"])
        assert service["image"] != SERVICES[name]["image"]
        (variable,) = service["environment"]
        assert variable in SERVICES[name]["environment"]
        assert filled_in(service["environment"][variable]) == "cuda"


def test_the_image_gets_every_package_of_the_project() -> None:
    lets_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {
        folder.name
        for folder in ROOT.iterdir()
        if (folder / "__init__.py").exists() and any(fnmatch.fnmatch(folder.name, pattern) for pattern in patterns)
    }
    assert packages >= {"pipeline", "producers", "ocrstream"}
    assert packages <= set(lets_in)
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= set(lets_in)


def test_the_image_is_built_with_versions_that_the_project_allows() -> None:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line)
    for requirement in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gpu"]]):
        assert requirement.name.lower() in pinned, f"add {requirement.name} to deploy/constraints.txt"
        assert requirement.specifier.contains(Version(pinned[requirement.name.lower()]))


def test_a_stage_is_healthy_while_it_holds_a_connection_to_the_broker() -> None:
    def is_healthy(servers: str) -> bool:
        script = ROOT / "deploy" / "ocrstream-connected"
        return subprocess.run([script, servers], capture_output=True, timeout=30, check=False).returncode == 0

    with socket.create_server(("127.0.0.1", 0)) as broker:
        port = broker.getsockname()[1]
        assert not is_healthy(f"kafka:{port}")
        with socket.create_connection(("127.0.0.1", port)), broker.accept()[0]:
            assert is_healthy(f"kafka:{port}")
            assert is_healthy(f"other:1,kafka:{port}")
        assert not is_healthy(f"kafka:{port}")


def test_the_image_ends_well_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["ocrstream"]' in lines, "in exec form: SIGTERM reaches the stage"
    assert "USER ocrstream" in lines
    assert all("latest" not in line for line in lines if line.startswith(("FROM", "ARG")))
