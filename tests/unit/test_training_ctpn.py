"""The detector's training: photos kept decoded, scenes by number, signs with labels, losses, a step that learns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocrstream.errors import EngineError, SourceError
from ocrstream.geometry import box_polygon
from ocrstream.models import EngineOptions
from ocrstream.models.ctpn import CtpnDetector
from ocrstream.models.weights import read_card, to_path, verify, write_card
from ocrstream.picture import Image
from training.folders import Region, read_folder
from training.photos import PhotoCache

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from ocrstream.models.ctpn.network import Ctpn  # noqa: E402
from ocrstream.models.ctpn.onnx_file import read_state, to_onnx  # noqa: E402
from training.ctpn import CtpnTask, Settings, losses, main, to_input  # noqa: E402
from training.export_ctpn import add_scores, card, export, quantise  # noqa: E402
from training.export_ctpn import main as export_main  # noqa: E402
from training.initial import start_state  # noqa: E402
from training.loop import CHECKPOINT, Plan, run  # noqa: E402
from training.provenance import history, origin  # noqa: E402
from training.scenes import NO_TEXT, TEXT, UNKNOWN, SceneMaker, targets, weathered  # noqa: E402
from training.signs import SignPainter  # noqa: E402


def photo_folder(folder: Path, count: int = 3) -> Path:
    lines = []
    for number in range(count):
        photo = np.full((120 + 10 * number, 160, 3), 60 * number % 240, dtype=np.uint8)
        cv2.putText(photo, "GATE", (30, 70), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (200, 220, 240), 3)
        cv2.imwrite(str(folder / f"{number}.png"), photo)
        region = {"poly": box_polygon(28, 44, 116, 74), "text": "GATE", "ignore": False}
        lines.append(json.dumps({"image": f"{number}.png", "regions": [region]}))
    (folder / "gt.jsonl").write_text("\n".join(lines))
    return folder


def test_photos_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = read_folder(photo_folder(tmp_path))
    first = PhotoCache(folder, tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr("training.photos.open_picture", lambda path: pytest.fail(f"{path} is opened again"))
        cache = PhotoCache(folder, tmp_path / "cache")
    assert len(cache) == 3
    for number in range(3):
        assert cache.size_hw(number) == (120 + 10 * number, 160)
        np.testing.assert_array_equal(cache.photo(number), first.photo(number))
        assert cache.photo(number)[0, 0].tolist() == [60 * number] * 3
    assert cache.regions(1)[0].text == "GATE"
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((50, 70, 3), dtype=np.uint8))
    assert PhotoCache(folder, tmp_path / "cache").photo(1).shape == (50, 70, 3)
    (tmp_path / "0.png").unlink()
    with pytest.raises(SourceError, match=r"0\.png is not a picture"):
        PhotoCache(folder, tmp_path / "cache")


def test_a_scene_is_its_number_and_shows_where_the_text_is(tmp_path: Path) -> None:
    cache = PhotoCache(read_folder(photo_folder(tmp_path)), tmp_path / "cache")
    maker = SceneMaker([(cache, 1.0)], [range(3)], 128, seed=5)
    scene, again = maker.scene(7), maker.scene(7)
    np.testing.assert_array_equal(scene.picture, again.picture)
    np.testing.assert_array_equal(scene.score, again.score)
    assert not np.array_equal(scene.picture, maker.scene(8).picture)
    assert scene.picture.shape == (128, 128, 3)
    assert scene.score.shape == (32, 32)
    # Over many scenes the photo's one bright word is where the targets say.
    inside, outside = [], []
    for number in range(60):
        scene = maker.scene(number)
        small = cv2.resize(scene.picture, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
        spread = np.abs(small - np.median(small, axis=(0, 1))).mean(axis=2)
        inside += spread[scene.score == TEXT].tolist()
        outside += spread[(scene.score == NO_TEXT) & (scene.known == 0)].tolist()
    assert len(inside) > 200
    assert np.mean(inside) > 2 * np.mean(outside)


def test_small_text_is_a_hint_where_that_is_asked_for() -> None:
    small = Region(np.array(box_polygon(8, 20, 56, 25), dtype=np.float32), "small", False)
    for hint_px, said in ((3.5, TEXT), (7.0, UNKNOWN)):
        score, _, known = targets([small], 64, hint_px)
        assert score[5, 8] == said
        assert not known.any(), "where it begins and ends cannot be told"


def test_what_a_moving_camera_smears_is_unknown() -> None:
    regions = [
        Region(np.array(box_polygon(10, top, 110, top + height), dtype=np.float32), "GATE", False)
        for top, height in ((10, 6), (40, 60))
    ]
    picture = np.full((120, 120, 3), 90, dtype=np.uint8)
    cv2.putText(picture, "GATE", (12, 90), cv2.FONT_HERSHEY_SIMPLEX, 1.4, (255, 255, 255), 2)
    kept, edges = [], []
    for seed in range(60):
        harmed, told = weathered(picture, regions, np.random.default_rng(seed))
        assert harmed.shape == picture.shape
        assert [region.ignore for region in told][1:] == [False], "large text stays text"
        kept.append(not told[0].ignore)
        edges.append(float(np.abs(np.diff(harmed[40:100].astype(int), axis=1)).max()))
    smeared = [edge for edge, is_kept in zip(edges, kept, strict=True) if not is_kept]
    assert 5 < len(smeared) < 40
    assert np.median(smeared) < np.median([edge for edge, is_kept in zip(edges, kept, strict=True) if is_kept])
    assert not any(region.ignore for region in regions)


def test_signs_are_painted_beside_texts_and_labelled() -> None:
    ink = np.zeros((20, 50), dtype=np.uint8)
    ink[2:18, 3:47] = 255
    painter = SignPainter([("gate", ink)])
    picture = np.full((200, 240, 3), 100, dtype=np.uint8)
    taken = Region(np.array(box_polygon(0, 0, 240, 90), dtype=np.float32), "there", False)
    count = 0
    for seed in range(20):
        painted, added = painter.paint(picture, [taken], np.random.default_rng(seed))
        assert (painted[:88] == 100).all()
        count += len(added)
        for region in added:
            mask = np.zeros((200, 240), dtype=np.uint8)
            cv2.fillPoly(mask, [np.round(region.quad).astype(np.int32)], (1,))
            if mask.sum() > 30:
                assert (painted[mask > 0] != 100).any()
    assert count > 20
    assert (picture == 100).all()


def test_a_perfect_output_costs_next_to_nothing_and_what_is_unknown_is_not_asked() -> None:
    score = torch.full((1, 8, 8), NO_TEXT, dtype=torch.uint8)
    score[0, 2:4, 1:7], score[0, 6] = TEXT, UNKNOWN
    known = torch.zeros(1, 8, 8, dtype=torch.uint8)
    known[0, 2:4, 1:7] = 2
    geometry = torch.randn(1, 5, 8, 8)
    output = torch.cat([torch.where(score == TEXT, 20.0, -20.0)[:, None], geometry], dim=1)
    # The row that cannot be told, and geometry where there is no text, may say anything.
    output[0, 0, 6] = 20.0
    output[:, 1:, 5:] = 3.0
    parts = losses(output, score, geometry, known)
    assert all(float(value) < 0.1 for value in parts.values())
    wrong = losses(-output, score, geometry, known)
    assert all(float(wrong[name]) > 10 * float(value) + 0.1 for name, value in parts.items())


def test_a_step_learns_and_the_state_survives(tmp_path: Path) -> None:
    cache = PhotoCache(read_folder(photo_folder(tmp_path, 20)), tmp_path / "cache")
    settings = Settings(size_px=64, batch=2)
    task = CtpnTask(settings, [cache], None, "cpu", workers=0)
    frozen = {name for name, parameter in task.network.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[1] for name in frozen} == {"stem", "stage4"}
    before = {name: parameter.detach().clone() for name, parameter in task.network.named_parameters()}
    task.network.train()
    for _ in range(2):
        figures = task.step(0.5)
    assert figures["samples"] == 2
    assert all(np.isfinite(value) for value in figures.values())
    for name, parameter in task.network.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in frozen), name
    other = CtpnTask(settings, [cache], None, "cpu", workers=0)
    other.restore(task.state())
    assert other.state()["number"] == 4
    task.network.eval()
    with torch.inference_mode():
        assert set(task.evaluate()) == {f"{tmp_path.name}_{name}" for name in ("recall", "precision", "f")}


def test_training_begins_from_a_weight_file(tmp_path: Path) -> None:
    cache = PhotoCache(read_folder(photo_folder(tmp_path)), tmp_path / "cache")
    torch.manual_seed(7)
    network = Ctpn()
    (tmp_path / "a.onnx").write_bytes(to_onnx({name: t.numpy() for name, t in network.state_dict().items()}, "light"))
    task = CtpnTask(Settings(), [cache], None, "cpu", 0, start=tmp_path / "a.onnx")
    for name, parameter in network.named_parameters():
        # As stored, in half precision.
        torch.testing.assert_close(task.network.get_parameter(name), parameter, rtol=1e-3, atol=1e-6)
    with pytest.raises(EngineError, match="add --profile light"):
        CtpnTask(Settings(profile="vgg16"), [cache], None, "cpu", 0, start=tmp_path / "a.onnx")


@pytest.mark.parametrize("name", ["ctpn_light", "crnn_light"])
def test_weights_in_8_bits_and_another_engines_are_nothing_to_begin_from(name: str) -> None:
    with pytest.raises(EngineError, match=r"of another engine, or in 8 bits.*ctpn_light_half"):
        start_state(to_path(name), "light")
    assert "head.weight" in start_state(to_path("ctpn_light_half"), "light")


def test_as_much_of_the_backbone_stays_as_it_is_as_told(tmp_path: Path) -> None:
    cache = PhotoCache(read_folder(photo_folder(tmp_path)), tmp_path / "cache")
    task = CtpnTask(Settings(frozen=5), [cache], None, "cpu", 0)
    learning = {name.split(".")[0] for name, each in task.network.named_parameters() if each.requires_grad}
    assert "backbone" not in learning
    assert {"recurrence", "head"} <= learning


def test_the_next_piece_may_freeze_more_or_less(tmp_path: Path) -> None:
    cache = PhotoCache(read_folder(photo_folder(tmp_path)), tmp_path / "cache")
    seen = [0]
    for frozen in (5, 2, 5):
        task = CtpnTask(Settings(size_px=64, batch=2, frozen=frozen), [cache], None, "cpu", 0)
        before = {name: each.clone() for name, each in task.network.named_parameters()}
        run(task, Plan(tmp_path / "run", minutes=0.001))
        moved = {name for name, each in task.network.named_parameters() if not each.equal(before[name])}
        assert "head.weight" in moved
        seen.append(task.state()["number"])
    assert seen == sorted(set(seen)), "each piece goes on behind the one before"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_training_stops_it_well(tmp_path: Path, number: int) -> None:
    data, out = photo_folder(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "training.ctpn", "--data", str(data), "--out", str(out), "--minutes", "5"]
    command += ["--workers", "1", "--size-px", "64", "--batch", "1"]
    training = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        while not (workers := [child for child in children(training.pid) if blocks(child, signal.SIGTERM)]):
            assert training.poll() is None, training.stderr and training.stderr.read()
            time.sleep(0.05)
        os.killpg(training.pid, number)
        _, told = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 0, told
    assert "samples; the same command goes on" in told
    assert "Traceback" not in told
    assert (out / CHECKPOINT).exists()
    assert not Path(f"/proc/{workers[0]}").exists()


def test_a_worker_ends_when_its_parent_says_so() -> None:
    # As where Python ends by an exception that still holds the worker.
    code = """
from multiprocessing import Event, Process
from training.loop import heed_only_the_parent
def work(ready):
    heed_only_the_parent()
    ready.set()
    Event().wait()
ready = Event()
Process(target=work, args=(ready,), daemon=True).start()
ready.wait()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def blocks(process: int, number: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    return bool(int(status.partition("SigBlk:")[2].split()[0], 16) >> (number - 1) & 1)


def test_a_folder_without_photos_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt.tsv").write_text("a.png\tGATE\n")
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--out", str(tmp_path / "run"), "--minutes", "1"])
    assert f"no photos below {tmp_path}" in capsys.readouterr().err


def test_a_card_tells_of_all_trainings_before(tmp_path: Path) -> None:
    weights = tmp_path / "a.onnx"
    weights.write_bytes(b"weights")
    assert history(weights) == []
    write_card(weights, {"engine": "ctpn", "training": {"minutes": 80, "initial": "backbone.onnx"}})
    write_card(weights, {"engine": "ctpn", "training": {"minutes": 70, "initial": "", "before": history(weights)}})
    assert history(weights) == [{"minutes": 80, "initial": "backbone.onnx"}, {"minutes": 70, "initial": ""}]
    settings = {"settings": {"profile": "light"}, "initial": "", "before": history(weights)}
    training = card(settings, {"samples": 8, "steps": 1}, [])["training"]
    assert training["initial"] == "backbone.onnx"
    assert len(training["before"]) == 2


def test_a_run_that_goes_on_tells_what_it_began_from(tmp_path: Path) -> None:
    weights, out = tmp_path / "a.onnx", tmp_path / "run"
    weights.write_bytes(b"weights")
    write_card(weights, {"engine": "ctpn", "training": {"minutes": 80}})
    out.mkdir()
    first = {"settings": {"rate": 1}, **origin(out, "settings.json", {"rate": 1}, weights, "backbone.onnx")}
    expected = {"start": "a.onnx", "initial": "backbone.onnx", "before": [{"minutes": 80}]}
    assert first == {"settings": {"rate": 1}, **expected}
    (out / "settings.json").write_text(json.dumps(first))
    (out / CHECKPOINT).touch()
    for rate in (1, 2, 2, 3):
        told = {"settings": {"rate": rate}, **origin(out, "settings.json", {"rate": rate}, None)}
        (out / "settings.json").write_text(json.dumps(told))
    assert told == {"settings": {"rate": 3}, **expected, "pieces": [{"rate": 1}, {"rate": 2}]}
    (out / "settings.json").write_text("{}")
    with pytest.raises(EngineError, match="does not tell what this run began from"):
        origin(out, "settings.json", {}, None)


def test_pages_take_the_place_of_photos(tmp_path: Path) -> None:
    class Pager:
        def paint(
            self, backdrop: Image, regions: list[Region], random: np.random.Generator
        ) -> tuple[Image, list[Region]]:
            assert backdrop.shape == (64, 64, 3)
            assert [region.text for region in regions] == ["GATE"]
            page = np.full((64, 64, 3), 7, np.uint8)
            return page, [Region(np.array(box_polygon(8, 20, 56, 40), np.float32), "page", False)]

    cache = PhotoCache(read_folder(photo_folder(tmp_path)), tmp_path / "cache")
    maker = SceneMaker([(cache, 1.0)], [range(3)], 64, seed=5, pager=Pager(), pages=0.5)  # type: ignore[arg-type]
    scenes = [maker.scene(number) for number in range(40)]
    drawn = [
        scene for scene in scenes if scene.score[7, 8] == TEXT and np.ptp(scene.picture.astype(int).mean((0, 1))) < 60
    ]
    assert 10 < len(drawn) < 40
    # Half of them are as they were drawn.
    assert 4 < sum((scene.picture == 7).all() for scene in drawn) < 20


def test_the_input_has_the_mean_taken() -> None:
    picture = torch.tensor([[[[104, 117, 123], [0, 255, 10]]]], dtype=torch.uint8)
    np.testing.assert_allclose(to_input(picture).numpy(), [[[[0, -104]], [[0, 138]], [[0, -113]]]])


def test_a_run_is_exported_with_its_card_and_its_scores(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    cache = PhotoCache(read_folder(photo_folder(data)), tmp_path / "cache")
    task = CtpnTask(Settings(size_px=64, batch=2), [cache], None, "cpu", workers=0)
    run(task, Plan(tmp_path / "run", minutes=0.001, note="a trial"))
    (tmp_path / "run" / "settings.json").write_text(json.dumps({"settings": {"profile": "light"}, "data": {"data": 3}}))
    export(tmp_path / "run", tmp_path / "half.onnx")
    state, profile = read_state(tmp_path / "half.onnx")
    assert profile == "light"
    weight = task.average.module.get_parameter("head.weight").detach().numpy()
    np.testing.assert_allclose(state["head.weight"], weight, rtol=1e-3, atol=1e-6)
    told = read_card(tmp_path / "half.onnx").card
    zeros = {name: torch.zeros_like(tensor).numpy() for name, tensor in task.average.module.state_dict().items()}
    (tmp_path / "zeros.onnx").write_bytes(to_onnx(zeros, "light"))
    export(tmp_path / "run", tmp_path / "mean.onnx", mean_with=tmp_path / "zeros.onnx")
    np.testing.assert_allclose(read_state(tmp_path / "mean.onnx")[0]["head.weight"], weight / 2, rtol=1e-3, atol=1e-6)
    assert read_card(tmp_path / "mean.onnx").card["training"]["mean_with"] == "zeros.onnx"
    assert told["training"]["samples"] >= 2
    assert told["training"]["notes"] == ["a trial"]
    # As of a piece that was stopped before its first half minute was over.
    (tmp_path / "run" / "curve.jsonl").unlink()
    export(tmp_path / "run", tmp_path / "young.onnx")
    assert read_card(tmp_path / "young.onnx").card["training"]["curve"] == []

    quantise(tmp_path / "run", tmp_path / "small.onnx", data, photos=2)
    assert (tmp_path / "small.onnx").stat().st_size < 0.6 * (tmp_path / "half.onnx").stat().st_size
    detector = CtpnDetector(EngineOptions(threads=1, weights=str(tmp_path / "small.onnx")))
    assert isinstance(detector.detect([cache.photo(0)])[0], list)

    (tmp_path / "report.json").write_text(json.dumps({"data": "data", "photos": 3, "detectors": {"ctpn": {"x": 1}}}))
    add_scores(tmp_path / "small.onnx", tmp_path / "report.json")
    file = read_card(tmp_path / "small.onnx")
    assert file.card["scores"] == {"data": "data", "photos": 3, "detectors": {"ctpn": {"x": 1}}}
    assert verify(file)
    (tmp_path / "run" / "settings.json").unlink()
    with pytest.raises(EngineError, match="not the folder of a detector's training"):
        export(tmp_path / "run", tmp_path / "half.onnx")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "foo"], "there is no profile 'foo': it is one of light, vgg16"),
        (["--size-px", "100"], "size px is 100, and has to be a multiple of 32"),
        (["--size-px", "0"], "size px is 0, and has to be from 32 to"),
        (["--batch", "0"], "batch is 0, and has to be from 1 to"),
        (["--average", "2"], "average is 2, and has to be from 0 to 1"),
        (["--workers", "-2"], "workers is -2, and has to be from 0 to"),
    ],
)
def test_settings_that_mean_nothing_get_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--minutes", "1", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_export_is_written_where_it_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["x.txt"], "weights are written to a file that ends in .onnx"),
        (["x.onnx", "--scores", "scores.json"], "x.onnx is not there yet: write it without --scores first"),
    ):
        with pytest.raises(SystemExit):
            export_main([str(tmp_path), str(tmp_path / arguments[0]), *arguments[1:]])
        assert sentence in capsys.readouterr().err
