"""The doctor: names everything a deployment depends on, and what to do about what is missing."""

import socket
from pathlib import Path

import pytest

from tests.e2e.commands import ocrstream
from tests.services import free_port

ENGINES = ("--detector", "blocks", "--recognizer", "plain")


def test_all_is_well_in_a_fresh_folder(tmp_path: Path) -> None:
    said = ocrstream("doctor", "--data", tmp_path / "data", "--port", str(free_port())).stdout
    assert "All is well." in said
    lines = {line.split()[1]: line for line in said.splitlines()[:-1]}
    assert lines["detector"].startswith("ok    detector        ctpn ")
    assert lines["recognizer"].startswith("ok    recognizer      crnn ")
    assert {"python", "packages", "ffmpeg", "data", "search"} <= lines.keys()


def test_what_is_wrong_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("--data", tmp_path / "file", "--port", port, "--detector", "psychic", "--recognizer", "plain")
        said = ocrstream("doctor", *arguments, expect=1).stdout
    assert "FAIL  detector        there is no detector 'psychic'; installed: " in said
    assert "name another folder with --data" in said
    assert "Name another with --port" in said
    assert said.splitlines()[-1] == "3 of these need attention."


def test_servers_are_asked(kafka_servers: str, elasticsearch_url: str) -> None:
    environment = {"OCRSTREAM_KAFKA_TOPIC_PREFIX": "doctor.", "OCRSTREAM_ELASTICSEARCH_PREFIX": "test-doctor"}
    servers = ("--kafka", kafka_servers, "--elasticsearch", elasticsearch_url)
    said = ocrstream("doctor", *servers, *ENGINES, environment=environment).stdout
    assert f"ok    kafka           {kafka_servers}: topics doctor.ocr.frames, " in said
    assert "ok    elasticsearch   templates are in place; 0 frames of 0 sources" in said


@pytest.mark.parametrize("option", ["--kafka", "--elasticsearch"])
def test_a_server_that_is_not_there_is_said_so(option: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = ocrstream("doctor", option, f"{'http://' * (option != '--kafka')}{address}", *ENGINES, expect=1).stdout
    assert f"FAIL  {option[2:]:<15} " in said
    assert address in said
