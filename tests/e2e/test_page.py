"""The search page in a real browser, over the real store and the real folder of pictures."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, expect

from ocrstream.errors import StoreError
from ocrstream.messages import Texts
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.storage.frames import FrameStore
from search.asking import PAGE_SIZE
from search.pictures import StoredPictures
from search.server import PageServer
from search.web import Status, build_app
from tests.documents import frame, line, picture
from tests.services.browser import Window


class Shop:
    """A page over real stores, with a pipeline's counts beside it."""

    def __init__(self, directory: Path) -> None:
        self.store = EmbeddedStore(directory)
        self.store.check()
        self.frames = FrameStore(directory / "frames", max_bytes=10**8)
        self.status = Status(frames_in=1200, frames_read=300, frames_dropped=7, delay_s=0.25, texts_per_s=12.5)
        app = build_app(self.store, StoredPictures(self.frames), status=lambda: self.status)
        self.server = PageServer(app, port=0)
        self.server.start()

    def add(self, *frames: Texts) -> None:
        self.store.write(frames)
        for texts in frames:
            info = texts.info
            self.frames.put(info.frame_id, info.captured_at_ns, picture(info.width_px, info.height_px))

    def address(self, path: str = "/") -> str:
        return self.server.address + path

    def close(self) -> None:
        self.server.stop()
        self.store.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


GATE = frame("camera:hall", 1, "GATE B12", line(1, "BOARDING now", 0.62), line(2, "Last call", 0.95))
CAFE = frame("cafe.mp4", 61.2, "CAFE ORBIT", "Espresso 2.40", media=True)
TALL = frame("phone", 5, line(0, "UPRIGHT", polygon=((50, 300), (150, 280), (156, 320), (56, 340))), width_px=240, height_px=480)  # fmt: skip  # noqa: E501


def is_loaded(image: Locator) -> None:
    """Wait until an image's pixels are there."""
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.naturalWidth") > 0


def search(page: Page, words: str) -> None:
    page.get_by_role("searchbox").fill(words)
    page.keyboard.press("Enter")


def arrive(page: Page, address: str | re.Pattern[str]) -> None:
    """Wait until a page is there with its script, which what comes next is about."""
    expect(page).to_have_url(address)
    page.wait_for_load_state("load")


def parameters(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


@pytest.fixture(autouse=True)
def is_well_behaved(window: Window, shop: Shop) -> Iterator[None]:
    """No page complains on its console, and none asks another host for anything."""
    yield
    assert window.errors == []
    assert window.hosts <= {urlsplit(shop.server.address).netloc}


def test_typing_finds_the_words_and_shows_where_they_are(window: Window, shop: Shop) -> None:
    shop.add(GATE, CAFE)
    page = window.page
    page.goto(shop.address())
    # The box has the focus: one types at once.
    page.keyboard.type("b12")
    page.keyboard.press("Enter")
    expect(page).to_have_url(shop.address("/?q=b12"))
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card mark")).to_have_text("B12")
    expect(page.locator("#total")).to_have_text("1 frame")
    is_loaded(page.locator(".card img"))
    boxes = page.locator(".card polygon.found")
    expect(boxes).to_have_count(1)
    assert_box(page.locator(".card .shot"), boxes, (100, 50, 300, 90), (640, 360))


def assert_box(
    shot: Locator, polygon: Locator, expected: tuple[float, float, float, float], size_wh: tuple[int, int]
) -> None:
    """See that a polygon lies where its pixels are in the picture, which is fitted into the shot and centred."""
    area, box = (
        shot.bounding_box(),
        polygon.evaluate("""
        shape => {
            const box = shape.getBBox(), matrix = shape.getScreenCTM();
            const from = new DOMPoint(box.x, box.y).matrixTransform(matrix);
            const to = new DOMPoint(box.x + box.width, box.y + box.height).matrixTransform(matrix);
            return [from.x, from.y, to.x, to.y];
        }"""),
    )
    assert area is not None
    scale = min(area["width"] / size_wh[0], area["height"] / size_wh[1])
    left = area["x"] + (area["width"] - size_wh[0] * scale) / 2
    top = area["y"] + (area["height"] - size_wh[1] * scale) / 2
    x0, y0, x1, y1 = expected
    assert box == pytest.approx([left + x0 * scale, top + y0 * scale, left + x1 * scale, top + y1 * scale], abs=1.5)


def test_boxes_fit_a_picture_that_is_taller_than_its_card(window: Window, shop: Shop) -> None:
    shop.add(TALL)
    page = window.page
    page.goto(shop.address("/?q=upright"))
    is_loaded(page.locator(".card img"))
    assert_box(page.locator(".card .shot"), page.locator(".card polygon.found"), (50, 280, 156, 340), (240, 480))
    page.locator(".card a.picture").click()
    is_loaded(page.locator("figure img"))
    assert_box(page.locator("figure .shot"), page.locator("figure polygon.found"), (50, 280, 156, 340), (240, 480))


def test_boxes_stay_in_place_on_a_phone(window: Window, shop: Shop) -> None:
    shop.add(GATE)
    page = window.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(shop.address("/?q=gate"))
    is_loaded(page.locator(".card img"))
    assert_box(page.locator(".card .shot"), page.locator(".card polygon.found"), (100, 50, 300, 90), (640, 360))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".card a.picture").click()
    arrive(page, re.compile("/frame/"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_frame_page_shows_every_line(window: Window, shop: Shop) -> None:
    shop.add(GATE)
    page = window.page
    page.goto(shop.address("/?q=call&min_confidence=0.9"))
    page.locator(".card a.picture").click()
    arrive(page, re.compile("/frame/"))
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tbody tr").nth(1)).to_contain_text("62 %")
    expect(page.locator("mark")).to_have_text("call")
    page.locator("tbody tr").first.focus()
    expect(page.locator("polygon.active")).to_have_attribute("points", "100,50 300,50 300,90 100,90")
    page.get_by_role("link", name="JSON").click()
    expect(page).to_have_url(re.compile(f"/api/frames/{GATE.info.frame_id}$"))
    page.go_back()
    page.get_by_role("link", name="back to").click()
    expect(page).to_have_url(shop.address("/?q=call&min_confidence=0.9"))


def test_times_are_local_and_media_times_are_there(window: Window, shop: Shop) -> None:
    shop.add(CAFE)
    window.page.goto(shop.address("/?q=orbit"))
    moment = window.page.locator(".card time")
    # Noon in UTC is one o'clock in the browser's Berlin.
    expect(moment).to_have_text("1 Jan 2026, 13:01:01")
    expect(moment).to_have_attribute("title", "2026-01-01 12:01:01 UTC")
    expect(window.page.locator(".media")).to_have_text("1:01.2")


def test_filters_narrow_and_leave_a_short_address(window: Window, shop: Shop) -> None:
    shop.add(GATE, CAFE)
    page = window.page
    page.goto(shop.address())
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_label("Source").select_option("cafe.mp4")
    arrive(page, shop.address("/?source=cafe.mp4"))
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_label("Source").select_option("all")
    arrive(page, re.compile(r"/\??$"))
    search(page, "boarding")
    arrive(page, re.compile("q=boarding"))
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_label("Confidence").select_option("≥ 70 %")
    expect(page.get_by_role("heading", name="Nothing found for")).to_be_visible()
    assert parameters(page) == {"q": ["boarding"], "min_confidence": ["0.7"]}
    page.get_by_role("link", name="search without them").click()
    expect(page.locator(".card")).to_have_count(1)


def test_times_are_asked_for_in_local_time(window: Window, shop: Shop) -> None:
    shop.add(GATE, CAFE)
    page = window.page
    page.goto(shop.address())
    page.locator(".between summary").click()
    page.get_by_label("From", exact=True).fill("2026-01-01T13:00:30")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card .source")).to_have_text("cafe.mp4")
    assert parameters(page) == {"since": ["2026-01-01T12:00:30Z"]}
    # It is shown again as it was asked for, and can be taken back.
    expect(page.get_by_label("From", exact=True)).to_have_value("2026-01-01T13:00:30")
    page.get_by_label("From", exact=True).fill("")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".card")).to_have_count(2)


def test_quick_ranges_count_from_now(window: Window, shop: Shop) -> None:
    now_s = time.time() - 1_767_268_800
    shop.add(frame("cam", now_s - 1800, "HALF AN HOUR AGO"), frame("cam", now_s - 7200, "LONG AGO"))
    page = window.page
    page.goto(shop.address("/?q=ago"))
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("link", name="1 hour").click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page).to_have_url(shop.address("/?q=ago&since=1h"))
    expect(page.get_by_role("link", name="1 hour")).to_have_attribute("aria-current", "true")
    # The range stays while one searches on.
    search(page, "long")
    expect(page.get_by_role("heading", name="Nothing found for")).to_be_visible()
    assert parameters(page) == {"q": ["long"], "since": ["1h"]}


def test_paging_goes_there_and_back(window: Window, shop: Shop) -> None:
    shop.add(*(frame("cam", number * 60, f"WORD sign{number}") for number in range(PAGE_SIZE + 5)))
    page = window.page
    page.goto(shop.address("/?q=word&sort=newest"))
    expect(page.locator(".card")).to_have_count(PAGE_SIZE)
    page.get_by_role("link", name="older").click()
    expect(page.locator(".card")).to_have_count(5)
    expect(page.locator(".pages")).to_contain_text("page 2 of 2")
    expect(page.locator(".card").last).to_contain_text("sign0")
    page.get_by_role("link", name="newer").click()
    expect(page.locator(".card").first).to_contain_text(f"sign{PAGE_SIZE + 4}")


@contextmanager
def expecting(window: Window, status: int) -> Iterator[None]:
    """A browser notes answers of 400 and more on its console; this one is what the test is about."""
    yield
    window.errors[:] = [error for error in window.errors if f"status of {status}" not in error]


def test_picture_that_is_gone_has_a_placeholder_with_its_boxes(window: Window, shop: Shop) -> None:
    shop.store.write([GATE])
    page = window.page
    with expecting(window, 404):
        page.goto(shop.address("/?q=gate"))
        is_loaded(page.locator(".card img"))
        assert_box(page.locator(".card .shot"), page.locator(".card polygon.found"), (100, 50, 300, 90), (640, 360))


def test_alike_frames_are_one_card_that_opens(window: Window, shop: Shop) -> None:
    shop.add(*(frame("cam", second, "GATE B12", f"clock {second}") for second in range(5)))
    page = window.page
    page.goto(shop.address("/?q=gate"))
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("#total")).to_contain_text("5 frames")
    page.locator(".others summary").click()
    expect(page.locator(".others li")).to_have_count(4)
    page.locator(".others a").last.click()
    expect(page.locator("table")).to_contain_text("GATE B12")


def test_no_result_suggests_a_near_miss(window: Window, shop: Shop) -> None:
    shop.add(GATE)
    page = window.page
    page.goto(shop.address())
    search(page, "baording")
    expect(page.get_by_role("heading", name="Nothing found for")).to_contain_text("baording")
    page.get_by_role("link", name="baording~").click()
    expect(page.locator(".card mark")).to_have_text("BOARDING")


def test_bad_syntax_is_explained_and_can_be_mended(window: Window, shop: Shop) -> None:
    shop.add(GATE)
    page = window.page
    page.goto(shop.address())
    with expecting(window, 400):
        search(page, '"last call')
        expect(page.get_by_role("alert")).to_contain_text("quote")
    box = page.get_by_role("searchbox")
    expect(box).to_have_value('"last call')
    expect(box).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.type('"')
    page.keyboard.press("Enter")
    expect(page.locator(".card mark")).to_have_text("Last call")


def test_keyboard_alone_is_enough(window: Window, shop: Shop) -> None:
    shop.add(GATE)
    page = window.page
    page.goto(shop.address("/?q=gate"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('a.picture')"):
            break
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("call")
    page.keyboard.press("Enter")
    expect(page).to_have_url(shop.address("/?q=call"))
    page.locator("a.picture").focus()
    page.keyboard.press("Enter")
    expect(page.locator("table caption")).to_have_text("3 lines")


def test_status_strip_follows_the_pipeline(window: Window, shop: Shop) -> None:
    page = window.page
    page.goto(shop.address())
    strip = page.locator("#status")
    expect(strip).to_be_visible()
    expect(strip).to_contain_text("1,200")
    expect(strip).to_contain_text("250 ms")
    shop.status = Status(frames_in=1300, frames_read=400, frames_dropped=9, delay_s=2.04, texts_per_s=3)
    expect(strip).to_contain_text("1,300")
    expect(strip).to_contain_text("2.0 s")


def test_live_page_shows_new_frames_by_itself(window: Window, shop: Shop) -> None:
    shop.add(GATE)
    page = window.page
    page.goto(shop.address())
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_label("keep up to date").check()
    first = page.locator(".card").first
    first.evaluate("card => { card.dataset.same = 'yes'; }")
    page.locator("a.picture").focus()
    shop.add(CAFE)
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator(".card").first).to_contain_text("CAFE ORBIT")
    # The card that was there is the same one still: no flicker, and the focus stayed.
    expect(page.locator(".card").last).to_have_attribute("data-same", "yes")
    assert page.evaluate("document.activeElement.closest('.card')?.dataset.same") == "yes"
    page.reload()
    expect(page.get_by_label("keep up to date")).to_be_checked()


def test_page_recovers_when_the_store_is_back(window: Window, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add(GATE)

    def away(*_: object, **__: object) -> None:
        raise StoreError("Elasticsearch cannot be reached at http://es:9200")

    page = window.page
    with expecting(window, 503):
        with monkeypatch.context() as patch:
            patch.setattr(shop.store, "search", away)
            page.goto(shop.address("/?q=gate"))
            expect(page.get_by_role("alert")).to_contain_text("Elasticsearch cannot be reached")
        # It tries again by itself.
        expect(page.locator(".card")).to_have_count(1, timeout=15_000)


def test_what_was_read_never_runs(window: Window, shop: Shop) -> None:
    shop.add(frame("<img src=x onerror=alert(1)>", 0, "<img src=x onerror=alert(1)>", '"><script>alert(2)</script>'))
    opened: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    window.page.on("dialog", on_dialog)
    for address in ("/", "/?q=script", "/?q=%3Cscript%3Ealert(3)", "/?source=%22%3E%3Cscript%3Ealert(4)%3C/script%3E"):
        window.page.goto(shop.address(address))
    window.page.goto(shop.address("/"))
    window.page.locator("a.picture").first.click()
    expect(window.page.locator("tbody tr")).to_have_count(2)
    assert opened == []


def test_works_without_scripts(browser: Browser, shop: Shop) -> None:
    shop.add(GATE, CAFE)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(shop.address())
    search(page, "gate")
    expect(page.locator(".card mark")).to_have_text("GATE")
    page.locator(".card a.picture").click()
    expect(page.locator("h1")).to_contain_text("2026-01-01 12:00:01 UTC")
    context.close()
