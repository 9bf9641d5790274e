"""2/4  Frame -> Crops: finds the text lines of frames, follows them, and cuts out what has to be read of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple

import cv2

from detector_consumer.examining import Examination
from detector_consumer.gating import GateSettings
from detector_consumer.masks import is_masked
from detector_consumer.placing import to_region
from detector_consumer.tracking import Tracker
from detector_consumer.watching import Watch
from ocrstream.by_source import BySource, Zone, of_source
from ocrstream.config import DetectorSettings
from ocrstream.errors import MalformedRecordError
from ocrstream.lines import cut_line
from ocrstream.messages import CROPS, FIRST_READING, FRAMES, REPLAY, Crop, Crops, Frame, FrameInfo
from ocrstream.metrics import Metrics
from ocrstream.models import Detector, EngineOptions, TextLine, load_detector
from ocrstream.models.asked_for import Engines
from ocrstream.picture import Picture
from ocrstream.runner import Flow, Runner
from ocrstream.transport import Transport

log = logging.getLogger(__name__)

REST_SHARE, LONGEST_REST_S = 1.0, 0.25
"""Before a live source the detector rests for so many times as long as it has worked, but no longer: meanwhile
lines are followed, but what has come up waits to be found."""

MOST_WATCHES = 256
"""Sources that are followed; beyond that the one that was silent for longest is forgotten."""


def prepare(
    settings: DetectorSettings,
    is_idle: Callable[[], bool] = lambda: True,
    admits: Callable[[float], bool] | None = None,
) -> Callable[[Transport, Metrics], Runner]:
    """The stage with its engine; what is given back puts it into its loop.

    Args:
        settings: the stage's.
        is_idle: as in `DetectorStage`.
        admits: where all is read, as in `Runner`.

    Raises:
        EngineError: the detector is unknown or cannot be loaded.
    """
    options = EngineOptions(settings.device, settings.threads, settings.weights)
    # Pictures are small here; OpenCV's own threads wait for each other by asking again and again.
    cv2.setNumThreads(1)
    reads_all = settings.read == "all"
    stage = DetectorStage(
        settings.engine,
        lambda name: load_detector(name, options),
        reads_all=reads_all,
        masks=settings.masks,
        leaves_out_overlays=settings.overlays == "leave-out",
        is_idle=is_idle,
        aside=ThreadPoolExecutor(max_workers=1, thread_name_prefix="detector-engine"),
        beside=ThreadPoolExecutor(max_workers=1, thread_name_prefix="detector-glances"),
    )
    # Of a live source one frame is enough: the newest; the others would only add to its delay.
    flow = Flow((FRAMES, REPLAY), CROPS, settings.group, settings.batch, settings.deadline_ms / 1000, keep_live=1)
    return lambda transport, metrics: Runner(stage, flow, transport, metrics, admits if reads_all else None)


class _Question(NamedTuple):
    """What the detector has to look at of one source."""

    watch: Watch
    examination: Examination


class _Job(NamedTuple):
    """What the detector is looking at while frames are followed."""

    questions: list[_Question]
    future: Future[None]


class DetectorStage:
    """Finds and follows the lines of frames, which may come from several sources.

    Images of folders and frames that are read again are looked at one by one, as a whole, and all their lines are cut
    out; of the frames of videos and cameras only what is new is.

    Args:
        engine: the detector's name, used for every frame that does not ask for another one (a replay may).
        load: gives the detector of a name; called once a name.
        reads_all: whether videos and cameras are looked at in the same way as images.
        masks: zones in which nothing is read; lines whose middle lies in one are left out.
        leaves_out_overlays: whether what a moving camera writes into its picture is learned, and left out likewise.
        is_idle: whether what was found so far has been read; until then, lines of live sources are only followed.
        clock: seconds, to keep the detector's share of a live source's time.
        aside: where the detector looks at frames of live sources while the next ones are followed: one thread, or
            something like it. What it finds is taken into account at the next frame. None: each frame waits for it, as
            frames of files always do.
        beside: one thread, or something like it, in which a part of what following the frames of files takes is done;
            None: all in one.
    """

    name = "detector"

    def __init__(
        self,
        engine: str,
        load: Callable[[str], Detector],
        *,
        reads_all: bool = False,
        masks: BySource[Zone] = (),
        leaves_out_overlays: bool = False,
        is_idle: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        aside: Executor | None = None,
        beside: Executor | None = None,
    ) -> None:
        self._detectors = Engines(engine, load)
        self._reads_all = reads_all
        self._masks = masks
        self._leaves_out_overlays = leaves_out_overlays
        self._is_idle = is_idle
        self._clock = clock
        self._aside = aside
        self._is_aside = aside is not None
        self._beside = beside
        self._job: _Job | None = None
        self._rests_until_s = 0.0
        self._tracker = Tracker()
        self._watches: dict[tuple[str, int], Watch] = {}
        self._last: dict[tuple[str, int], tuple[Detector, Crops]] = {}

    def handle(self, frames: Sequence[Frame]) -> list[Crops]:
        """One `Crops` a frame, in the frames' order.

        Before it comes another one of the frame before, where there is more to say of that now.

        Raises:
            MalformedRecordError: a picture cannot be decoded.
            PoisonError: a replay asks for a detector that is not installed.
        """
        results: dict[int, list[Crops]] = {}
        for detector, indices in self._detectors.shared_out(frame.info.detector for frame in frames):
            alone = [index for index in indices if self._is_looked_at_alone(frames[index].info)]
            found = detector.detect([frames[index].picture.array() for index in alone]) if alone else []
            for index, lines in zip(alone, found, strict=True):
                results[index] = [self._crops(frames[index], detector, lines)]
            rounds = _rounds([index for index in indices if index not in results], frames)
            for round_, coming in zip(rounds, [*rounds[1:], []], strict=False):
                self._follow(round_, coming, frames, detector, results)
        return [crops for index in range(len(frames)) for crops in results[index]]

    def finish(self) -> list[Crops]:
        """The last frame of each source, where it was not kept: the next run goes on behind it.

        What was coming in is looked at once more.
        """
        self._note_answer(wait=True)
        ended = []
        for key, (detector, crops) in self._last.items():
            if crops.picture is None:
                continue
            watch = self._watches[key]
            examination = watch.see_last(crops.picture)
            if examination is not None:
                try:
                    self._examine(detector, [_Question(watch, examination)])
                except Exception as error:
                    # All that was seen until now is told all the same.
                    log.warning("the detector failed (%r) at the end of %s", error, crops.info.source_id)
            if examination is not None or not crops.is_kept:
                ended += watch.tell(detector, crops.picture, is_last=True)
        self._last.clear()
        return ended

    def _is_looked_at_alone(self, info: FrameInfo) -> bool:
        return self._reads_all or info.path is not None or info.generation != FIRST_READING

    def _follow(
        self,
        indices: Sequence[int],
        coming: Sequence[int],
        frames: Sequence[Frame],
        detector: Detector,
        results: dict[int, list[Crops]],
    ) -> None:
        """Frames of different sources, of which the detector looks together at what has to be looked at."""
        next_of = {_key(frames[index].info): (frames[index].info, frames[index].picture) for index in coming}
        at_once: list[_Question] = []
        aside: list[_Question] = []
        try:
            for index in indices:
                info, watch = frames[index].info, self._watch(frames[index].info)
                is_aside = info.live and self._is_aside
                examination = watch.see(
                    info,
                    frames[index].picture,
                    coming=next_of.get(_key(info)),
                    has_time=not info.live or self._has_time(),
                    may_ask=not is_aside or self._job is None,
                )
                if examination is not None:
                    (aside if is_aside else at_once).append(_Question(watch, examination))
        except MalformedRecordError:
            # The other sources' frames come again without this one.
            _leave_unanswered([*at_once, *aside])
            raise
        self._note_answer()
        if at_once:
            self._examine(detector, at_once)
        if aside:
            assert self._aside is not None
            self._job = _Job(aside, self._aside.submit(self._look, detector, aside))
        for index in indices:
            frame = frames[index]
            results[index] = self._watch(frame.info).tell(detector, frame.picture)
            self._last[_key(frame.info)] = detector, results[index][-1]

    def _examine(self, detector: Detector, questions: Sequence[_Question]) -> None:
        """Let the detector look, and wait for it."""
        try:
            if self._aside is None:
                self._look(detector, questions)
            else:
                # An engine is asked by one thread at a time.
                self._aside.submit(self._look, detector, questions).result()
        except Exception:
            _leave_unanswered(questions)
            raise
        for watch, examination in questions:
            watch.found(examination)
        self._is_aside = self._aside is not None

    def _look(self, detector: Detector, questions: Sequence[_Question]) -> None:
        waiting = [examination for _, examination in questions]
        begun_s = self._clock()
        while waiting:
            found = iter(detector.detect([picture for each in waiting for picture in each.pictures]))
            waiting = [each for each in waiting if not each.take([next(found) for _ in each.parts])]
        now_s = self._clock()
        self._rests_until_s = now_s + min(REST_SHARE * (now_s - begun_s), LONGEST_REST_S)

    def _note_answer(self, *, wait: bool = False) -> None:
        """Take note of what the detector has found meanwhile."""
        job = self._job
        if job is None or not (wait or job.future.done()):
            return
        self._job = None
        error = job.future.exception()
        if error is None:
            for watch, examination in job.questions:
                watch.found(examination)
        else:
            _leave_unanswered(job.questions)
            # It is asked anew of the next frame, and waited for: if that is in vain, too, that frame is set aside.
            self._is_aside = False
            log.warning("the detector failed (%r) and is asked again", error)

    def _has_time(self) -> bool:
        """Whether a live source's frame may be given to the detector: otherwise the delay would grow."""
        return self._job is None and self._clock() >= self._rests_until_s and self._is_idle()

    def _watch(self, info: FrameInfo) -> Watch:
        key = _key(info)
        # The one that was used last stands last.
        watch = self._watches.pop(key, None) or self._new_watch(info)
        self._watches[key] = watch
        if len(self._watches) > MOST_WATCHES:
            oldest = next(iter(self._watches))
            del self._watches[oldest]
            self._last.pop(oldest, None)
        return watch

    def _new_watch(self, info: FrameInfo) -> Watch:
        masks = of_source(self._masks, info.source_id)
        # While a live source is followed the detector looks at one of its frames, and has the other cores.
        aside = None if info.live else self._beside
        return Watch(GateSettings(masks=masks), leaves_out_overlays=self._leaves_out_overlays, aside=aside)

    def _crops(self, frame: Frame, detector: Detector, lines: list[TextLine]) -> Crops:
        masks = of_source(self._masks, frame.info.source_id)
        picture, size_wh = frame.picture.array(), frame.picture.size_wh()
        lines = [line for line in lines if not is_masked(line.polygon, masks, size_wh)]
        found = [to_region(number, line, frame.info, size_wh) for number, line in enumerate(lines)]
        regions = self._tracker.follow(frame.info, found)
        crops = tuple(
            Crop(region, tuple(map(Picture.from_array, cut_line(picture, line.polygon, line.words, detector.margin))))
            for region, line in zip(regions, lines, strict=True)
        )
        return Crops(frame.info, detector.info, crops, picture=frame.picture)


def _leave_unanswered(questions: Sequence[_Question]) -> None:
    for watch, examination in questions:
        watch.unanswered(examination)


def _key(info: FrameInfo) -> tuple[str, int]:
    return info.key, info.generation


def _rounds(indices: Sequence[int], frames: Sequence[Frame]) -> list[list[int]]:
    """Frames in rounds with at most one of each source, so that each source's are seen in their order."""
    rounds: list[list[int]] = []
    taken: dict[tuple[str, int], int] = {}
    for index in indices:
        key = _key(frames[index].info)
        number = taken.get(key, 0)
        taken[key] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(index)
    return rounds
