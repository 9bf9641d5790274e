"""The benchmarks' own arithmetic: percentiles, ratios, slopes, and what a made-up hall of signs holds."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recording
from benchmarks.environment import environment
from benchmarks.memory import slope_of, summary
from benchmarks.recording import as_lines, conclude, median_ratio, percentiles
from benchmarks.throughput import NEEDLE, REGIONS_A_FRAME, Hall, padded_jpeg
from ocrstream.messages import Texts
from ocrstream.picture import Picture


def test_percentiles_lie_between_their_neighbours() -> None:
    assert percentiles([1.0, 2.0, 3.0, 4.0, 10.0], (50, 75, 90)) == {
        "p50": 3.0,
        "p75": 4.0,
        "p90": 7.6,
        "max": 10.0,
        "count": 5,
    }


def test_a_slow_round_slows_both_and_changes_no_ratio() -> None:
    assert median_ratio([80.0, 8.0, 90.0], [100.0, 10.0, 100.0]) == 0.8


def test_the_slope_of_a_line_is_exact() -> None:
    slope = slope_of([0, 1800, 3600, 5400], [100, 106, 112, 118])
    assert (slope.mb_per_h, slope.error_mb_per_h) == (12.0, 0.0)


def test_the_error_covers_noise_without_a_slope() -> None:
    noise = np.random.default_rng(3).normal(0, 1, 97)
    slope = slope_of(list(np.linspace(0, 480, 97)), list(600 + noise))
    # Standard error of a fit to independent noise: sigma / sqrt(sum of squared distances in time).
    expected = 1 / np.sqrt(((np.linspace(0, 480, 97) / 3600 - 240 / 3600) ** 2).sum())
    assert slope.error_mb_per_h == pytest.approx(expected, rel=0.35)
    assert abs(slope.mb_per_h) < 3 * slope.error_mb_per_h


def test_the_error_grows_where_neighbours_are_alike() -> None:
    times_s = list(np.linspace(0, 480, 97))
    sawtooth = [600 + (number % 24) for number in range(97)]
    shuffled = list(np.random.default_rng(1).permutation(sawtooth))
    assert slope_of(times_s, sawtooth).error_mb_per_h > 2 * slope_of(times_s, shuffled).error_mb_per_h


def test_the_warm_up_is_no_part_of_the_slope() -> None:
    samples = [(at_s, 500.0 + at_s if at_s < 120 else 650.0) for at_s in map(float, range(0, 605, 5))]
    figures = summary(samples, minutes=10)
    assert figures["mb_at"] == {"1 min": 560.0, "2 min": 650.0, "5 min": 650.0, "10 min": 650.0}
    assert (figures["slope_mb_per_h"], figures["highest_mb"]) == (0.0, 650.0)


def test_figures_are_readable_and_kept_by_day_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    machine = {"date": "2026-01-01T09:41:00Z", "commit": "0123456789ab"}
    figures = {"rates": {"ours": [1.5, 2.5]}, "ratio": 0.9, "delay_s": {"p50": 1.2, "p99": 3.4}}
    conclude("latency", machine, figures, save=True)
    kept = json.loads((tmp_path / "latency-2026-01-01-0123456789ab.json").read_text())
    assert kept == {"environment": machine, "figures": figures}
    assert as_lines({"figures": figures}) == [
        "figures:",
        "  rates:",
        "    ours: 1.5 2.5",
        "  ratio: 0.9",
        "  delay_s: p50 1.2, p99 3.4",
    ]
    assert "  delay_s: p50 1.2, p99 3.4" in capsys.readouterr().out
    # Another run, with other options, does not take its place.
    conclude("latency", machine, {"ratio": 0.8}, save=True)
    assert json.loads((tmp_path / "latency-2026-01-01-0123456789ab-1.json").read_text())["figures"] == {"ratio": 0.8}
    assert json.loads((tmp_path / "latency-2026-01-01-0123456789ab.json").read_text())["figures"] == figures


def test_a_result_says_where_it_was_made() -> None:
    known = environment("numpy", "no-such-package")
    assert known["numpy"] == np.__version__
    assert known["no-such-package"] == "not installed"
    assert {"commit", "date", "command", "processor", "cores", "memory_gib", "load_before", "system"} <= set(known)


def test_the_hall_is_what_the_recogniser_hands_on() -> None:
    hall = Hall()
    frames = [hall.next_frame() for _ in range(400)]
    assert hall.needles == sum(_holds_needle(texts) for texts in frames) == 8
    assert {len(texts.lines) for texts in frames} == {REGIONS_A_FRAME}
    assert len({texts.info.frame_id for texts in frames}) == 400
    # Ten signs a camera at first; in 100 frames each camera's signs change once, and some twice.
    tracks = {line.region.track_id for texts in frames for line in texts.lines}
    assert len(tracks) == len({a.track_id for texts in frames for a in texts.appearances}) == 4 * 22


def _holds_needle(texts: Texts) -> bool:
    return any(line.text.startswith(NEEDLE) for line in texts.lines)


def test_the_padded_jpeg_is_still_a_picture() -> None:
    jpeg = padded_jpeg(100_000)
    assert len(jpeg) == 100_000
    assert Picture.from_encoded(jpeg).array().shape == (720, 1280, 3)
