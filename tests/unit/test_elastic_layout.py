"""Documents, versions and times as Elasticsearch gets them."""

import itertools

import pytest

from ocrstream.geometry import box_polygon
from ocrstream.messages import Appearance
from ocrstream.storage.elastic_layout import appearance_version, from_iso, index_name, region_id, to_iso

NOW_NS = 1_767_268_800_123_456_789


def version(generation: int, last_at_ns: int) -> int:
    path = ((0.0, box_polygon(0, 0, 1, 1)),)
    return appearance_version(
        Appearance("t", "cam", "x", 1.0, 0, last_at_ns, None, None, "f", 1, path, False, generation)
    )


def test_versions_rise_with_the_generation_and_then_with_the_last_sighting() -> None:
    generations = [1, 2, 999, 1000, 1_600_000_000_000, 1_767_268_800_000, 1_767_268_801_000, 4_000_000_000_000]
    sightings = [0, 10**9, NOW_NS, NOW_NS + 10**9, 2**63 - 1]
    versions = [version(generation, last) for generation, last in itertools.product(generations, sightings)]
    # The last sighting of all lies beyond 32 bits of seconds, where it stays at the end of its generation.
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)
    assert versions[0] >= 0
    assert versions[-1] < 2**63


def test_no_generation_leaves_63_bits() -> None:
    assert version(2**63 - 1, 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("time_ns", [0, 1, 999_999_999, NOW_NS, 2**63 - 1])
def test_times_keep_their_nanoseconds(time_ns: int) -> None:
    assert from_iso(to_iso(time_ns)) == time_ns


def test_times_beyond_the_type_become_its_ends() -> None:
    assert to_iso(-5) == "1970-01-01T00:00:00.000000000Z"
    assert to_iso(2**70) == to_iso(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"


def test_a_document_lies_in_the_index_of_its_day() -> None:
    assert index_name("ocr", "frames", NOW_NS) == "ocr-frames-2026.01.01"
    assert index_name("ocr", "regions", NOW_NS // (86_400 * 10**9) * 86_400 * 10**9 - 1) == "ocr-regions-2025.12.31"


def test_lines_sort_by_id_as_they_read() -> None:
    assert [region_id("f", number) for number in (0, 12, 999, 1000)] == ["f-000", "f-012", "f-999", "f-1000"]
