from __future__ import annotations

import math

import pytest

from ocrstream.config import ProducerSettings
from ocrstream.errors import ConfigError, SourceError
from producers.sampling import Sampler, Span, View, parse_time_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("0", 0.0), ("90.5", 90_500.0), ("1:30", 90_000.0), ("1:02:03.25", 3_723_250.0), ("100:00:00", 3.6e8)],
)
def test_times(text: str, expected: float | None) -> None:
    assert parse_time_ms(text, "--start") == expected


@pytest.mark.parametrize("text", ["abc", "-5", "1:2:3:4", "1:", "1e3", "5s", "nan"])
def test_no_times(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--end: .* is no time; write seconds"):
        parse_time_ms(text, "--end")


def test_a_span_needs_an_end_behind_its_start() -> None:
    assert Span.of(ProducerSettings()) == Span(0, math.inf)
    assert Span.of(ProducerSettings(start="2", end="0:03")) == Span(2000, 3000)
    with pytest.raises(ConfigError, match="--end 2 is not behind --start 2"):
        Span.of(ProducerSettings(start="2", end="2"))


def test_parts_of_a_span() -> None:
    assert Span(1000, math.inf).parts(2, 5000, 0) == [Span(1000, 3000), Span(3000, math.inf)]
    assert Span(0, 2000).parts(2, 5000, 0) == [Span(0, 1000), Span(1000, 2000)]
    assert Span(0, 3000).parts(2, 5000, 1) == [Span(0, 2000), Span(2000, 3000)]
    assert Span(0, 100).parts(4, 5000, 1) == [Span(0, 1000)] or Span(0, 100).parts(4, 5000, 1) == [Span(0, 100)]


def taken(sampler: Sampler, times_ms: list[float]) -> list[float]:
    return [time_ms for time_ms in times_ms if sampler.takes(time_ms)]


def test_every_nth_frame() -> None:
    assert taken(Sampler(every=3), [0, 10, 20, 30, 40, 50, 60]) == [0, 30, 60]


def test_a_rate_cap_takes_the_first_frame_of_each_cell() -> None:
    times_ms = [round(index * 1000 / 30, 3) for index in range(60)]
    assert taken(Sampler(fps=10), times_ms) == times_ms[::3]
    assert len(taken(Sampler(fps=7), times_ms)) == 14
    assert taken(Sampler(fps=100), times_ms) == times_ms
    assert taken(Sampler(fps=2), [0, 100, 700, 2600, 2700, 3100]) == [0, 700, 2600, 3100]


def test_the_choice_does_not_depend_on_where_reading_begins() -> None:
    times_ms = [round(index * 1001 / 30, 3) for index in range(900)]
    whole = taken(Sampler(fps=3), times_ms)
    for start in whole[1::7]:
        assert taken(Sampler(fps=3), times_ms[times_ms.index(start) :]) == whole[whole.index(start) :]


def test_every_and_rate_together() -> None:
    assert taken(Sampler(fps=10, every=2), [0, 50, 60, 120, 150, 180, 210]) == [0, 150, 210]


def test_views() -> None:
    view = View.of(ProducerSettings(roi="10, 20, 300, 100", resize="150x150"))
    assert view == View((10, 20, 300, 100), (150, 150))
    assert view.box(640, 480) == (10, 20, 300, 100)
    assert view.output_wh(640, 480) == (150, 50)
    assert not view.is_whole
    assert View.of(ProducerSettings()).is_whole


def test_a_resize_keeps_the_aspect_and_never_enlarges() -> None:
    view = View.of(ProducerSettings(resize="1280X720"))
    assert view.output_wh(1920, 1080) == (1280, 720)
    assert view.output_wh(1080, 1920) == (405, 720)
    assert view.output_wh(640, 480) == (640, 480)
    assert View(limit_wh=(100, 100)).output_wh(10_000, 5) == (100, 1)


def test_a_region_must_lie_in_the_frame() -> None:
    with pytest.raises(SourceError, match="the region 600,0,100,100 reaches outside the frame of 640x480 pixels"):
        View((600, 0, 100, 100)).box(640, 480)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roi": "1,2,3"}, "--roi: expected X,Y,WIDTH,HEIGHT"),
        ({"roi": "-1,0,5,5"}, "--roi: expected X,Y,WIDTH,HEIGHT"),
        ({"roi": "0,0,0,5"}, "--roi: the size is empty"),
        ({"resize": "big"}, "--resize: expected WIDTHxHEIGHT"),
        ({"resize": "0x100"}, "--resize: the size is empty"),
    ],
)
def test_views_that_cannot_be_read(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        View.of(ProducerSettings(**settings))  # type: ignore[arg-type]
