"""``ocrstream models``: cards tell what a file is, and a damaged file is found."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions, load_detector, load_recognizer
from ocrstream.models.weights import find, read_card, shipped, to_path, verify, write_card
from pipeline.cli import main


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"weights")
    write_card(path, {"engine": "crnn", "profile": "light", "charset": "äb"})
    return path


def test_a_card_tells_what_a_file_is(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "card", str(weights)]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card == {
        # printf weights | sha256sum
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        "bytes": 7,
        "engine": "crnn",
        "profile": "light",
        "charset": "äb",
    }


def test_a_card_is_shown_a_line_of_its_curve_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "card", "ctpn_light"]) == 0
    shown = capsys.readouterr().out
    card = next(file.card for file in shipped() if file.name == "ctpn_light")
    assert json.loads(shown) == card
    assert len(shown.splitlines()) < 400
    assert '{"piece": ' in shown


def test_a_changed_file_is_found(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", str(weights)]) == 0
    assert capsys.readouterr().out.startswith("ok    mine")
    weights.write_bytes(b"weightz")
    assert main(["models", "verify", str(weights)]) == 2
    assert "mine.onnx is damaged or another: its SHA-256 is" in capsys.readouterr().err
    # The others are looked at all the same.
    assert main(["models", "verify", str(weights), "crnn_light"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("ok    crnn_light")
    assert "mine.onnx is damaged" in err
    assert "1 of 2 weight files cannot be used" in err
    assert main(["models", "card", str(weights)]) == 2
    weights.unlink()
    with pytest.raises(EngineError, match="cannot be read: No such file"):
        verify(read_card(weights))


@pytest.mark.parametrize("engine", ["ctpn", "crnn"])
def test_an_engine_does_not_use_a_shipped_file_that_was_changed(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = (each for each in shipped() if each.name in ("ctpn_light", "crnn_light_int8") and engine in each.name)
    content = bytearray(file.path.read_bytes())
    path = tmp_path / file.path.name
    path.write_bytes(content)
    load = load_detector if engine == "ctpn" else load_recognizer
    options = EngineOptions(threads=1, weights=str(path))
    assert load(engine, options).info.weights == file.card["sha256"][:12], "a file of one's own needs no card"
    # One bit of a weight: still a network.
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load(engine, options).info.weights != file.card["sha256"][:12]
    path.with_suffix(".json").write_text(json.dumps(file.card))
    with pytest.raises(
        EngineError, match=r"is damaged or another: its SHA-256 is .* install, import or export it again"
    ):
        load(engine, options)
    monkeypatch.setattr(f"ocrstream.models.{engine}.SHIPPED{'_INT8' if engine == 'crnn' else ''}", path)
    assert main(["read", "no.jpg"]) == 2
    assert f"{path.name} is damaged or another" in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / "sign.png"), np.full((40, 60, 3), 255, dtype=np.uint8))
    assert main(["run", str(tmp_path / "sign.png"), "--no-serve", "--data", str(tmp_path / "data")]) == 2
    assert f"{path.name} is damaged or another" in capsys.readouterr().err


def test_a_shipped_file_is_found_by_its_name() -> None:
    assert to_path("crnn_light") == find("crnn_light").path
    assert to_path("mine/crnn_light.onnx") == Path("mine/crnn_light.onnx")


def test_every_shipped_file_is_whole_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [file.name for file in shipped()]
    for file in shipped():
        assert verify(file) == file.card["sha256"]
        assert find(file.name) == file
        assert {"engine", "profile", "input", "training", "scores"} <= file.card.keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["card"], "models card takes the name of one weight file"),
        (["card", "nothing"], "there is no weight file 'nothing': name one of"),
        (["card", "nothing.onnx"], "the card nothing.json cannot be read"),
        (["list", "crnn"], "models list takes no names"),
        (["import", "crnn"], "models import takes an engine and a file"),
        (["import", "ppocr", "x.pth"], "there is no importer for 'ppocr'"),
        (["import", "crnn", "x.pth"], "x.pth cannot be read: No such file"),
        (["export", "crnn"], "models export takes an engine and a weight file"),
        (["export", "crnn", "x.onnx"], "crnn cannot be exported; this can: ctpn as caffemodel"),
        (
            ["export", "ctpn", "ctpn_light_half"],
            "ctpn_light_half.onnx is of the profile 'light': only 'caffe' can go back",
        ),
        (["export", "ctpn", "x.onnx", "--format", "pth"], "ctpn cannot be exported as pth"),
    ],
)
def test_mistakes_get_a_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_shipped_file_is_found_by_its_name_and_any_by_its_path() -> None:
    file = shipped()[0]
    assert to_path(file.name) == file.path
    assert to_path("build/mine.onnx") == Path("build/mine.onnx")


def test_what_is_no_card_is_refused(tmp_path: Path) -> None:
    for content in ("[]", "{}", "not json"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(EngineError, match=r"x\.json"):
            read_card(tmp_path / "x.onnx")


def test_an_import_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
    pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")
    from ocrstream.models.crnn.importing import expected_shapes

    torch.save({name: torch.ones(shape) for name, shape in expected_shapes(3).items()}, tmp_path / "crnn.pth")
    out = tmp_path / "out.onnx"
    assert main(["models", "import", "crnn", str(tmp_path / "crnn.pth"), "--charset", "ab", "--out", str(out)]) == 0
    assert "out.onnx and its card out.json are written" in capsys.readouterr().out
    file = read_card(out)
    assert verify(file)
    assert (file.card["profile"], file.card["charset"]) == ("original", "ab")


def test_nothing_is_written_over_what_it_is_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
    pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")
    from ocrstream.models.crnn.importing import expected_shapes

    source = tmp_path / "crnn.pth"
    torch.save({name: torch.ones(shape) for name, shape in expected_shapes(3).items()}, source)
    before = source.read_bytes()
    for out, sentence in ((source, "would be written over itself"), (tmp_path / "o.json", "a file that ends in .onnx")):
        assert main(["models", "import", "crnn", str(source), "--charset", "ab", "--out", str(out)]) == 2
        assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["crnn.pth"]
    assert source.read_bytes() == before


def test_what_is_for_one_importer_is_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["import", "ctpn", "a.caffemodel", "--charset", "abc"], "--charset is for `models import crnn`"),
        (["verify", "--gates", "torch7"], "--gates is for `models import crnn`"),
        (["card", "crnn_light", "--out", "a.json"], "--out is for `models import` and `models export`"),
        (["import", "ctpn", "a.caffemodel", "--format", "caffemodel"], "--format is for `models export`"),
        (["import", "crnn", "a.pth", "--charset", ""], "--charset names the characters"),
    ):
        assert main(["models", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert main(["models", "import", "crnn", str(tmp_path / "a.pth"), "--charset", "aba"]) == 2
    assert "a charset has each character once, not as 'aba'" in capsys.readouterr().err


def test_a_card_names_its_engine(weights: Path) -> None:
    card = read_card(weights).card
    weights.with_suffix(".json").write_text(json.dumps({"sha256": card["sha256"]}))
    with pytest.raises(EngineError, match="it has no engine"):
        read_card(weights)
