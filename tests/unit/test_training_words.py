"""From a user's folder to batches for CTC: formats, crops, lines, augmentation, widths, and a whole small training."""

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from ocrstream.errors import EngineError, SourceError
from ocrstream.models.crnn.charset import LATIN

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from ocrstream.geometry import box_polygon  # noqa: E402
from ocrstream.models import EngineOptions, Reading, TextLine  # noqa: E402
from ocrstream.models.crnn import CrnnRecognizer  # noqa: E402
from ocrstream.models.crnn.network import LightCrnn  # noqa: E402
from ocrstream.models.crnn.onnx_file import read_state  # noqa: E402
from ocrstream.models.session import Session  # noqa: E402
from ocrstream.models.weights import read_card, to_path, verify  # noqa: E402
from training import crnn, export_crnn  # noqa: E402
from training.augmentation import augment, least_timesteps, motion_kernel, upright, width_for  # noqa: E402
from training.batches import Batch, Batches, Mixture, Seen  # noqa: E402
from training.ctc import ctc_loss  # noqa: E402
from training.folders import Photo, Region, read_folder, read_folders  # noqa: E402
from training.initial import with_charset  # noqa: E402
from training.synthesis import Renderer, find_fonts  # noqa: E402
from training.teacher import legible, read_unlabelled, respell  # noqa: E402
from training.texts import LINES_SHARE, Texts  # noqa: E402
from training.words import Sample, cut, held_out, join_words, load  # noqa: E402

WORDS = ["Gate", "B12", "Exit", "Café", "to", "24/7"]


def box(x0: float, y0: float, x1: float, y1: float) -> Any:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float32)


def draw(text: str, size_wh: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = PIL.Image.new("L", size_wh, 255)
    PIL.ImageDraw.Draw(image).text((4, 2), text, 0, PIL.ImageFont.load_default(20))
    return np.asarray(image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photos with two words side by side each, crops, and a test set that must not be touched."""
    photos, words, test = tmp_path / "data" / "photos", tmp_path / "data" / "words", tmp_path / "data" / "words_test"
    for folder in (photos, words, test):
        folder.mkdir(parents=True)
    lines = []
    for number in range(30):
        left, right = WORDS[number % 6], WORDS[(number + 1) % 6]
        photo = np.full((240, 400), 200, dtype=np.uint8)
        photo[20:50, 30:100], photo[20:50, 110:180] = draw(left, (70, 30)), draw(right, (70, 30))
        cv2.imwrite(str(photos / f"{number}.png"), photo)
        regions = [
            {"poly": box(30, 20, 100, 50).tolist(), "text": left, "ignore": False},
            {"poly": box(110, 20, 180, 50).tolist(), "text": right},
            {"poly": box(200, 100, 260, 130).tolist(), "text": "###", "ignore": True},
        ]
        lines.append(json.dumps({"image": f"{number}.png", "regions": regions}))
    (photos / "gt.jsonl").write_text("\n".join(lines) + "\n")
    for folder in (words, test):
        for number, word in enumerate(WORDS):
            cv2.imwrite(str(folder / f"{number}.png"), draw(word, (80, 30)))
        (folder / "gt.tsv").write_text("".join(f"{number}.png\t{word}\n" for number, word in enumerate(WORDS)))
    return tmp_path / "data"


@pytest.fixture
def fonts(tmp_path: Path) -> Path:
    """A folder with one font, the one that every machine with these tests has."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    font = PIL.ImageFont.load_default(20)
    assert isinstance(font, PIL.ImageFont.FreeTypeFont)
    font.path.seek(0)  # type: ignore[union-attr]
    (folder / "one.ttf").write_bytes(font.path.read())  # type: ignore[union-attr]
    return folder


@pytest.fixture
def word_lists(tmp_path: Path) -> Path:
    folder = tmp_path / "dict"
    folder.mkdir()
    (folder / "american-english").write_text("house\nriver's\nstreet\n")
    (folder / "french").write_text("élève\nrue\n")
    return folder


# Folders


def test_sets_are_found_and_test_sets_are_left_out(data: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing is trained on what ends in _test, as .*words_test does"):
        read_folders(data / "words_test")
    assert [folder.name for folder in read_folders(data)] == ["photos", "words"]
    linked = data.parent / "linked"
    linked.mkdir()
    (linked / "mine").symlink_to(data / "words", target_is_directory=True)
    assert [folder.name for folder in read_folders(linked)] == ["mine"]
    photo = read_folder(data / "photos").photos[7]
    assert [region.text for region in photo.regions] == ["B12", "Exit", "###"]
    assert [region.ignore for region in photo.regions] == [False, False, True]
    assert [word.text for word in read_folder(data / "words_test").words] == WORDS


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gt.jsonl", '{"image": "a.png"}', r"gt.jsonl, line 1: not \{\"image\", \"regions\""),
        ("gt.jsonl", '{"image": "a", "regions": [{"poly": [[0, 0]], "text": "x"}]}', "has four points"),
        ("gt.jsonl", '{"image": "a", "regions": [{"poly": [[0, 0], [9, 0], [9, NaN], [0, 9]], "text": "x"}]}', "nan"),
        ("gt.tsv", "a.png Gate", "line 1: not a path, a tab and a text"),
        ("other.txt", "", "no training data below"),
    ],
)
def test_a_wrong_label_file_is_told(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=sentence):
        read_folders(tmp_path)


def test_regions_without_an_area_are_told_and_not_learnt_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    region = {"poly": [[5, 5]] * 4, "text": "Gate", "ignore": False}
    (tmp_path / "gt.jsonl").write_text(json.dumps({"image": "a.png", "regions": [region]}))
    (folder,) = read_folders(tmp_path)
    assert [each.ignore for each in folder.photos[0].regions] == [True]
    assert "1 regions have no area" in caplog.text


def test_a_folder_of_sets_is_told_from_a_set(data: Path) -> None:
    with pytest.raises(SourceError, match=r"neither a gt.jsonl nor a gt.tsv: name one of the sets in it, as .*photos"):
        read_folder(data)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "gt.jsonl"
    file.touch()
    for read in (read_folder, read_folders):
        with pytest.raises(SourceError, match=r"nonexist is not there$"):
            read(tmp_path / "nonexist")
        with pytest.raises(SourceError, match=r"gt\.jsonl is a file, and no folder$"):
            read(file)


# Crops


def test_labels_that_the_network_cannot_write_are_counted(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    picture = data / "words" / read_folder(data / "words").words[0].image.name
    (foreign / "gt.tsv").write_text(f"{picture}\t東京\n{picture}\t日本\n", encoding="utf-8")
    load([foreign, data], LATIN, tmp_path / "cache")
    assert "2 labels of foreign have a character that the network does not write, as '東京'" in caplog.text
    with pytest.raises(SourceError, match="no text in the data can be trained on"):
        load([foreign], LATIN, tmp_path / "cache")


def test_crops_are_cut_once_split_by_photo_and_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load([data], LATIN, tmp_path / "cache")
    assert split.train.keys() >= {"photos", "photos:lines", "words", "background"}
    held = sum(held_out(f"{number}.png") for number in range(30))
    assert 0 < held < 10
    assert len(split.train["photos"]) == 2 * (30 - held)
    assert len(split.validation["photos"]) == 2 * held
    assert all(" " in sample.text for sample in split.train["photos:lines"])
    monkeypatch.setattr("training.words.open_picture", lambda path: pytest.fail(f"{path} is opened again"))
    again = load([data], LATIN, tmp_path / "cache")
    np.testing.assert_array_equal(again.train["photos"][3].grey, split.train["photos"][3].grey)


def test_crops_are_cut_anew_where_a_label_a_place_or_a_picture_has_changed(data: Path, tmp_path: Path) -> None:
    def samples(name: str) -> list[Sample]:
        split = load([data], LATIN, tmp_path / "cache")
        return split.train[name] + split.validation.get(name, [])

    before = samples("photos")
    assert len(samples("words")) == 6
    labels = data / "words" / "gt.tsv"
    labels.write_text("".join(f"{line.partition(chr(9))[0]}\tWRONG\n" for line in labels.read_text().splitlines()))
    assert {sample.text for sample in samples("words")} == {"WRONG"}
    places = data / "photos" / "gt.jsonl"
    places.write_text(places.read_text().replace("30.0, 20.0", "28.0, 18.0"))
    moved = samples("photos")
    assert any(a.grey.shape != b.grey.shape for a, b in zip(before, moved, strict=True))
    for picture in (data / "words").glob("*.png"):
        cv2.imwrite(str(picture), np.full((30, 91), 7, dtype=np.uint8))
    assert all((sample.grey == 7).all() for sample in samples("words"))


def test_labels_that_are_too_long_and_a_missing_validation_are_told(
    tmp_path: Path, fonts: Path, word_lists: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    names = [name for name in (f"{number}.png" for number in range(60)) if not held_out(name)][:2]
    for name in names:
        cv2.imwrite(str(folder / name), draw("gate", (70, 30)))
    (folder / "gt.tsv").write_text(f"{names[0]}\t{'ab' * 900}\n{names[1]}\tgate\n")
    settings = crnn.Settings(data=(folder,), cache=tmp_path / "cache", fonts=fonts, word_lists=(word_lists,))
    task = crnn.RecognizerTask(LightCrnn(len(LATIN) + 1), settings)
    task.prepare()
    assert "1 of 2 labels of mine are longer than the network can read, as 'abab" in caplog.text
    assert "nothing is kept for validation" in caplog.text
    assert task.evaluate() == {}


def test_what_takes_time_is_made_ready_before_the_first_step(
    data: Path, fonts: Path, word_lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = crnn.Settings(
        data=(data,), cache=tmp_path / "cache", columns=400, fonts=fonts, word_lists=(word_lists,), skip=("words",)
    )
    task = crnn.RecognizerTask(LightCrnn(len(LATIN) + 1), settings)
    task.prepare()
    for name in ("load", "find_fonts", "Texts"):
        monkeypatch.setattr(crnn, name, lambda *_, name=name: pytest.fail(f"{name} in a step"))
    assert task.step(0.0)["samples"] >= 4


def test_a_set_that_is_skipped_is_one_of_the_data(
    data: Path, fonts: Path, word_lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(data), "--out", str(tmp_path / "out"), "--minutes", "1", "--fonts", str(fonts)]
    with pytest.raises(SystemExit) as stopped:
        crnn.main([*options, "--word-lists", str(word_lists), "--skip", "photos", "--skip", "word"])
    assert stopped.value.code == 2
    assert "there is no set 'word' to skip: the sets of the data are photos, words\n" in capsys.readouterr().err


def test_a_crop_keeps_a_margin_and_knows_where_its_text_is() -> None:
    grey = np.zeros((200, 300), dtype=np.uint8)
    grey[60:90, 100:180] = 255
    sample = cut(grey, box(100, 60, 180, 90), "Gate")
    assert sample is not None
    (x0, y0), (x1, y1) = sample.quad[0].astype(int).tolist(), sample.quad[2].astype(int).tolist()
    assert (x1 - x0, y1 - y0) == (80, 30)
    assert min(x0, y0, sample.grey.shape[1] - x1, sample.grey.shape[0] - y1) >= 10
    assert sample.grey[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() == 255
    assert sample.grey[: y0 - 1].max() == 0
    assert cut(grey, box(100, 60, 103, 90), "x") is None, "too thin"
    assert cut(grey, box(100, 10, 130, 90), "tall") is None, "runs down"


def test_neighbours_on_one_line_are_joined() -> None:
    def word(text: str, x: float, y: float, height: float = 20, ignore: bool = False) -> Region:
        return Region(box(x, y, x + 50, y + height), text, ignore)

    regions = [
        word("here", 120, 11),
        word("Baked", 0, 10),
        word("is", 60, 10),
        word("far", 300, 10),
        word("below", 180, 40),
        word("large", 180, 4, height=40),
        word("###", 178, 10, ignore=True),
    ]
    (line,) = join_words(regions)
    assert line.text == "Baked is here"
    assert line.quad.tolist() == [[0, 10], [170, 11], [170, 31], [0, 30]]


def test_a_teacher_labels_what_was_not_labelled(tmp_path: Path) -> None:
    class Reader:
        info = None

        def read(self, crops: Any) -> list[Reading]:
            sizes = {(20, 50): Reading("sure", 0.95), (20, 60): Reading("not", 0.5), (18, 44): Reading("found", 0.9)}
            return [sizes[crop.shape[:2]] for crop in crops]

    class Finder:
        info = None

        def detect(self, pictures: Any) -> list[list[TextLine]]:
            touching, apart = box_polygon(45, 10, 80, 40), box_polygon(120, 60, 164, 78)
            return [[TextLine(touching, 0.9), TextLine(apart, 0.9)] for _ in pictures]

    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((100, 200, 3), dtype=np.uint8))
    regions = [
        Region(box(0, 0, 50, 20), "", True),
        Region(box(60, 0, 120, 20), "", True),
        Region(box(0, 50, 40, 55), "", True),
        Region(box(60, 50, 100, 70), "labelled", False),
    ]
    photo = Photo(tmp_path / "x.png", regions)
    found = read_unlabelled(photo, Reader(), 0.9)  # type: ignore[arg-type]
    assert [(region.text, region.ignore) for region in found] == [("sure", False)]
    found = read_unlabelled(photo, Reader(), 0.9, Finder())  # type: ignore[arg-type]
    assert [(region.text, region.ignore) for region in found] == [("sure", False), ("found", False)]


class Knowing:
    """Reads what it was told to, one text after the other."""

    info: Any = None

    def __init__(self, *readings: Reading) -> None:
        self._readings = list(readings)

    def read(self, crops: Any) -> list[Reading]:
        return [self._readings.pop(0) for _ in crops]


def test_a_teacher_spells_labels_that_have_letters_only(data: Path, tmp_path: Path) -> None:
    readings = [Reading(text, 0.9) for text in ("GATE!", "BI2", "exit", "café.", "to")] + [Reading("24-7", 0.1)]
    assert respell(read_folder(data / "words"), Knowing(*readings), tmp_path, 0.5) == 3
    anew = read_folder(tmp_path / "spelt_words")
    assert [word.text for word in anew.words] == ["GATE!", "B12", "exit", "café.", "to", "24/7"]
    photos = read_folder(data / "photos")
    texts = [region.text for photo in photos.photos for region in photo.regions if not region.ignore]
    loud = Knowing(*(Reading(text.upper(), 0.9) for text in texts))
    assert respell(photos, loud, tmp_path, 0.5) > 30
    first = read_folder(tmp_path / "spelt_photos").photos[0]
    assert [(region.text, region.ignore) for region in first.regions] == [
        ("GATE", False),
        ("B12", False),
        ("###", True),
    ]
    assert first.image.exists()
    split = load([data, tmp_path], LATIN, tmp_path / "cache")
    assert "spelt_photos" in split.train
    assert "spelt_photos:lines" in split.train
    assert not any(name.startswith("spelt") for name in split.validation)


def test_a_font_that_cannot_be_read_is_left_out(fonts: Path, tmp_path: Path) -> None:
    found = [(path, "".join(characters)) for path, characters in find_fonts(fonts, LATIN, tmp_path)]
    good = [Reading(text, 0.9) for text in ("Hamburgefonstiv", "QUICK FOX JUMP1", "0123456789")]
    bad = [*good[:2], Reading("ABCDEF", 0.9)]
    assert legible([*found, *found], Knowing(*good, *bad)) == found


# Widths and CTC


def test_a_label_that_is_too_long_for_its_crop_makes_it_wider() -> None:
    assert least_timesteps("aabb") == 6
    assert width_for("a", 20, 20) == 48
    crowded = width_for("illiilliilliilli", 20, 20)
    assert crowded is not None
    assert crowded // 4 > least_timesteps("illiilliilliilli")
    assert crowded % 8 == 0
    assert width_for("a" * 1000, 20, 20) is None, "not even the widest would do"


def test_what_fits_at_no_width_is_set_aside() -> None:
    grey = np.full((40, 60), 128, dtype=np.uint8)
    impossible, possible = Sample(grey, box(5, 5, 55, 35), "a" * 1000), Sample(grey, box(5, 5, 55, 35), "fine")
    batches = Batches(Mixture({"x": [impossible, possible]}, {}, lambda _: possible, 1.0), LATIN, 400, seed=1)
    batch = next(iter(batches))
    assert set(batch.lengths.tolist()) == {4}
    assert batches.set_aside > 0
    assert upright(impossible) is None


def test_the_loss_is_finite_whatever_comes() -> None:
    for steps, label in ((3, [1, 1, 1]), (3, [1, 2, 3, 4]), (1, [5]), (9, [1, 2])):
        logits = torch.randn(2, steps, 8, requires_grad=True)
        targets, lengths = torch.tensor(label * 2), torch.tensor([len(label)] * 2)
        loss = ctc_loss(logits, targets, lengths)
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        fits = steps >= len(label) + sum(a == b for a, b in itertools.pairwise(label))
        assert bool(loss > 0) == fits


def test_the_loss_is_the_negative_log_likelihood() -> None:
    from ocrstream.models.crnn.decode import log_likelihood, log_softmax

    logits = np.random.default_rng(4).normal(0, 2, (1, 7, 5)).astype(np.float32)
    loss = ctc_loss(torch.from_numpy(logits), torch.tensor([1, 1, 3]), torch.tensor([3]))
    assert float(loss.detach()) == pytest.approx(-log_likelihood(log_softmax(logits[0]), [1, 1, 3]) / 3, rel=1e-4)


def test_a_batch_whose_gradients_are_not_finite_changes_nothing(data: Path, tmp_path: Path) -> None:
    network = LightCrnn(len(LATIN) + 1)
    task = crnn.RecognizerTask(network, crnn.Settings(data=(data,), cache=tmp_path / "cache"))
    grey = np.full((40, 60), 128, dtype=np.uint8)
    sample = Sample(grey, box(5, 5, 55, 35), "fine")
    task._batches = iter(Batches(Mixture({"x": [sample]}, {}, lambda _: sample, 1.0), LATIN, 400, seed=1))
    with torch.no_grad():
        network.output.weight[0, 0] = torch.nan
    before = network.output.bias.clone()
    assert task.step(0.5)["skipped"] == 1
    assert torch.equal(network.output.bias, before)


def test_a_batch_that_was_looked_at_is_read_again() -> None:
    seen = Seen(visits=3, seed=1, capacity=10)
    assert not seen.wants_again()
    batches = [Batch(torch.zeros(1), torch.full((1,), number), torch.ones(1)) for number in range(30)]
    for batch in batches[:2]:
        seen.keep(torch.full((1, 2, 3), 0.5), batch)
    again = [seen.wants_again() for _ in range(600)]
    assert 350 < sum(again) < 450, "two visits of three are of an old batch"
    for batch in batches[2:]:
        seen.keep(torch.full((1, 2, 3), 0.5), batch)
    kept = [seen.again() for _ in range(200)]
    assert len({int(batch.targets) for _, batch in kept}) == 10
    assert kept[0][0].dtype == torch.float16


def test_frozen_convolutions_are_computed_once_for_several_visits(data: Path, tmp_path: Path) -> None:
    network = LightCrnn(len(LATIN) + 1)
    settings = crnn.Settings(data=(data,), cache=tmp_path / "cache", frozen=14, repeat=4)
    task = crnn.RecognizerTask(network, settings)
    task._seen = Seen(visits=4, seed=1, capacity=2)
    sample = Sample(np.full((40, 60), 128, dtype=np.uint8), box(5, 5, 55, 35), "fine")
    task._batches = iter(Batches(Mixture({"x": [sample]}, {}, lambda _: sample, 1.0), LATIN, 400, seed=1))
    looks: list[int] = []
    network.blocks[0].register_forward_hook(lambda *_: looks.append(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(8):
        assert task.step(0.5)["samples"] >= 4
    assert 1 <= len(looks) <= 5
    changed = {
        name.partition(".")[0] for name, tensor in network.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {"lstm", "output"}


def test_a_start_of_fewer_letters_reads_on_what_it_read() -> None:
    chance = np.random.default_rng(1)
    weight, bias = chance.normal(0, 1, (4, 6)), chance.normal(0, 1, 4)
    state = {"output.weight": weight.astype(np.float32), "output.bias": bias.astype(np.float32)}
    wider = with_charset({**state, "lstm.x": np.ones(2, dtype=np.float32)}, "lo ", "ło №l")
    new = wider["output.weight"], wider["output.bias"]
    assert (new[0].shape, new[1].shape, wider["lstm.x"].sum()) == ((6, 6), (6,), 2)
    for row, old in ((0, 0), (2, 2), (3, 3), (5, 1)):
        np.testing.assert_array_equal(new[0][row], state["output.weight"][old])
        assert new[1][row] == state["output.bias"][old]
    hidden = chance.normal(0, 1, (500, 6)).astype(np.float32)
    logits = hidden @ new[0].T + new[1]
    assert (logits[:, 1] < logits[:, 5]).mean() > 0.99, "ł begins as a less likely l"
    assert np.corrcoef(logits[:, 1], logits[:, 5])[0, 1] > 0.9
    assert (logits.argmax(axis=1) == 4).mean() < 0.02, "what looks like nothing known is hardly ever read"


# Drawing and augmentation


def test_texts_are_of_the_charset_and_of_every_kind(word_lists: Path) -> None:
    texts = Texts(LATIN, ["Gate B12"], word_lists)
    chance = np.random.default_rng(1)
    written = [texts.text(chance) for _ in range(2000)]
    assert all(set(text) <= set(LATIN) and text == text.strip() for text in written)
    together = "\n".join(written)
    for expected in ("HOUSE", "Street", "gate", "élève", "www.", " ", "%", "€"):
        assert expected in together
    # Dates, phone numbers and prices hold spaces, too.
    assert LINES_SHARE - 0.03 < sum(" " in text for text in written) / len(written) < LINES_SHARE + 0.08
    with pytest.raises(SourceError, match="no word list in"):
        Texts(LATIN, [], word_lists / "none")


def test_fonts_are_found_with_their_characters(fonts: Path, tmp_path: Path) -> None:
    (fonts / "broken.ttf").write_bytes(b"no font")
    (fonts / "copy.ttf").write_bytes((fonts / "one.ttf").read_bytes())
    ((path, characters),) = find_fonts(fonts, LATIN, tmp_path / "cache")
    assert Path(path).name in ("one.ttf", "copy.ttf")
    assert set("Gate 12") <= characters
    assert "é" not in characters, "this font draws its box for what it lacks"
    with pytest.raises(SourceError, match="no font with Latin letters"):
        find_fonts(tmp_path / "none", LATIN, tmp_path / "other")


def test_what_is_drawn_lies_inside_its_quad(fonts: Path, word_lists: Path, tmp_path: Path) -> None:
    renderer = Renderer(Texts(LATIN, [], word_lists), find_fonts(fonts, LATIN, tmp_path), [])
    chance = np.random.default_rng(3)
    for _ in range(60):
        sample = renderer.sample(chance)
        assert sample.grey.dtype == np.uint8
        assert (sample.quad.max(axis=0) - sample.quad.min(axis=0) > 4).all()
        crop = augment(sample, chance)
        assert crop is not None
        assert crop.shape[0] == 48
        assert crop.shape[1] % 8 == 0
        assert crop.shape[1] // 4 >= least_timesteps(sample.text)


def test_augmentation_without_strength_is_the_crop_itself() -> None:
    grey = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (50, 140), dtype=np.uint8), (0, 0), 3)
    sample = Sample(grey.astype(np.uint8), box(10, 10, 130, 40), "word")
    plain, same = upright(sample), augment(sample, np.random.default_rng(1), strength=0.0)
    assert plain is not None
    assert same is not None
    assert plain.shape == same.shape
    assert np.abs(plain.astype(int) - same.astype(int)).mean() < 1


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.57])
def test_motion_keeps_the_light(angle: float) -> None:
    assert motion_kernel(5, angle).sum() == pytest.approx(1.0)


# All of it


def test_a_small_training_goes_from_a_folder_to_an_engine(
    data: Path, fonts: Path, word_lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--data", str(data), "--out", str(out), "--threads", "1", "--columns", "400"]
    options += ["--fonts", str(fonts), "--word-lists", str(word_lists), "--minutes", "0.03"]
    assert crnn.main(options) == 0
    run = json.loads((out / "run.json").read_text())
    assert (run["settings"]["columns"], run["train"]["words"] + run["validation"].get("words", 0)) == (400, 6)
    weights = tmp_path / "mine.onnx"
    export = ["--checkpoint", str(out / "checkpoint.pt"), "--data", str(data), "--cache", str(out / "cache")]
    assert export_crnn.main([*export, "--out", str(weights)]) == 0
    file = read_card(weights)
    assert verify(file)
    assert file.card["training"]["position"]["samples"] > 0
    # A few samples tell no temperature.
    assert file.card["calibration"]["temperature"] == export_crnn.shipped_temperature()
    assert "are too few to fit confidences on" in capsys.readouterr().err
    reading = CrnnRecognizer(EngineOptions(weights=str(weights))).read([np.full((30, 90, 3), 200, dtype=np.uint8)])[0]
    assert len(reading.characters) == len(reading.text)
    mean = tmp_path / "mean.onnx"
    assert (
        export_crnn.main([*export, "--out", str(mean), "--mean-with", "crnn_light", "--mean-with", str(weights)]) == 0
    )
    assert read_card(mean).card["training"]["mean_with"] == ["crnn_light.onnx", "mine.onnx"]
    ours, theirs, both = (
        read_state(to_path(name))[0]["output.bias"] for name in (str(weights), "crnn_light", str(mean))
    )
    np.testing.assert_allclose(both, (2 * ours + theirs) / 3, atol=0.01)
    int8 = weights.with_stem("mine_int8")
    assert verify(read_card(int8))
    assert int8.stat().st_size < weights.stat().st_size
    crop = np.random.default_rng(1).integers(0, 256, (1, 1, 48, 96)).astype(np.float32) / 127.5 - 1
    one, other = (Session(path.read_bytes(), path.name, 1, "").run(crop) for path in (weights, int8))
    assert np.abs(one - other).max() < 0.25 * np.abs(one).max()
    with pytest.raises(EngineError, match="quantised and runs on the CPU only"):
        read_state(int8)
    # And from the weight file to another training.
    again = [*options[:2], "--out", str(tmp_path / "again"), *options[4:], "--start", str(weights)]
    assert crnn.main([*again, "--minutes", "0.01"]) == 0
    with pytest.raises(SystemExit) as stopped:
        crnn.main(
            [*options[:2], "--out", str(tmp_path / "x"), "--minutes", "1", "--start", str(tmp_path / "none.onnx")]
        )
    assert stopped.value.code == 2
    assert "none.onnx is not a weight file of crnn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "nan"], "rate is nan, and has to be from 0 to 1"),
        (["--real", "3"], "real share is 3, and has to be from 0 to 1"),
        (["--columns", "1"], "columns is 1, and has to be from 64 to"),
        (["--threads", "-1"], "threads is -1, and has to be from 0 to"),
    ],
)
def test_settings_that_mean_nothing_get_a_sentence(
    arguments: list[str], sentence: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        crnn.main(["--data", str(data), "--out", str(tmp_path / "out"), "--minutes", "1", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
