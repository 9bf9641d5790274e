"""The engine ``crnn``: this project's own recogniser, and whatever is imported into its format.

`CrnnRecognizer` puts preprocess, network and decode together. On the CPU the network is an ONNX file run by ONNX
Runtime; on a GPU it is a file's weights in PyTorch (extra ``gpu``). Without ``EngineOptions.weights`` a shipped file is
used, profile ``light``, on the CPU with 8-bit convolutions; one that ``ocrstream models import crnn`` wrote is of the
profile ``original``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.messages import EngineInfo
from ocrstream.models import EngineOptions, Reading
from ocrstream.models.crnn.decode import beam_reading, choose, greedy_reading, with_numbers
from ocrstream.models.crnn.preprocess import crop_to_tensor, original_to_tensor
from ocrstream.models.session import Network, open_network
from ocrstream.models.weights import to_path
from ocrstream.picture import Image

NAME = "crnn"
WEIGHTS = Path(__file__).parent / "weights"
SHIPPED, SHIPPED_INT8 = WEIGHTS / "crnn_light.onnx", WEIGHTS / "crnn_light_int8.onnx"

Floats = NDArray[np.float32]


class CrnnRecognizer:
    """Reads one text line a crop, with its spaces; safe to share between threads.

    Args:
        options: device, threads, and weights other than the shipped ones.
        lexicon: words of which a crop holds one; a reading is the likeliest of those near it, or itself if none is.
        beams: prefixes that a beam search follows; 0 for the greedy reading, which is faster and hardly worse.

    Raises:
        EngineError: the weights are missing or damaged, the device is not there, `beams` is below 0, or the lexicon is
            no list of words.
    """

    def __init__(self, options: EngineOptions, *, lexicon: Sequence[str] = (), beams: int = 0) -> None:
        if isinstance(lexicon, str) or not all(isinstance(word, str) for word in lexicon):
            raise EngineError("a lexicon is a list of words")
        if beams < 0:
            raise EngineError(f"a beam search follows 0 prefixes or more, not {beams}")
        shipped = SHIPPED_INT8 if options.device == "cpu" else SHIPPED
        path = to_path(options.weights) if options.weights else shipped
        self._network = open_network(NAME, path, options, _in_torch)
        self._profile = self._network.metadata("profile")
        self._charset = self._network.metadata("charset")
        self._temperature = float(self._network.metadata("temperature"))
        self._lexicon = tuple(lexicon)
        self._beams = beams
        self.info = EngineInfo(NAME, self._network.weights)

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        """What each crop says, see `ocrstream.models.Recognizer.read`; an empty crop says nothing.

        The confidence is calibrated: the share of the text's words that are right, on photos like the training's.
        """
        readings = [Reading("", 0.0)] * len(crops)
        filled = [index for index, crop in enumerate(crops) if crop.size]
        prepare = crop_to_tensor if self._profile == "light" else original_to_tensor
        outputs = self._network.run_each(prepare(crops[index]) for index in filled)
        for index, logits in zip(filled, outputs, strict=True):
            readings[index] = self._decode(logits[0])
        return readings

    def _decode(self, logits: Floats) -> Reading:
        logits = with_numbers(logits, self._charset)
        if self._beams:
            reading = beam_reading(logits, self._charset, self._beams, self._temperature)
        else:
            reading = greedy_reading(logits, self._charset, self._temperature)
        if self._lexicon:
            chosen = choose(logits, self._charset, self._lexicon, self._temperature)
            if chosen is not None:
                return chosen
        return reading


def _in_torch(path: Path, content: bytes, device: str) -> Network:
    from ocrstream.models.crnn.gpu import TorchNetwork

    return TorchNetwork(path, content, device)
