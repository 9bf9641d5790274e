"""The CRNNs against an independent reading of the specification in NumPy, and the engine around them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions, Reading
from ocrstream.models.crnn import CrnnRecognizer
from ocrstream.models.crnn.charset import LATIN, ORIGINAL
from ocrstream.models.crnn.importing import expected_shapes, import_weights, read_original
from ocrstream.models.crnn.preprocess import batch_to_tensor, crop_to_tensor, input_width_px, original_to_tensor
from ocrstream.models.session import Session

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from ocrstream.models.crnn.gpu import TorchNetwork, batches  # noqa: E402
from ocrstream.models.crnn.network import LightCrnn, OriginalCrnn, light_steps  # noqa: E402
from ocrstream.models.crnn.onnx_file import Description, read_state, store_half, to_onnx  # noqa: E402

Array = Any


# The specification, read once more and slowly


def conv(x: Array, weight: Array, bias: Array, pad: int) -> Array:
    """``(C, H, W)`` to ``(O, h, w)``: a sum over channels and the kernel's places."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    rows, columns = x.shape[1] - weight.shape[2] + 1, x.shape[2] - weight.shape[3] + 1
    out = np.zeros((weight.shape[0], rows, columns))
    for dy in range(weight.shape[2]):
        for dx in range(weight.shape[3]):
            out += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], x[:, dy : dy + rows, dx : dx + columns])
    return out + bias[:, None, None]


def pool(x: Array, step: tuple[int, int], pad: int) -> Array:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad)), constant_values=-np.inf)
    rows, columns = (x.shape[1] - 2) // step[0] + 1, (x.shape[2] - 2) // step[1] + 1
    return np.array(
        [
            [[plane[r * step[0] :, c * step[1] :][:2, :2].max() for c in range(columns)] for r in range(rows)]
            for plane in x
        ]
    )


def norm(x: Array, state: dict[str, Array], name: str) -> Array:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scale = state[f"{name}.weight"] / np.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def lstm(sequence: Array, state: dict[str, Array], name: str) -> Array:
    """``(T, C)`` to ``(T, 2 H)``; gates in the order i, f, g, o."""
    both = []
    for suffix, order in (("", 1), ("_reverse", -1)):
        w, u = state[f"{name}.weight_ih_l0{suffix}"], state[f"{name}.weight_hh_l0{suffix}"]
        bias = state[f"{name}.bias_ih_l0{suffix}"] + state[f"{name}.bias_hh_l0{suffix}"]
        h = c = np.zeros(u.shape[1])
        out = []
        for x in sequence[::order]:
            i, f, g, o = np.split(w @ x + u @ h + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        both.append(np.array(out)[::order])
    return np.concatenate(both, axis=1)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def original(crop: Array, state: dict[str, Array]) -> Array:
    """The released network: ``(1, 32, W)`` to ``(T, classes)``."""
    x = crop
    for index in range(7):
        x = conv(x, state[f"cnn.conv{index}.weight"], state[f"cnn.conv{index}.bias"], 0 if index == 6 else 1)
        if index in (2, 4, 6):
            x = norm(x, state, f"cnn.batchnorm{index}")
        x = relu(x)
        if index in (0, 1):
            x = pool(x, (2, 2), 0)
        elif index in (3, 5):
            x = pool(x, (2, 1), 1)
    sequence = x[:, 0].T
    for layer in ("rnn.0", "rnn.1"):
        sequence = lstm(sequence, state, f"{layer}.rnn")
        sequence = sequence @ state[f"{layer}.embedding.weight"].T + state[f"{layer}.embedding.bias"]
    return sequence


def light(crop: Array, state: dict[str, Array]) -> Array:
    """Our network: ``(1, 48, W)`` to ``(T, classes)``."""

    def layer(x: Array, name: str, pad: int = 0) -> Array:
        return conv(x, state[f"{name}.weight"], state[f"{name}.bias"], pad)

    def beyond(x: Array) -> Array:
        return np.pad(x, ((0, 0), (0, 1), (0, 1)))

    first = relu(layer(crop, "stem.first", 1))[:, ::2, ::2]
    other = relu(layer(beyond(relu(layer(beyond(first), "stem.left"))), "stem.right"))
    x = relu(layer(np.concatenate([pool(beyond(first), (1, 1), 0), other]), "stem.joined", 1))[:, ::2, ::2]
    x = relu(layer(x, "stem.last"))
    for index in range(13):
        name = f"blocks.{index}"
        weight, bias = state[f"{name}.spatial.weight"], state[f"{name}.spatial.bias"]
        x = np.concatenate([conv(x[c : c + 1], weight[c : c + 1], bias[c : c + 1], 1) for c in range(len(x))])
        if index in (3, 10):
            x = x[:, ::2]
        if f"{name}.weighing.up.bias" in state:
            means = x.mean(axis=(1, 2), keepdims=True)
            weights = layer(relu(layer(means, f"{name}.weighing.down")), f"{name}.weighing.up")
            x = x * np.clip(weights / 6 + 0.5, 0, 1)
        y = layer(gelu(layer(x, f"{name}.expand")), f"{name}.project")
        x = y if index in (3, 10) else x + y
    return lstm(x.mean(axis=1).T, state, "lstm") @ state["output.weight"].T + state["output.bias"]


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def random_state(shapes: dict[str, tuple[int, ...]], seed: int, gain: float = 1.4) -> dict[str, Array]:
    """Weights that keep signals about as large as they come, and norms that are not neutral."""
    chance = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        spread = gain / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        values = chance.normal(0, spread, shape)
        state[name] = (
            np.abs(values) + 0.5 if name.endswith("running_var") or ("norm" in name and "weight" in name) else values
        )
    return {name: values.astype(np.float32) for name, values in state.items()}


@pytest.fixture(scope="module")
def original_state() -> dict[str, Array]:
    return random_state(expected_shapes(37), 3)


@pytest.fixture(scope="module")
def light_state() -> dict[str, Array]:
    shapes = {name: tuple(tensor.shape) for name, tensor in LightCrnn(len(LATIN) + 1).state_dict().items()}
    # Nothing brings signals back to size between its blocks.
    return random_state(shapes, 4, gain=0.8)


@pytest.fixture(scope="module")
def light_file(light_state: dict[str, Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "light.onnx"
    path.write_bytes(to_onnx(light_state, Description("light", LATIN, 1.5)))
    return path


def crops_of_widths(*widths: int, height: int = 48) -> list[Array]:
    chance = np.random.default_rng(5)
    return [chance.uniform(-1, 1, (1, 1, height, width)).astype(np.float32) for width in widths]


def as_file(state: dict[str, Array], path: Path, prefix: str = "", zipped: bool = True) -> Path:
    tensors = {prefix + name: torch.from_numpy(array.copy()) for name, array in state.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    return path


# The networks


def test_the_original_is_the_specification_value_by_value(original_state: dict[str, Array], tmp_path: Path) -> None:
    (crop,) = crops_of_widths(44, height=32)
    expected = original(crop[0], original_state)
    assert expected.shape == (44 // 4 + 1, 37)
    network = OriginalCrnn().eval()
    network.load_state_dict({name: torch.from_numpy(a) for name, a in original_state.items()}, strict=False)
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(crop))[0].numpy(), expected, atol=2e-5)
    content = to_onnx(original_state, Description("original", ORIGINAL), half=False)
    np.testing.assert_allclose(Session(content, "x", 1, "").run(crop)[0], expected, atol=2e-5)


def test_the_light_network_is_its_description_value_by_value(light_state: dict[str, Array]) -> None:
    (crop,) = crops_of_widths(56)
    expected = light(crop[0], light_state)
    assert expected.shape == (light_steps(56), len(LATIN) + 1)
    network = LightCrnn(len(LATIN) + 1).eval()
    network.load_state_dict({name: torch.from_numpy(a) for name, a in light_state.items()}, strict=False)
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(crop))[0].numpy(), expected, atol=2e-5)
    content = to_onnx(light_state, Description("light", LATIN), half=False)
    np.testing.assert_allclose(Session(content, "x", 1, "").run(crop)[0], expected, atol=2e-5)


@pytest.mark.parametrize(("width", "steps"), [(32, 9), (64, 17), (100, 26), (160, 41), (320, 81)])
def test_the_original_has_the_timesteps_that_were_released(width: int, steps: int) -> None:
    with torch.inference_mode():
        assert OriginalCrnn().eval()(torch.zeros(1, 1, 32, width)).shape == (1, steps, 37)


def test_the_original_has_the_released_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in OriginalCrnn().parameters()) == 8_331_301
    assert sum(int(np.prod(shape)) for shape in expected_shapes(37).values()) == 8_333_861


def test_a_crop_reads_alike_alone_and_beside_wider_ones(light_file: Path) -> None:
    network = TorchNetwork(light_file, light_file.read_bytes(), "cpu")
    crops = crops_of_widths(96, 80, 104, 320, 88)
    together = list(network.run_each(crops))
    for crop, output in zip(crops, together, strict=True):
        (alone,) = network.run_each([crop])
        assert output.shape == alone.shape == (1, light_steps(crop.shape[3]), len(LATIN) + 1)
        np.testing.assert_allclose(output, alone, atol=2e-5)


def test_both_runtimes_agree(light_file: Path) -> None:
    content = light_file.read_bytes()
    session, network = Session(content, "x", 2, ""), TorchNetwork(light_file, content, "cpu")
    crops = crops_of_widths(120, 64, 72)
    for one, other in zip(session.run_each(crops), network.run_each(crops), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    assert session.weights == network.weights
    assert session.metadata("temperature") == network.metadata("temperature") == "1.5"


def test_batches_hold_little_padding_and_every_crop_once() -> None:
    widths = [40, 400, 48, 392, 40, 2048, 320]
    found = list(batches(widths))
    assert sorted(index for batch in found for index in batch) == list(range(len(widths)))
    for batch in found:
        widest = max(widths[index] for index in batch)
        assert min(widths[index] for index in batch) >= 0.75 * widest
    assert {frozenset(batch) for batch in found} >= {frozenset({1, 3, 6}), frozenset({5})}


def test_a_weight_file_gives_its_tensors_back(light_state: dict[str, Array], light_file: Path) -> None:
    state, description = read_state(light_file)
    assert (description.profile, description.charset, description.temperature) == ("light", LATIN, 1.5)
    assert state.keys() == light_state.keys()
    for name, array in state.items():
        np.testing.assert_allclose(array, light_state[name], atol=2e-3)
    assert light_file.stat().st_size < 10_000_000


def test_small_storage_computes_nearly_the_same(light_state: dict[str, Array]) -> None:
    (crop,) = crops_of_widths(48)
    whole = to_onnx(light_state, Description("light", LATIN), half=False)
    smaller = store_half(whole)
    assert len(smaller) < 0.56 * len(whole)
    session = Session(smaller, "x", 1, "")
    np.testing.assert_allclose(session.run(crop), Session(whole, "x", 1, "").run(crop), atol=0.02)
    assert session.metadata("charset") == LATIN


# Preprocessing


@pytest.mark.parametrize(
    ("size_wh", "width"), [((32, 32), 48), ((100, 50), 96), ((640, 32), 960), ((3, 90), 48), ((9000, 20), 3200)]
)
def test_a_crop_keeps_its_aspect_on_a_grid(size_wh: tuple[int, int], width: int) -> None:
    assert input_width_px(*size_wh) == width
    crop = np.zeros((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    assert crop_to_tensor(crop).shape == (1, 1, 48, width)


def test_a_crop_becomes_grey_between_minus_one_and_one() -> None:
    crop = np.zeros((32, 40, 3), dtype=np.uint8)
    crop[:, 20:] = 255
    crop[:8, :, 2] = 255
    tensor = crop_to_tensor(crop)[0, 0]
    assert (tensor[31, 0], tensor[31, -1]) == (-1.0, 1.0)
    assert tensor[0, 0] == pytest.approx(2 * 0.299 - 1, abs=0.01), "red, the last channel"


def test_the_original_squashes_to_100x32() -> None:
    tensor = original_to_tensor(np.full((7, 400, 3), 128, dtype=np.uint8))
    assert tensor.shape == (1, 1, 32, 100)
    np.testing.assert_allclose(tensor, 2 * 128 / 255 - 1, atol=1e-6)


def test_a_batch_is_padded_at_its_right() -> None:
    batch, widths = batch_to_tensor([np.ones((1, 1, 48, width), dtype=np.float32) for width in (40, 64)])
    assert widths.tolist() == [40, 64]
    assert batch[0, 0, 0].tolist() == [1.0] * 40 + [0.0] * 24


# The importer


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_released_file_is_imported(
    original_state: dict[str, Array], tmp_path: Path, prefix: str, zipped: bool
) -> None:
    source = as_file(original_state, tmp_path / "crnn.pth", prefix, zipped)
    read = read_original(source)
    assert all((read[name] == array).all() for name, array in original_state.items())


def test_torch7_gates_are_put_in_order(original_state: dict[str, Array], tmp_path: Path) -> None:
    swapped = {
        name: array[np.r_[0:512, 768:1024, 512:768]] if ".rnn." in name else array
        for name, array in original_state.items()
    }
    source = as_file(swapped, tmp_path / "crnn.pth")
    read = read_original(source, gates="torch7")
    assert all((read[name] == array).all() for name, array in original_state.items())
    assert not (read_original(source)["rnn.0.rnn.bias_ih_l0"] == original_state["rnn.0.rnn.bias_ih_l0"]).all()


def test_a_file_of_another_network_is_refused(original_state: dict[str, Array], tmp_path: Path) -> None:
    without = {name: array for name, array in original_state.items() if name != "cnn.conv3.bias"}
    with pytest.raises(EngineError, match=r"not the released CRNN: a state dict without cnn.conv3.bias"):
        read_original(as_file(without, tmp_path / "a.pth"))
    more = original_state | {"extra": np.zeros(1, dtype=np.float32)}
    with pytest.raises(EngineError, match=r"a state dict with extra"):
        read_original(as_file(more, tmp_path / "b.pth"))
    turned = original_state | {"rnn.0.embedding.weight": original_state["rnn.0.embedding.weight"].T}
    with pytest.raises(EngineError, match=r"rnn.0.embedding.weight is \(512, 256\), not \(256, 512\)"):
        read_original(as_file(turned, tmp_path / "c.pth"))
    with pytest.raises(EngineError, match=r"rnn.1.embedding.* is \(37, 512\), not \(3, 512\); name its characters"):
        read_original(as_file(original_state, tmp_path / "d.pth"), charset="ab")
    broken = original_state | {"cnn.conv0.bias": np.full(64, np.nan, dtype=np.float32)}
    with pytest.raises(EngineError, match="not finite"):
        read_original(as_file(broken, tmp_path / "e.pth"))
    negative = original_state | {"cnn.batchnorm2.running_var": np.full(256, -1, dtype=np.float32)}
    with pytest.raises(EngineError, match="variances below 0"):
        read_original(as_file(negative, tmp_path / "g.pth"))
    twice = {**original_state, "module.cnn.conv0.weight": original_state["cnn.conv0.weight"]}
    with pytest.raises(EngineError, match="holds tensors twice"):
        read_original(as_file(twice, tmp_path / "f.pth"))
    whole = {**original_state, "cnn.conv0.weight": original_state["cnn.conv0.weight"].astype(np.int64)}
    with pytest.raises(EngineError, match=r"cnn.conv0.weight holds int64 numbers"):
        read_original(as_file(whole, tmp_path / "g.pth"))


def test_the_engine_runs_an_imported_file(original_state: dict[str, Array], tmp_path: Path) -> None:
    out = tmp_path / "original.onnx"
    import_weights(as_file(original_state, tmp_path / "crnn.pth"), out)
    crop = np.random.default_rng(2).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    reading = CrnnRecognizer(EngineOptions(weights=str(out))).read([crop])[0]
    expected = original(original_to_tensor(crop)[0], original_state)
    best = expected.argmax(axis=1)
    kept = best[(best != 0) & (best != np.r_[-1, best[:-1]])]
    assert reading.text == "".join(ORIGINAL[index - 1] for index in kept)


# The engine


def test_the_engine_reads_each_crop_as_if_it_were_alone(light_file: Path) -> None:
    recognizer = CrnnRecognizer(EngineOptions(threads=2, weights=str(light_file)))
    chance = np.random.default_rng(8)
    crops = [
        chance.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((30, 90), (17, 200), (60, 40))
    ]
    empty = np.zeros((0, 5, 3), dtype=np.uint8)
    together = recognizer.read([crops[0], empty, *crops[1:]])
    assert together[1] == Reading("", 0.0)
    assert [together[0], *together[2:]] == [recognizer.read([crop])[0] for crop in crops]
    for reading in together:
        assert len(reading.characters) == len(reading.text)
        assert 0.0 <= reading.confidence <= 1.0
    assert recognizer.read([]) == []


def test_the_engine_says_what_is_wrong(light_file: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none.onnx cannot be read \(No such file"):
        CrnnRecognizer(EngineOptions(weights=str(tmp_path / "none.onnx")))
    (tmp_path / "damaged.onnx").write_bytes(light_file.read_bytes()[:1000])
    for device in ("cpu", "cuda"):
        with pytest.raises(EngineError, match=r"damaged|is not a weight file|is not there"):
            CrnnRecognizer(EngineOptions(device, weights=str(tmp_path / "damaged.onnx")))
    with pytest.raises(EngineError, match=r"'cuda:99' is not there: PyTorch sees \d+ GPUs; use --device cpu"):
        CrnnRecognizer(EngineOptions("cuda:99", weights=str(light_file)))
    with pytest.raises(EngineError, match=r"'abacus' is no device: use cpu, cuda or cuda:N"):
        CrnnRecognizer(EngineOptions("abacus", weights=str(light_file)))
    with pytest.raises(EngineError, match="a detector's: name a recogniser's, or use --detector-weights"):
        CrnnRecognizer(EngineOptions(weights="ctpn_light"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
def test_a_gpu_reads_the_same(light_file: Path) -> None:
    content = light_file.read_bytes()
    crops = crops_of_widths(120, 64, 72)
    there, here = TorchNetwork(light_file, content, "cuda"), TorchNetwork(light_file, content, "cpu")
    for one, other in zip(there.run_each(crops), here.run_each(crops), strict=True):
        np.testing.assert_allclose(one, other, atol=0.4)
