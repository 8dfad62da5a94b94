"""The pages of `fruitgan serve` in a headless Chromium: drop, translate, slide, download; run with `pytest -m browser`."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import chromium
import named_reports
import numpy as np
import pytest
from picture_files import encoded, noise, pixels_of
from PIL import Image
from toy_bundles import detector_card, save_small

pytest.importorskip("playwright")
if chromium.executable() is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)

import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fruitgan.bundle import FILE_NAME
from fruitgan.networks.contracts import detectors
from fruitgan.runs.resume import DETECTOR
from fruitgan.serve import app as serve
from fruitgan.serve.app import ServeSettings, make_app
from fruitgan.settings import to_json
from fruitgan.train_detector.detector import DetectorBundle, save_detector

pytestmark = pytest.mark.browser

SWITCHES = [switch for switch in chromium.SWITCHES if not switch.startswith(("--headless", "--remote-debugging"))]
LONG_MS = 120_000
"""A busy machine may take that for a picture."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    run = folder / "runs" / "plums"
    save_small(run / FILE_NAME)
    (run / "samples").mkdir()
    (run / "config.json").write_text(json.dumps(to_json(named_reports.config("plum"))))
    write_log(run, 2)
    (run / "samples" / "step-00000010.png").write_bytes(picture(10))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        patch.setattr(serve, "AUTO", "torch")
        app = make_app(ServeSettings(runs=folder / "runs", detectors=folder / "detectors"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium.executable(), args=SWITCHES)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page whose every complaint and every request to elsewhere is an error."""
    found = browser.new_page(viewport={"width": 390, "height": 844})
    complaints: list[str] = []
    requests: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("request", lambda request: requests.append(request.url))
    yield found
    assert [it for it in complaints if "status of 415" not in it] == []  # which the console tells, and so does the page
    assert all(url.startswith((address, "data:", f"blob:{address}")) for url in requests)
    found.close()


def write_log(run: Path, lines: int) -> None:
    entries = [{**entry, "seconds": 1.0} for entry in named_reports.log("plum")[:lines]]
    (run / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def picture(seed: int, kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(noise(40, 60, seed)), kind)


def drop(page: Page, kind: str, **files: bytes) -> None:
    """The event that a browser sends when files are dropped or pasted."""
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    script = """([kind, data]) => {
        const carried = new DataTransfer();
        for (const [name, content] of Object.entries(data)) {
            const bytes = Uint8Array.from(atob(content), it => it.charCodeAt(0));
            carried.items.add(new File([bytes], name + ".png", { type: "image/png" }));
        }
        document.querySelector(".drop").dispatchEvent(kind === "drop"
            ? new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carried })
            : new ClipboardEvent("paste", { bubbles: true, clipboardData: carried }));
    }"""
    page.evaluate(script, [kind, data])


def finished(page: Page, count: int) -> None:
    expect(page.get_by_role("status").filter(has_text="done")).to_have_count(count, timeout=LONG_MS)


def test_pictures_are_dropped_translated_slid_over_and_downloaded(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(address)
    page.get_by_label("Bundle and direction").select_option(label="plums: apple → orange")
    drop(page, "drop", one=picture(1), two=picture(2))
    finished(page, 2)
    drop(page, "paste", three=picture(3))
    finished(page, 3)
    assert page.get_by_role("heading", level=2).all_text_contents() == ["three.png", "one.png", "two.png"]
    card = page.get_by_role("article").nth(1)
    slider = card.get_by_label("Before and after")
    slider.focus()
    page.keyboard.press("Home")
    assert card.locator(".after").evaluate("it => getComputedStyle(it).clipPath") == "inset(0px 0px 0px 0%)"
    page.keyboard.press("End")
    assert card.locator(".after").evaluate("it => getComputedStyle(it).clipPath") == "inset(0px 0px 0px 100%)"
    downloaded = []
    for strength in ("100", "50", "0"):
        page.get_by_label("Strength").fill(strength)
        assert float(card.locator(".after").evaluate("it => getComputedStyle(it).opacity")) == int(strength) / 100
        with page.expect_download(timeout=LONG_MS) as download:
            card.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "one-translated.png"
        download.value.save_as(tmp_path / f"{strength}.png")
        downloaded.append(pixels_of(tmp_path / f"{strength}.png").astype(int))
    assert (downloaded[2] == noise(40, 60, 1)).all()
    assert np.abs(downloaded[1] - (downloaded[0] + downloaded[2]) / 2).max() <= 1
    assert (downloaded[0] != downloaded[2]).any()


def test_what_a_browser_cannot_show_is_shown_by_the_server_and_what_is_no_picture_is_named(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Bundle and direction").select_option(label="plums: apple → orange")
    page.locator("input[type=file]").set_input_files(
        {"name": "deep.tif", "mimeType": "image/tiff", "buffer": picture(1, "TIFF")}
    )
    finished(page, 1)
    expect(page.locator(".before")).to_have_js_property("naturalWidth", 60, timeout=LONG_MS)
    drop(page, "drop", bad=b"no picture", good=picture(1))
    finished(page, 2)
    expect(page.get_by_role("status").first).to_have_text("not an image")


def test_what_there_is_to_know_of_a_result_stands_below_it(page: Page, address: str, folder: Path) -> None:
    choice = detectors.choose("small-cnn", {"image_size_px": 16, "base_channels": 1})
    (folder / "detectors" / "judge").mkdir(parents=True)
    guessing = DetectorBundle(detector_card(choice, 16), detectors.build(choice).eval())
    save_detector(guessing, folder / "detectors" / "judge" / DETECTOR)
    film = encoded(Image.fromarray(noise(40, 60)), "GIF", save_all=True, append_images=[Image.fromarray(noise(40, 60, 1))])
    for place, said in (("", "done. the first frame or page alone"), ("/detect", "no better than guessing")):
        page.goto(address + place)
        page.locator("input[type=file]").set_input_files({"name": "film.gif", "mimeType": "image/gif", "buffer": film})
        expect(page.get_by_role("status")).to_contain_text(said, timeout=LONG_MS)


def test_all_can_be_reached_with_the_keyboard(page: Page, address: str) -> None:
    page.goto(address)
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        name = "document.activeElement.id || document.activeElement.type || document.activeElement.textContent"
        reached.append(page.evaluate(name))
    assert [it for it in reached if it in ("Runs", "ask", "strength", "file")] == ["Runs", "ask", "strength", "file"]


def test_a_run_is_seen_to_go_on(page: Page, address: str, folder: Path) -> None:
    page.goto(f"{address}/runs")
    page.get_by_role("link", name="plums").click()
    run = folder / "runs" / "plums"
    (run / "samples" / "step-00000020.png").write_bytes(picture(20))
    expect(page.get_by_alt_text("Samples of step 20")).to_have_js_property("naturalWidth", 60, timeout=LONG_MS)
    before = page.locator("svg").count()
    write_log(run, 4)
    step = named_reports.log("plum")[-1]["step"]
    expect(page.get_by_text(f"Step {step} of")).to_be_visible(timeout=LONG_MS)
    assert page.locator("svg").count() == before > 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_page_is_wider_than_the_screen(browser: Browser, address: str, width: int, dark: bool) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
    for place in ("", "/runs", "/runs/plums", "/detect"):
        page.goto(address + place)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place
        light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 252, 250)"
        assert light is not dark
    page.close()
