"""What every document store promises, on SQLite and on a real Elasticsearch."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import elasticsearch
import pytest

from ocrstream.config import ElasticsearchSettings
from ocrstream.geometry import box_polygon
from ocrstream.messages import Appearance, EngineInfo, FrameInfo, PictureRef, Region, Text, Texts, Word
from ocrstream.query import parse
from ocrstream.storage import DAY_NS, DocumentStore, Filter, SourceSummary, WriteReport
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.embedded import EmbeddedStore

T0_NS = 1_767_268_800 * 10**9 + 123_456_789  # 2026-01-01 12:00 UTC, and some nanoseconds
SECOND_NS = 10**9
DETECTOR, RECOGNIZER = EngineInfo("ppocr", "0123456789ab"), EngineInfo("ppocr", "ba9876543210")

READ_WORDS = (
    Word("Gate", box_polygon(1.5, 2.25, 30.0, 12.0), 0.987654321),
    Word("“B12\u0000”", box_polygon(34.0, 2.25, 60.125, 12.0), 0.5),
)


class Case:
    """A store under test, and how to make what was written visible at once."""

    def __init__(self, store: DocumentStore, client: elasticsearch.Elasticsearch | None, prefix: str) -> None:
        self.store = store
        self._client = client
        self._prefix = prefix

    def write(self, *batch: Texts) -> WriteReport:
        report = self.store.write(batch)
        if self._client is not None:
            self._client.indices.refresh(index=f"{self._prefix}-*")
        return report

    def find(self, query: str, where: Filter = Filter(), **options: Any) -> list[str]:  # noqa: B008 frozen
        page = self.store.search(parse(query), where, **options)
        assert len(page.hits) <= page.total
        return [hit.texts.info.frame_id for hit in page.hits]


STORES = ["embedded", "elastic"]


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest, directory: Path) -> Iterator[Case]:
    """A fresh store of a kind; its indices go when the test ends."""
    if kind == "embedded":
        with closing(EmbeddedStore(directory)) as embedded:
            yield Case(embedded, None, "")
        return
    url, prefix = request.getfixturevalue("elasticsearch_url"), f"test-{uuid.uuid4().hex[:12]}"
    with elasticsearch.Elasticsearch(url) as client:
        with closing(ElasticStore(ElasticsearchSettings(url=url, prefix=prefix))) as elastic:
            yield Case(elastic, client, prefix)
        names = list(client.indices.get(index=f"{prefix}-*"))
        if names:
            client.indices.delete(index=names)
        client.options(ignore_status=404).indices.delete_index_template(name=f"{prefix}-*")


@pytest.fixture(params=STORES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    with opened(request.param, request, tmp_path) as case:
        case.store.check()
        yield case


def frame(frame_id: str, *lines: str, at_s: float = 0.0, confidence: Sequence[float] = (), **info: Any) -> Texts:
    confidences = [*confidence, *[0.9] * len(lines)]
    frame_info = FrameInfo(
        source_id=info.pop("source_id", "cam"),
        frame_id=frame_id,
        captured_at_ns=T0_NS + int(at_s * SECOND_NS),
        width_px=1280,
        height_px=720,
        live=info.pop("live", True),
        **info,
    )
    texts = tuple(
        Text(Region(number, box_polygon(10.25, 20.0 * number, 110.5, 20.0 * number + 18), 0.8125, None), text, share)
        for number, (text, share) in enumerate(zip(lines, confidences, strict=False))
    )
    return Texts(frame_info, DETECTOR, RECOGNIZER, texts)


def appearance(
    track_id: str, text: str = "GATE", first_s: float = 0.0, last_s: float = 1.0, **fields: Any
) -> Appearance:
    values: dict[str, Any] = {
        "source_id": "cam",
        "confidence": 0.75,
        "first_at_ns": T0_NS + int(first_s * SECOND_NS),
        "last_at_ns": T0_NS + int(last_s * SECOND_NS),
        "first_ms": None,
        "last_ms": None,
        "best_frame_id": "f1",
        "readings": 3,
        "path": ((0.0, box_polygon(1.0, 2.0, 3.5, 4.0)), (40.0, box_polygon(2.0, 2.0, 4.5, 4.0))),
        "closed": False,
    }
    return Appearance(track_id=track_id, text=text, **{**values, **fields})


# Writing


def test_a_frame_comes_back_as_it_went_in(case: Case) -> None:
    region = Region(4, ((1.5, 2.25), (3.0, 2.0), (3.0, 4.75), (1.0, 4.0)), 0.625, "track-1")
    texts = Texts(
        FrameInfo(
            source_id="café/ü 1",
            frame_id="f1",
            captured_at_ns=T0_NS,
            width_px=1920,
            height_px=1080,
            live=False,
            media_time_ms=1234.5678,
            path="/pictures/ä b.png",
            segment=3,
            generation=1_767_000_000_000,
            detector="ctpn",
            recognizer="crnn",
            picture=PictureRef("ocr.frames", 5, 2**40),
        ),
        EngineInfo("ctpn", "aaaabbbbcccc"),
        EngineInfo("crnn", "ddddeeeeffff"),
        (
            Text(region, "Gate B12", 0.123456789012, READ_WORDS),
            Text(replace(region, line_number=7, track_id=None), "", 1.0),
        ),
    )
    assert case.write(texts) == WriteReport(written=1)
    assert case.store.get("f1") == texts
    assert case.store.get("other") is None
    assert list(case.store.scan(Filter())) == [texts]


def test_a_frame_without_text_is_a_frame(case: Case) -> None:
    texts = frame("f1")
    case.write(texts)
    assert case.store.get("f1") == texts
    assert case.find("") == ["f1"]
    assert case.find("", Filter(min_confidence=0.1)) == []


def test_the_same_again_changes_nothing(case: Case) -> None:
    batch = [frame("f1", "gate"), frame("f2", "gate b12")]
    for _ in range(3):
        assert case.write(*batch) == WriteReport(written=2)
    assert case.write(*batch, *batch) == WriteReport(written=4)
    assert sorted(case.find("gate")) == ["f1", "f2"]
    assert case.store.sources() == [SourceSummary("cam", 2, T0_NS, T0_NS)]


def test_a_higher_generation_supersedes_every_line(case: Case) -> None:
    case.write(frame("f1", "gate", "b12", "closed"), frame("f2", "gate"))
    newer = frame("f1", "platform", generation=2)
    assert case.write(newer) == WriteReport(written=1)
    assert case.store.get("f1") == newer
    assert case.find("closed") == []
    assert case.find("gate") == ["f2"]
    assert case.find("platform") == ["f1"]


def test_an_older_generation_changes_nothing(case: Case) -> None:
    newer = frame("f1", "platform", generation=1_767_000_000_000)
    case.write(newer)
    assert case.write(frame("f1", "gate", "b12"), frame("f2", "gate")) == WriteReport(written=1, outdated=1)
    assert case.store.get("f1") == newer
    assert case.find("gate") == ["f2"]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 3, 1)])
def test_in_one_batch_the_highest_generation_wins(case: Case, order: tuple[int, ...]) -> None:
    readings = {1: ("a", "b", "c"), 2: ("d",), 3: ("e", "f")}
    case.write(*(frame("f1", *readings[generation], generation=generation) for generation in order))
    stored = case.store.get("f1")
    assert stored is not None
    assert stored.text == "e\nf"
    assert case.find("b OR d") == []
    assert case.find("e f") == ["f1"]


def test_what_can_never_be_stored_is_refused_and_the_rest_is_stored(case: Case) -> None:
    bad = frame("bad", "gate")
    nan = replace(bad, lines=(replace(bad.lines[0], confidence=float("nan")),))
    doubled = replace(bad, lines=bad.lines * 2)
    too_late = replace(bad, info=replace(bad.info, captured_at_ns=2**63))
    report = case.write(frame("f1", "gate"), nan, doubled, too_late, frame("f2", "gate"))
    assert report.written == 2
    assert sorted(report.refused) == [1, 2, 3]
    assert "finite" in report.refused[1]
    assert "same number" in report.refused[2]
    assert "2262" in report.refused[3]
    assert sorted(case.find("")) == ["f1", "f2"]


ODD_TEXTS = {
    "empty": "",
    "long": "gate " + "x" * 10_000,
    "many words": "gate " + "ab " * 4_000,
    "quotes": 'gate "it\'s" `a` \\ %_* {"a": 1} <b>',
    "emoji": "gate 🚪👨‍👩‍👧",
    "nul": "gate\x00b12\x01",
    "lines": "gate\r\nb12\u2028c",
    "right to left": "gate שלום \u202e",
    "marks": "gate Z̸̢a̡l̛g̕o",
}


def test_odd_texts_are_kept_and_found(case: Case) -> None:
    batch = [frame(f"f{index}", text) for index, text in enumerate(ODD_TEXTS.values())]
    assert case.write(*batch) == WriteReport(written=len(batch))
    for index, text in enumerate(ODD_TEXTS.values()):
        stored = case.store.get(f"f{index}")
        assert stored is not None
        assert stored.text == text
    assert sorted(case.find("gate")) == [f"f{index}" for index in range(1, len(batch))]
    assert case.find("שלום") == ["f7"]
    assert case.find("x" * 300) == ["f1"]
    assert case.find("x" * 299) == []
    assert case.find("x" * 99 + "*") == ["f1"]


def test_lone_surrogates_become_replacement_characters(case: Case) -> None:
    texts = frame("f1", "gate \ud800 b12", source_id="cam\udc80", path="/a\udcff")
    assert case.write(texts, texts) == WriteReport(written=2)
    stored = case.store.get("f1")
    assert stored is not None
    assert (stored.text, stored.info.source_id, stored.info.path) == ("gate \ufffd b12", "cam\ufffd", "/a\ufffd")
    assert case.find("b12", Filter(sources=("cam\udc80",))) == ["f1"]


# Finding

SIGNS = {
    "gate": ("Gate B12", "München → Zürich", "BOARDING"),
    "misread": ("6ate", "B0ARD1NG", "lnf0"),
    "closed": ("Gate C4", "closed"),
    "clock": ("10:30", "2026-01-01"),
    "tokyo": ("東京駅", "Tokyo Station"),
    "wrapped": ("mind the", "gap between", "train and platform"),
    "burn": ("BURN", "modern"),
    "cafe": ("cafe",),
    "café": ("café",),
    "empty": (),
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("gate", "gate closed"),
        ("GATE", "gate closed"),
        ("gate b12", "gate"),
        ("b12 gate boarding", "gate"),
        ("gate tokyo", ""),
        ("munchen", "gate"),
        ("MÜNCHEN zurich", "gate"),
        ("boarding", "gate misread"),
        ("b0arding", "gate misread"),
        ("info", "misread"),
        ("INF0", "misread"),
        ("bum", "burn"),
        ("modem", "burn"),
        ('"gate b12"', "gate"),
        ('"b12 gate"', ""),
        ('"b12 munchen zurich boarding"', "gate"),
        ('"mind the gap"', "wrapped"),
        ('"gap between train"', "wrapped"),
        ('"mind gap"', ""),
        ("gate -closed", "gate"),
        ("-gate -cafe -tokyo", "misread clock wrapped burn empty"),
        ('gate -"gate c4"', "gate"),
        ("closed OR 10:30", "closed clock"),
        ("gate b12 OR tokyo station", "gate tokyo"),
        ("gate OR -gate", " ".join(SIGNS)),
        ("burn OR -(gate OR cafe)", "misread clock tokyo wrapped burn empty"),
        ("gate (closed OR b12)", "gate closed"),
        ("-(gate OR cafe) -wrapped*", "misread clock tokyo wrapped burn empty"),
        ("board*", "gate misread"),
        ("mor*", ""),
        ("mo*", "burn"),
        ("10:3*", "clock"),
        ("2026-01-01", "clock"),
        ("10:30", "clock"),
        ("30:10", ""),
        ("boardnig~", "gate misread"),
        ("platfrom~", "wrapped"),
        ("gaet~", "gate closed"),
        ("gtae~", "gate closed"),
        ("gte~", "gate closed"),
        ("1o:3o~", "clock"),
        ("東京", "tokyo"),
        ("京都", ""),
        ("東京駅", "tokyo"),
        ("駅 tokyo", "tokyo"),
        ("", " ".join(SIGNS)),
        ("*", " ".join(SIGNS)),
        ("nowhere", ""),
    ],
)
def test_the_query_language(signs: Case, query: str, expected: str) -> None:
    assert sorted(signs.find(query)) == sorted(expected.split())
    matching = [name for name, lines in SIGNS.items() if parse(query).match(lines) is not None]
    assert sorted(matching) == sorted(expected.split())


@pytest.fixture(params=STORES, scope="module")
def signs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A store that is only read; it was never checked, which writing makes up for."""
    with opened(request.param, request, tmp_path_factory.mktemp("signs")) as case:
        case.write(*(frame(name, *lines) for name, lines in SIGNS.items()))
        yield case


WORDS = [
    "gate",
    "gato",
    "GATE",
    "b12",
    "B1Z",
    "bl2",
    "café",
    "cafe",
    "cafes",
    "morn",
    "mom",
    "東",
    "京",
    "東京",
    "10:30",
    "a",
    "as",
]


def random_lines(generator: random.Random) -> list[str]:
    return [" ".join(generator.choices(WORDS, k=generator.randrange(4))) for _ in range(generator.randrange(4))]


def random_query(generator: random.Random, depth: int = 0) -> str:
    word = generator.choice(WORDS)
    simple = [word, word, word + "*", word[:2] + "*", word + "~", f'"{word} {generator.choice(WORDS)}"', f"-{word}"]
    if depth == 2:
        return generator.choice(simple)
    one, other = random_query(generator, depth + 1), random_query(generator, depth + 1)
    return generator.choice([*simple, f"{one} {other}", f"({one} OR {other})", f"-({one} {other})", f"({one}) {other}"])


RANDOM_FRAMES = [
    frame(f"f{n:03d}", *random_lines(random.Random(n)), at_s=n, confidence=[(n + k) % 5 / 4 for k in range(3)])
    for n in range(150)
]
RANDOM_QUERIES = sorted({random_query(random.Random(n)) for n in range(250)})


@pytest.fixture(params=STORES, scope="module")
def generated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A store that is only read, full of small generated frames."""
    with opened(request.param, request, tmp_path_factory.mktemp("generated")) as case:
        case.write(*RANDOM_FRAMES)
        yield case


def test_what_a_store_finds_is_what_the_matcher_finds(generated: Case) -> None:
    for text in RANDOM_QUERIES:
        query = parse(text)
        page = generated.store.search(query, Filter(), limit=200)
        found = {hit.texts.info.frame_id: hit.matches for hit in page.hits}
        expected = {
            t.info.frame_id: m for t in RANDOM_FRAMES if (m := query.match([x.text for x in t.lines])) is not None
        }
        assert found == expected, text
        assert (page.total, page.total_is_exact) == (len(expected), True)


@pytest.mark.parametrize("min_confidence", [0.3, 0.7])
def test_with_a_confidence_asked_for_only_confident_lines_count(generated: Case, min_confidence: float) -> None:
    for text in RANDOM_QUERIES[::3]:
        query = parse(text)
        page = generated.store.search(query, Filter(min_confidence=min_confidence), limit=200)
        found = {hit.texts.info.frame_id: hit.matches for hit in page.hits}
        expected = {}
        for texts in RANDOM_FRAMES:
            lines = [line.text if line.confidence >= min_confidence else None for line in texts.lines]
            matches = query.match(lines)
            if matches is not None and any(line is not None for line in lines):
                expected[texts.info.frame_id] = matches
        assert found == expected, text


def test_a_hit_tells_where_the_words_are(case: Case) -> None:
    case.write(frame("f1", "to the Gate", "B12 gate", "closed"))
    (hit,) = case.store.search(parse('gate "gate b12"'), Filter()).hits
    assert hit.matches == {0: ((7, 11),), 1: ((0, 3), (4, 8))}
    assert hit.texts.text == "to the Gate\nB12 gate\nclosed"
    (hit,) = case.store.search(parse("-platform"), Filter()).hits
    assert hit.matches == {}


@pytest.mark.parametrize(
    ("query", "spans"),
    [
        ("lodz", ((0, 4),)),
        ("ŁÓDŹ", ((0, 4),)),
        ('"lodz glowna"', ((0, 11),)),
        ("glow*", ((5, 11),)),
        ("kadikoy", ((14, 21),)),
    ],
)
def test_letters_of_all_europe_are_found_without_their_accents(
    case: Case, query: str, spans: tuple[tuple[int, int], ...]
) -> None:
    case.write(frame("f", "Łódź Główna → Kadıköy"))  # noqa: RUF001 the dotless i is the case
    (hit,) = case.store.search(parse(query), Filter()).hits
    assert hit.matches == {0: spans}


def test_matches_are_named_by_line_number(case: Case) -> None:
    texts = frame("f1", "gate", "b12")
    first, second = texts.lines
    second = replace(second, region=replace(second.region, line_number=9))
    case.write(replace(texts, lines=(first, second)))
    (hit,) = case.store.search(parse("b12"), Filter()).hits
    assert hit.matches == {9: ((0, 3),)}


def test_filters(case: Case) -> None:
    case.write(
        frame("a0", "gate", at_s=0, source_id="a"),
        frame("a1", "gate", at_s=1, source_id="a", confidence=[0.25]),
        frame("b1", "gate", at_s=1, source_id="b"),
        frame("b2", "gate", "b12", at_s=2, source_id="b", confidence=[0.5, 0.25]),
    )
    second = [T0_NS + n * SECOND_NS for n in range(4)]
    expected = {
        Filter(): "a0 a1 b1 b2",
        Filter(sources=("a",)): "a0 a1",
        Filter(sources=("a", "b")): "a0 a1 b1 b2",
        Filter(sources=("c",)): "",
        Filter(since_ns=second[1]): "a1 b1 b2",
        Filter(since_ns=second[1] + 1): "b2",
        Filter(until_ns=second[1]): "a0",
        Filter(until_ns=second[1] + 1): "a0 a1 b1",
        Filter(since_ns=second[1], until_ns=second[2], sources=("b",)): "b1",
        Filter(since_ns=-(2**70), until_ns=2**70): "a0 a1 b1 b2",
        Filter(min_confidence=0.25): "a0 a1 b1 b2",
        Filter(min_confidence=0.5): "a0 b1 b2",
        Filter(min_confidence=0.75): "a0 b1",
    }
    for where, names in expected.items():
        assert sorted(case.find("gate", where)) == names.split(), where
        assert sorted(case.find("", where)) == names.split(), where
        assert sorted(case.find("-platform", where)) == names.split(), where
        assert sorted(texts.info.frame_id for texts in case.store.scan(where)) == names.split(), where
    assert case.find("gate b12", Filter(min_confidence=0.25)) == ["b2"]
    assert case.find("gate b12", Filter(min_confidence=0.5)) == []
    assert sorted(case.find("gate -b12", Filter(min_confidence=0.5))) == ["a0", "b1", "b2"]


def test_pages_follow_each_other(case: Case) -> None:
    case.write(*(frame(f"f{n:02d}", "gate", confidence=[n % 2], at_s=n) for n in range(25)))
    newest = [f"f{n:02d}" for n in reversed(range(25))]
    for query in ("gate", "", "-closed"):
        pages = [case.find(query, limit=10, offset=offset) for offset in (0, 10, 20, 30)]
        assert pages == [newest[:10], newest[10:20], newest[20:], []], query
        page = case.store.search(parse(query), Filter(), limit=0)
        assert (page.hits, page.total, page.total_is_exact) == ((), 25, True)
    sure = Filter(min_confidence=0.5)
    assert [case.find("gate", sure, limit=8, offset=offset) for offset in (0, 8)] == [
        newest[1::2][:8],
        newest[1::2][8:],
    ]
    page = case.store.search(parse("gate"), sure, limit=5)
    assert not page.total_is_exact
    assert page.total > 5
    page = case.store.search(parse("gate"), sure, limit=5, offset=10)
    assert (page.total, page.total_is_exact) == (12, True)


def test_newest_first(case: Case) -> None:
    case.write(
        frame("old", "gate", at_s=0),
        frame("new", "and a gate among many other words", at_s=2),
        frame("mid", "gate", at_s=1),
    )
    assert case.find("gate", newest_first=True) == ["new", "mid", "old"]
    assert case.find("gate", Filter(min_confidence=0.1), newest_first=True) == ["new", "mid", "old"]
    assert case.find("") == ["new", "mid", "old"]
    assert case.find("gate") == ["mid", "old", "new"]


def test_what_stands_there_as_typed_comes_first(case: Case) -> None:
    filler = [frame(f"x{n}", "platform") for n in range(20)]
    case.write(
        *filler,
        frame("folded", "cafe", at_s=9),
        frame("exact", "opposite the old Café and the market", at_s=1),
        frame("misread", "B0ARDING", at_s=9),
        frame("boarding", "now boarding at all gates", at_s=1),
        frame("b12", "gate B12 and some more words", at_s=1),
        frame("bl2", "gate BL2", at_s=9),
        frame("price", "only 3.50 today for everybody", at_s=1),
        frame("prices", "3.5O", at_s=9),
    )
    assert case.find("café") == ["exact", "folded"]
    assert case.find("cafe") == ["folded", "exact"]
    assert case.find("boarding") == ["boarding", "misread"]
    assert case.find("boar*") == ["boarding", "misread"]
    assert case.find("boarding~") == ["boarding", "misread"]
    assert case.find("gate b12") == ["b12", "bl2"]
    assert case.find("gate -closed b12") == ["b12", "bl2"]
    assert case.find("nowhere OR café") == ["exact", "folded"]
    assert case.find("3.50") == ["price", "prices"]


def test_scores_fall_along_a_page(case: Case) -> None:
    case.write(*(frame(f"f{n}", "gate " * (n % 4 + 1), "word " * n, at_s=n) for n in range(20)))
    hits = case.store.search(parse("gate"), Filter()).hits
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].score > 0


# Going through all


def test_a_scan_goes_by_source_and_capture_time(case: Case) -> None:
    frames = [frame(f"f{n:04d}", f"word{n}", at_s=-n / 1000, source_id=f"cam{n % 2}") for n in range(1201)]
    case.write(*frames)
    expected = sorted(frames, key=lambda texts: (texts.info.source_id, texts.info.captured_at_ns))
    assert list(case.store.scan(Filter())) == expected
    assert list(case.store.scan(Filter(sources=("cam1",)))) == expected[601:]


def test_the_last_frame_is_where_a_file_goes_on(case: Case) -> None:
    # A file's frames are captured when it was recorded; its place is its media time.
    case.write(
        frame("m1", at_s=1, source_id="file", media_time_ms=2000.0),
        frame("m2", at_s=9, source_id="file", media_time_ms=1000.0),
        frame("s1", at_s=1, source_id="file", media_time_ms=9000.0, segment=1),
        frame("s0", at_s=1, source_id="file", media_time_ms=5000.0, segment=0),
        frame("c1", at_s=5, source_id="cam"),
        frame("c2", at_s=4, source_id="cam"),
    )

    def last(source_id: str, segment: int | None = None) -> str | None:
        texts = case.store.last_frame(source_id, segment)
        return texts.info.frame_id if texts else None

    assert last("file") == "m1"
    assert last("file", 0) == "s0"
    assert last("file", 1) == "s1"
    assert last("file", 2) is None
    assert last("cam") == "c1"
    assert last("nobody") is None


def test_sources_are_counted(case: Case) -> None:
    assert case.store.sources() == []
    case.write(
        frame("a1", at_s=0, source_id="b cam"),
        frame("a2", at_s=7.5, source_id="b cam"),
        frame("b1", at_s=3, source_id="a"),
    )
    assert case.store.sources() == [
        SourceSummary("a", 1, T0_NS + 3 * SECOND_NS, T0_NS + 3 * SECOND_NS),
        SourceSummary("b cam", 2, T0_NS, T0_NS + int(7.5 * SECOND_NS)),
    ]


def test_an_empty_store_answers(case: Case) -> None:
    assert case.find("gate") == []
    assert case.find("") == []
    assert list(case.store.scan(Filter())) == []
    assert list(case.store.appearances(Filter())) == []
    assert case.store.get("f1") is None
    assert case.store.last_frame("cam") is None
    assert case.store.drop_before(2**62) == 0
    assert case.store.write([]) == WriteReport()


# Appearances


def with_appearances(texts: Texts, *appearances: Appearance) -> Texts:
    return replace(texts, appearances=appearances)


def test_an_appearance_comes_back_as_it_went_in_and_later_sightings_win(case: Case) -> None:
    first = appearance("t1", first_ms=40.0, last_ms=1040.5)
    case.write(with_appearances(frame("f1"), first, appearance("t2", "closed")))
    assert list(case.store.appearances(Filter())) == [first, appearance("t2", "closed")]
    # The second frame's reading is of the same second, and both come in one batch.
    later, latest = replace(first, last_at_ns=first.last_at_ns + 1), replace(first, last_at_ns=first.last_at_ns + 2)
    case.write(with_appearances(frame("f2"), later), with_appearances(frame("f3"), replace(latest, text="GATE 12")))
    case.write(with_appearances(frame("f4"), later))
    case.write(with_appearances(frame("f2"), first))
    assert next(iter(case.store.appearances(Filter()))) == replace(latest, text="GATE 12")


def test_a_higher_generation_of_an_appearance_wins_over_later_sightings(case: Case) -> None:
    case.write(with_appearances(frame("f1"), appearance("t1", last_s=500)))
    again = appearance("t1", "gate", last_s=5, generation=1_767_000_000_000)
    case.write(with_appearances(frame("f1"), again))
    case.write(with_appearances(frame("f2"), appearance("t1", last_s=900)))
    assert list(case.store.appearances(Filter())) == [again]
    newer = appearance("t1", "gate!", last_s=4, generation=1_767_000_001_000)
    case.write(with_appearances(frame("f3"), newer))
    assert list(case.store.appearances(Filter())) == [newer]


def second(number: int, *lines: str, **changes: Any) -> Texts:
    """The frame of a second, called after it; its lines belong to the track ``t1``."""
    texts = frame(f"f{number}", *lines, at_s=number, **changes)
    tracked = (replace(line, region=replace(line.region, track_id="t1")) for line in texts.lines)
    return replace(texts, lines=tuple(tracked))


def seen(case: Case) -> list[tuple[str, int, float, float, str]]:
    """Text, generation, first and last second (to the millisecond) and best frame of the appearances, by time."""
    found = sorted(case.store.appearances(Filter()), key=lambda a: a.first_at_ns)
    for appearance in found:
        assert appearance.path
        assert appearance.readings >= 1
    return [(a.text, a.generation, to_s(a.first_at_ns), to_s(a.last_at_ns), a.best_frame_id) for a in found]


def to_s(at_ns: int) -> float:
    return round((at_ns - T0_NS) / SECOND_NS, 3)


AGAIN = 1_767_300_000_000


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("best", ["f2", "f4", "f7"])
def test_a_replay_of_a_part_cuts_an_appearance_that_reaches_beyond_it(case: Case, best: str, at_once: bool) -> None:
    old = appearance("t1", "GATE B1Z", first_s=0, last_s=9, best_frame_id=best, readings=10)
    case.write(*(second(n, "GATE B1Z") for n in range(9)), with_appearances(second(9, "GATE B1Z"), old))
    again = [second(n, "GATE B12", generation=AGAIN) for n in range(3, 6)]
    new = appearance("f3-000", "GATE B12", first_s=3, last_s=5, best_frame_id="f4", generation=AGAIN)
    again[-1] = with_appearances(again[-1], new)
    for batch in [again] if at_once else [[texts] for texts in again]:
        case.write(*batch)
    expected = [
        ("GATE B1Z", 1, 0.0, 3.0, "f2" if best == "f2" else "f0"),
        ("GATE B12", AGAIN, 3.0, 5.0, "f4"),
        ("GATE B1Z", 1, 5.0, 9.0, "f7" if best == "f7" else "f6"),
    ]
    assert seen(case) == expected
    before, _, behind = sorted(case.store.appearances(Filter()), key=lambda a: a.first_at_ns)
    assert (before.track_id, before.last_at_ns, before.closed) == ("t1", T0_NS + 3 * SECOND_NS - 1, True)
    assert (behind.track_id, behind.first_at_ns, behind.closed) == ("t1+f5", T0_NS + 5 * SECOND_NS + 1, False)
    assert (before.readings, behind.readings) == (3, 4)
    case.write(*again)
    assert seen(case) == expected


def test_a_text_that_is_still_in_view_goes_on_behind_what_was_read_again(case: Case) -> None:
    old = appearance("t1", first_s=0, last_s=4, best_frame_id="f0")
    case.write(*(second(n, "GATE") for n in range(4)), with_appearances(second(4, "GATE"), old))
    new = appearance("f1-000", "GATE!", first_s=1, last_s=2, best_frame_id="f1", generation=AGAIN)
    case.write(second(1, "GATE!", generation=AGAIN), with_appearances(second(2, "GATE!", generation=AGAIN), new))
    later = replace(old, last_at_ns=T0_NS + 8 * SECOND_NS, closed=True)
    case.write(with_appearances(second(8, "GATE"), later))
    expected = [
        ("GATE", 1, 0.0, 1.0, "f0"),
        ("GATE!", AGAIN, 1.0, 2.0, "f1"),
        ("GATE", 1, 2.0, 8.0, "f3"),
    ]
    assert seen(case) == expected
    assert [a.closed for a in case.store.appearances(Filter()) if a.track_id == "t1+f2"] == [True]
    case.write(with_appearances(second(4, "GATE"), old))
    assert seen(case) == expected


def test_an_appearance_that_comes_after_the_replay_is_cut_likewise(case: Case) -> None:
    case.write(*(second(n, "GATE") for n in range(10)))
    case.write(*(second(n, "GATE!", generation=AGAIN) for n in (2, 3, 7)))
    case.write(with_appearances(second(9, "GATE"), appearance("t1", first_s=0, last_s=9, best_frame_id="f3")))
    parts = [(0.0, 2.0, "f0"), (3.0, 7.0, "f4"), (7.0, 9.0, "f8")]
    assert [(first, last, best) for _, _, first, last, best in seen(case)] == parts


def test_what_is_left_holds_the_readings_that_are_left_and_what_shows_nothing_is_gone(case: Case) -> None:
    old = appearance("t1", first_s=0, last_s=9, best_frame_id="f0", readings=9)
    # In second 5 nothing was read.
    frames = [second(n, *(["GATE"] if n != 5 else [])) for n in range(10)]
    case.write(*frames[:-1], with_appearances(frames[-1], old))

    def read_again(first: int, last: int, generation: int) -> None:
        # Read as often as before; the track has the same name, as where it begins in the same frame.
        texts = [second(n, *(["GATE"] if n != 5 else []), generation=generation) for n in range(first, last + 1)]
        count = sum(len(found.lines) for found in texts)
        new = appearance(f"t1~f{first}", first_s=first, last_s=last, readings=count, generation=generation)
        case.write(*texts[:-1], with_appearances(texts[-1], replace(new, best_frame_id=f"f{first}")))

    def spans() -> list[tuple[float, float, int]]:
        found = sorted(case.store.appearances(Filter()), key=lambda a: a.first_at_ns)
        assert sum(a.readings for a in found) == 9
        return [(to_s(a.first_at_ns), to_s(a.last_at_ns), a.readings) for a in found]

    read_again(2, 4, AGAIN)
    assert spans() == [(0.0, 2.0, 2), (2.0, 4.0, 3), (4.0, 9.0, 4)]
    read_again(6, 7, AGAIN + 1000)
    assert spans() == [(0.0, 2.0, 2), (2.0, 4.0, 3), (6.0, 7.0, 2), (7.0, 9.0, 2)]
    read_again(4, 6, AGAIN + 2000)
    assert spans() == [(0.0, 2.0, 2), (2.0, 4.0, 2), (4.0, 6.0, 2), (6.0, 7.0, 1), (7.0, 9.0, 2)]


def test_a_text_in_view_behind_what_was_read_again_goes_on_with_its_own_readings(case: Case) -> None:
    old = appearance("t1", first_s=0, last_s=3, best_frame_id="f0", readings=4)
    case.write(*(second(n, "GATE") for n in range(3)), with_appearances(second(3, "GATE"), old))
    new = appearance("t1~f0", first_s=0, last_s=2, best_frame_id="f0", readings=3, generation=AGAIN)
    read_again = [second(n, "GATE", generation=AGAIN) for n in range(3)]
    case.write(*read_again[:-1], with_appearances(read_again[-1], new))
    for n in range(4, 8):
        later = replace(old, last_at_ns=T0_NS + n * SECOND_NS, readings=n + 1)
        # Not by `case.write`: no refresh comes in between.
        case.store.write([with_appearances(second(n, "GATE"), later)])
    case.write(second(8))
    found = sorted(case.store.appearances(Filter()), key=lambda a: a.first_at_ns)
    assert [(a.generation, a.readings) for a in found] == [(AGAIN, 3), (1, 5)]


def test_what_was_read_again_as_a_whole_is_gone_and_stays_gone(case: Case) -> None:
    old = appearance("t1", first_s=0, last_s=3, best_frame_id="f0")
    case.write(*(second(n, "GATE") for n in range(3)), with_appearances(second(3, "GATE"), old))
    # The picture of second 1 is no longer kept; nothing is seen in the others.
    for n in (0, 2, 3):
        case.write(second(n, generation=AGAIN))
    assert seen(case) == []
    case.write(with_appearances(second(3, "GATE"), old))
    assert seen(case) == []


def test_a_replay_leaves_other_times_and_sources_alone(case: Case) -> None:
    before, behind = appearance("a", first_s=0, last_s=1), appearance("b", first_s=4, last_s=5)
    elsewhere = appearance("c", first_s=0, last_s=9, source_id="hall")
    case.write(with_appearances(second(5, "GATE"), before, behind, elsewhere))
    case.write(*(second(n, generation=AGAIN) for n in (2, 3)))
    assert sorted(case.store.appearances(Filter()), key=lambda a: a.track_id) == [before, behind, elsewhere]


def test_what_is_not_closed_is_found(case: Case) -> None:
    a, b = appearance("a"), appearance("b", first_s=2, last_s=3, closed=True)
    case.write(with_appearances(second(3, "GATE"), a, b, appearance("c", source_id="aisle")))
    assert [found.track_id for found in case.store.unfinished()] == ["c", "a"]
    case.write(with_appearances(second(3, "GATE"), replace(a, closed=True)))
    assert [found.track_id for found in case.store.unfinished()] == ["c"]


def test_appearances_are_filtered_by_overlap(case: Case) -> None:
    items = [
        appearance("t1", first_s=0, last_s=10),
        appearance("t2", first_s=5, last_s=6, confidence=0.5),
        appearance("t3", first_s=8, last_s=20, source_id="a"),
    ]
    case.write(with_appearances(frame("f1"), *items))

    def tracks(**where: Any) -> str:
        return " ".join(a.track_id for a in case.store.appearances(Filter(**where)))

    assert tracks() == "t3 t1 t2"
    assert tracks(sources=("cam",)) == "t1 t2"
    assert tracks(since_ns=T0_NS + 7 * SECOND_NS) == "t3 t1"
    assert tracks(until_ns=T0_NS + 5 * SECOND_NS) == "t1"
    assert tracks(since_ns=T0_NS + 10 * SECOND_NS, until_ns=T0_NS + 11 * SECOND_NS) == "t3 t1"
    assert tracks(min_confidence=0.75) == "t3 t1"


# Retention


def test_retention_drops_whole_days(case: Case) -> None:
    day_ns = T0_NS // DAY_NS * DAY_NS
    case.write(
        frame("d0", "gate", at_s=-86_400),
        with_appearances(frame("d1", "gate"), appearance("t1"), appearance("t2", first_s=86_400, last_s=86_401)),
        frame("d1 late", "gate", at_s=11 * 3600),
        frame("d2", "gate", at_s=86_400),
    )
    assert case.store.drop_before(day_ns - DAY_NS) == 0
    assert case.store.drop_before(day_ns + DAY_NS - 1) == 1
    assert sorted(case.find("gate")) == ["d1", "d1 late", "d2"]
    assert case.store.drop_before(day_ns + DAY_NS) == 1
    assert case.find("gate") == ["d2"]
    assert [a.track_id for a in case.store.appearances(Filter())] == ["t2"]
    assert case.store.get("d1") is None
    assert case.store.drop_before(day_ns + DAY_NS) == 0
    # What has gone can be read again.
    case.write(frame("d1", "gate"))
    assert case.find("gate") == ["d2", "d1"]
