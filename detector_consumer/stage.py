"""2/4  Frame -> Crops: finds the text lines of frames and cuts them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detector_consumer.tracking import Tracker
from ocrstream.config import DetectorSettings
from ocrstream.geometry import Polygon, clip_polygon, scale_polygon
from ocrstream.lines import cut_line
from ocrstream.messages import CROPS, FRAMES, REPLAY, Crop, Crops, Frame, FrameInfo, Region
from ocrstream.metrics import Metrics
from ocrstream.models import Detector, EngineOptions, TextLine, load_detector
from ocrstream.models.asked_for import Engines
from ocrstream.picture import Image, Picture
from ocrstream.runner import Flow, Runner
from ocrstream.transport import Transport


def build(
    settings: DetectorSettings,
    transport: Transport,
    metrics: Metrics,
    admits: Callable[[float], bool] | None = None,
) -> Runner:
    """The stage with its loop; ``admits`` as in `Runner`.

    Raises:
        EngineError: the detector is unknown or cannot be loaded.
    """
    options = EngineOptions(settings.device, settings.threads, settings.weights)
    stage = DetectorStage(settings.engine, lambda name: load_detector(name, options))
    # Of a live source one frame is enough: the newest; the others would only add to its delay.
    flow = Flow((FRAMES, REPLAY), CROPS, settings.group, settings.batch, settings.deadline_ms / 1000, keep_live=1)
    return Runner(stage, flow, transport, metrics, admits)


class DetectorStage:
    """Detects the lines of a batch of frames, which may come from several sources.

    Args:
        engine: the detector's name, used for every frame that does not ask for another one (a replay may).
        load: gives the detector of a name; called once a name.
    """

    name = "detector"

    def __init__(self, engine: str, load: Callable[[str], Detector]) -> None:
        self._detectors = Engines(engine, load)
        self._tracker = Tracker()

    def handle(self, frames: Sequence[Frame]) -> list[Crops]:
        """One `Crops` a frame, in the frames' order.

        Raises:
            MalformedRecordError: a picture cannot be decoded.
            PoisonError: a replay asks for a detector that is not installed.
        """
        pictures = [frame.picture.array() for frame in frames]
        results: dict[int, Crops] = {}
        for detector, indices in self._detectors.shared_out(frame.info.detector for frame in frames):
            found = detector.detect([pictures[index] for index in indices])
            for index, lines in zip(indices, found, strict=True):
                results[index] = self._crops(frames[index], pictures[index], detector, lines)
        return [results[index] for index in range(len(frames))]

    def finish(self) -> list[Crops]:
        """Nothing is held back."""
        return []

    def _crops(self, frame: Frame, picture: Image, detector: Detector, lines: list[TextLine]) -> Crops:
        regions = self._tracker.follow(frame.info, _regions(frame.info, picture, lines))
        crops = tuple(
            Crop(region, tuple(map(Picture.from_array, cut_line(picture, line.polygon, line.words))))
            for region, line in zip(regions, lines, strict=True)
        )
        return Crops(frame.info, detector.info, crops, picture=frame.picture)


def _regions(info: FrameInfo, picture: Image, lines: list[TextLine]) -> list[Region]:
    """The lines in the frame's own pixels: the picture may have been shrunk to be sent."""
    scale_x, scale_y = info.width_px / picture.shape[1], info.height_px / picture.shape[0]

    def placed(polygon: Polygon) -> Polygon:
        return clip_polygon(scale_polygon(polygon, scale_x, scale_y), info.width_px, info.height_px)

    return [
        Region(
            number,
            placed(line.polygon),
            round(min(max(line.score, 0.0), 1.0), 4),
            words=tuple(map(placed, line.words)),
        )
        for number, line in enumerate(lines)
    ]
