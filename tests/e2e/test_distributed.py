"""The same main job as processes over the real Kafka and the real Elasticsearch."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ocrstream_test_engines import make_picture

from ocrstream.picture import Picture
from tests.e2e.commands import Running, json_lines, ocrstream, running, until
from tests.e2e.test_embedded import pictures
from tests.e2e.videos import write_video
from tests.services.rtsp import AS_A_CAMERA, RtspCamera


class Deployment:
    """Topics and indices of its own on the shared servers, and the stages that run over them."""

    def __init__(self, kafka: str, elasticsearch: str, stack: ExitStack) -> None:
        name = uuid.uuid4().hex[:8]
        self.kafka = ("--kafka", kafka)
        self.elasticsearch = ("--elasticsearch", elasticsearch)
        self.environment = {
            "OCRSTREAM_KAFKA_TOPIC_PREFIX": f"test-{name}.",
            "OCRSTREAM_KAFKA_PARTITIONS": "2",
            "OCRSTREAM_ELASTICSEARCH_PREFIX": f"test-{name}",
        }
        self._stack = stack

    def start(self, command: str, *arguments: str | Path) -> Running:
        """Start a stage and wait until it is ready."""
        process = self.begin(command, *arguments)
        process.say("ready" if command != "serve" else "search page:")
        return process

    def begin(self, command: str, *arguments: str | Path) -> Running:
        """Start a stage, whether or not it can do anything yet."""
        return self._stack.enter_context(running(command, *arguments, **self.environment))

    def start_stages(self, detector: str = "blocks", recognizer: str = "plain") -> list[Running]:
        """Start the three consuming stages."""
        return [
            self.start("detect", *self.kafka, "--detector", detector, "--read", "all"),
            self.start("recognize", *self.kafka, "--recognizer", recognizer),
            self.start("index", *self.kafka, *self.elasticsearch),
        ]

    def ask(self, *arguments: str | Path, expect: int = 0) -> str:
        """Run a command over this deployment; returns what it printed."""
        return ocrstream(*arguments, expect=expect, environment=self.environment).stdout

    def produce(self, source: str | Path) -> str:
        """Send a source's frames; returns what the producer logged."""
        return ocrstream("produce", source, *self.kafka, environment=self.environment).stderr

    def frame_ids(self) -> set[str]:
        """The frames that were read, also those without text."""
        return {r["frame_id"] for r in json_lines(self.ask("export", *self.elasticsearch))}

    def regions(self) -> list[dict[str, Any]]:
        """Everything that was read."""
        return [r for r in json_lines(self.ask("export", *self.elasticsearch)) if r["kind"] == "region"]


@pytest.fixture
def deployment(kafka_servers: str, elasticsearch_url: str) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(kafka_servers, elasticsearch_url, stack)


def test_the_demo_goes_through_all_stages_and_is_found_on_the_page(deployment: Deployment) -> None:
    stages = deployment.start_stages("ctpn", "crnn")
    deployment.produce("demo:?seconds=4&fps=1&live=0")

    def found() -> list[dict[str, Any]]:
        out = ocrstream(
            "search", "boarding", *deployment.elasticsearch, "--json", environment=deployment.environment, expect=None
        )
        return json_lines(out.stdout)

    until(lambda: bool(found()), "boarding in Elasticsearch")
    best = found()[0]
    assert best["source"] == "demo"
    assert any("boarding" in line["text"].lower() for line in best["lines"] if line["matches"])

    page = deployment.start("serve", *deployment.elasticsearch, *deployment.kafka, "--port", "0")
    address = re.search(r"search page: (http://\S+)", page.output)
    assert address is not None
    with urllib.request.urlopen(f"{address[1]}/api/search?q=boarding") as answer:
        hits = json.load(answer)["hits"]
    assert {hit["frame_id"] for hit in hits} == {hit["frame_id"] for hit in found()}
    with urllib.request.urlopen(address[1] + best["picture"]) as answer:
        assert Picture.from_encoded(answer.read()).array().shape == (720, 1280, 3)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address[1]}/frame/nothing")
    for process in [*stages, page]:
        assert "Traceback" not in process.end(signal.SIGTERM)


def test_a_file_is_read_once_and_a_replay_supersedes_it(deployment: Deployment, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_video(clip, pictures(20), fps=10)
    deployment.start_stages()
    first = deployment.produce(f"hall={clip}")
    until(lambda: len(deployment.regions()) >= 30, "all regions")
    before = deployment.regions()
    assert sorted(r["text"] for r in before) == sorted(
        [f"number {number:03d}" for number in range(20)] + ["Gate B12"] * 10
    )
    assert "20 frames sent" in first
    again = deployment.produce(f"hall={clip}")
    assert " 0 frames sent" in again

    deployment.ask("replay", "--source", "hall", *deployment.kafka, "--recognizer", "shout")
    until(lambda: {r["recognizer"] for r in deployment.regions()} == {"shout"}, "the new readings")
    after = deployment.regions()
    assert [(r["frame_id"], r["line_number"]) for r in after] == [(r["frame_id"], r["line_number"]) for r in before]
    assert [r["text"] for r in after] == [r["text"].upper() + "!" for r in before]


def test_a_consumer_killed_in_the_middle_loses_and_doubles_nothing(deployment: Deployment, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_video(clip, pictures(120), fps=25)
    stages = deployment.start_stages()
    with running("produce", clip, *deployment.kafka, **deployment.environment) as producer:
        until(lambda: len(deployment.regions()) > 10, "some regions")
        for process in stages:
            process.kill()
        for process in deployment.start_stages():
            assert process.process.poll() is None
        producer.process.wait(120)
    until(lambda: len(deployment.regions()) >= 180, "all regions")
    texts = sorted(r["text"] for r in deployment.regions())
    assert texts == sorted([f"number {number:03d}" for number in range(120)] + ["Gate B12"] * 60)


def test_a_text_in_view_goes_on_where_a_consumer_is_started_again(
    deployment: Deployment, tmp_path: Path, make_rtsp_camera: Callable[..., RtspCamera]
) -> None:
    clip = tmp_path / "clip.h264"
    sign = make_picture([("Gate B12", (40.0, 200.0, 340.0, 250.0))])
    write_video(clip, [sign] * 60, fps=15, codec="libx264", options=AS_A_CAMERA)
    camera = make_rtsp_camera(clip=clip)

    def in_view() -> list[dict[str, Any]]:
        return json_lines(deployment.ask("export", "--kind", "appearances", *deployment.elasticsearch))

    def seen_since(start_ms: float) -> bool:
        return any(found["last_ms"] > start_ms for found in in_view())

    consumers = {
        "recognize": ("recognize", *deployment.kafka, "--recognizer", "plain"),
        "detect": ("detect", *deployment.kafka, "--detector", "blocks"),
    }
    stages = {name: deployment.start(*command) for name, command in consumers.items()}
    stages["index"] = deployment.start("index", *deployment.kafka, *deployment.elasticsearch)
    with running("produce", f"hall={camera.url}", *deployment.kafka, **deployment.environment):
        until(lambda: seen_since(0), "the sign")
        stages["recognize"].end(signal.SIGTERM)
        restarted_ms = time.time() * 1000
        stages["recognize"] = deployment.start(*consumers["recognize"])
        until(partial(seen_since, restarted_ms + 2000), "the sign, after the recogniser came back")
        # Another detector joins before this one leaves: it knows nothing of the lines, and frames come all the time.
        leaving, stages["detect"] = stages["detect"], deployment.start(*consumers["detect"])
        leaving.end(signal.SIGTERM)
        left_ms = time.time() * 1000
        until(partial(seen_since, left_ms + 2000), "the sign, after another detector took over")
    assert [found["text"] for found in in_view()] == ["Gate B12"]
    for process in stages.values():
        assert "Traceback" not in process.end(signal.SIGTERM)


def test_a_poisonous_frame_is_set_aside_and_the_stream_goes_on(deployment: Deployment, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, text in (("a", "Gate A1"), ("b", "poison"), ("c", "Gate C3")):
        encoded = Picture.from_array(make_picture([(text, (40.0, 30.0, 340.0, 80.0))])).encoded(quality=98)
        (folder / f"{name}.jpg").write_bytes(encoded)
    deployment.start_stages(recognizer="poison")
    deployment.produce(folder)
    until(lambda: len(deployment.regions()) >= 2, "the good regions")
    assert sorted(r["text"] for r in deployment.regions()) == ["Gate A1", "Gate C3"]
    letters = deployment.ask("dead-letters", *deployment.kafka)
    assert "the recognizer stage: RuntimeError: cannot digest 'poison'" in letters
    assert "ocr.crops[" in letters
