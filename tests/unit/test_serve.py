"""The pages of `fruitgan serve`: what they answer, whom they let in, and what hostile or many requests do to them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import named_reports
import numpy as np
import pytest
from hub_server import loopback_hub
from picture_files import encoded, noise, pixels_of
from PIL import Image
from starlette.responses import Response
from starlette.testclient import TestClient
from toy_bundles import save_small

from fruitgan.bundle import FILE_NAME, load
from fruitgan.cli import main
from fruitgan.errors import UsageError
from fruitgan.progress import Note, OnProgress
from fruitgan.serve import app as serve
from fruitgan.serve.app import ServeSettings, Service, make_app
from fruitgan.settings import to_json
from fruitgan.train_detector import detect_job
from fruitgan.train_detector.detect_job import DetectedPicture, DetectResult, DetectSettings, detect
from fruitgan.translate.job import TranslateSettings, translate
from fruitgan.translate.pictures import ADDRESS, read_mark

NAME = "<b>&plums"
ASKED = {"name": NAME, "way": "b2a"}
PICTURE = Image.fromarray(noise(30, 40))
PNG = encoded(PICTURE)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeSettings:
    """A bundle in a run with a name that a careless page would take for markup, and a folder for temporary files."""
    monkeypatch.setattr(serve, "AUTO", "torch")  # to export a graph for the other engine takes longer than all else
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    serve._loaded.cache_clear()
    save_small(tmp_path / "runs" / NAME / FILE_NAME, domains=("<i>apple", "orange"))
    return ServeSettings(runs=tmp_path / "runs", detectors=tmp_path / "detectors")


@pytest.fixture
def client(settings: ServeSettings) -> Iterator[TestClient]:
    with TestClient(make_app(settings), base_url="http://localhost:8000") as found:
        yield found


@pytest.mark.parametrize("strength", [0.0, 0.512345, 1.0])
def test_a_picture_is_what_fruitgan_translate_makes_of_it(
    client: TestClient, settings: ServeSettings, tmp_path: Path, strength: float
) -> None:
    answer = client.post("/api/translate", params={**ASKED, "strength": str(strength)}, content=PNG)
    assert answer.status_code == 200
    (tmp_path / "a.png").write_bytes(PNG)
    bundle, place = str(settings.runs / NAME / FILE_NAME), tmp_path / "b.png"
    asked = {"bundle": bundle, "direction": "b2a", "strength": strength, "engine": "torch", "gpu": "none"}
    translate(TranslateSettings(sources=(str(tmp_path / "a.png"),), output=str(place), **asked))
    assert answer.content == place.read_bytes()  # with the same mark in it
    assert (pixels_of(place) == np.asarray(PICTURE)).all() == (strength == 0)


def test_a_bundle_is_loaded_once_for_all_strengths(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr(serve, "load", lambda file: loaded.append(file) or load(file))
    for strength in ("1", "1.0", "0.5", "0.25"):
        assert client.post("/api/translate", params={**ASKED, "strength": strength}, content=PNG).status_code == 200
    assert len(loaded) == 1


def test_a_bundle_of_the_hub_leaves_its_address_in_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "AUTO", "torch")
    with loopback_hub(tmp_path, monkeypatch) as hub:
        commit = hub.model("ann/fruit").add({FILE_NAME: save_small(tmp_path / "small.safetensors").read_bytes()})
        app = make_app(ServeSettings(bundles=("hf:ann/fruit",), runs=tmp_path / "none"))
        answer = TestClient(app, base_url="http://localhost").post("/api/translate?name=hf:ann/fruit", content=PNG)
    mark = read_mark(io.BytesIO(answer.content))
    assert mark is not None
    assert mark[ADDRESS] == f"hf:ann/fruit@{commit}"


def test_what_there_is_to_know_of_a_result_comes_with_it(client: TestClient, settings: ServeSettings) -> None:
    film = encoded(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)])
    save_small(settings.runs / "raw" / FILE_NAME, name="raw", resolved_recipe={}, steps=1)
    told = {}
    for name, content in ((NAME, PNG), (NAME, film), ("raw", film)):
        answer = client.post("/api/translate", params={**ASKED, "name": name}, content=content)
        told[name, content] = json.loads(answer.headers["Fruitgan-Notes"])
    assert told[NAME, PNG] == []
    assert [note.partition(" alone")[0] for note in told[NAME, film]] == ["the first frame or page"]
    assert told["raw", film] == ["raw was trained for 1 steps: expect little of it", *told[NAME, film]]


def test_pages_hold_names_as_text_and_load_nothing_from_elsewhere(client: TestClient) -> None:
    for address in ("/", "/runs", "/detect"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "<b>&plums" not in answer.text
        assert "<i>apple" not in answer.text
        outside = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside
        assert "https://" not in outside
        assert "script-src 'self'" in answer.text
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "&lt;b&gt;&amp;plums: orange → &lt;i&gt;apple" in client.get("/").text
    assert client.get("/serve.js").headers["Content-Type"].startswith("text/javascript")


HOSTILE = {
    "nothing": (b"", 415),
    "a page": (b"<!doctype html><script>alert(1)</script>", 415),
    "a drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
    "many pixels in few bytes": (encoded(Image.new("1", (10_000, 10_000))), 413),
    **{f"half a {kind}": (encoded(PICTURE, kind)[:1000], 422) for kind in ("PNG", "JPEG", "WEBP")},
    "a head alone": (PNG[:33], 422),
    "noise behind a signature": (PNG[:8] + bytes(range(256)) * 20, 422),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_refused_in_a_sentence(client: TestClient) -> None:
    for name, (content, status) in HOSTILE.items():
        answer = client.post("/api/translate", params=ASKED, content=content)
        assert (name, answer.status_code) == (name, status)
        assert answer.json()["error"]
    assert client.post("/api/translate", params=ASKED, content=PNG).status_code == 200


def test_only_what_is_on_offer_can_be_asked_for(client: TestClient) -> None:
    wanted: list[dict[str, str]] = [{"name": "../../etc/passwd"}, {}, {**ASKED, "way": "a2c"}]
    wanted += [{**ASKED, "strength": strength} for strength in ("nan", "-1", "1.5", "", "1e3", "٣")]
    for asked in wanted:
        answer = client.post("/api/translate", params=asked, content=PNG)
        assert answer.status_code == 400, asked
        assert answer.json()["error"]


async def posts(settings: ServeSettings, count: int) -> list[asyncio.Task[httpx2.Response]]:
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(make_app(settings)), base_url="http://localhost")
    return [asyncio.create_task(client.post("/api/translate", params=ASKED, content=PNG)) for _ in range(count)]


def test_fifty_requests_at_once_are_all_answered_alike(settings: ServeSettings) -> None:
    async def run() -> list[httpx2.Response]:
        return await asyncio.gather(*await posts(settings, 50))

    answers = asyncio.run(run())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_more_than_can_wait_are_asked_to_come_again(settings: ServeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()

    def held(service: Service, data: bytes, asked: Mapping[str, str]) -> Response:
        assert may_go_on.wait(60)
        return Response()

    monkeypatch.setattr(Service, "translate", held)
    monkeypatch.setattr(serve, "MOST_WAITING", 3)

    async def run() -> list[int]:
        tasks = await posts(settings, 5)
        early: set[Any] = set()
        while len(early) < 2:  # the others cannot end before
            early |= (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]
            tasks = [task for task in tasks if task not in early]
        may_go_on.set()
        assert {task.result().headers["Retry-After"] for task in early} == {"5"}
        return [task.result().status_code for task in early] + [answer.status_code for answer in await asyncio.gather(*tasks)]

    assert asyncio.run(run()) == [429, 429, 200, 200, 200]


def test_no_more_is_taken_and_held_in_memory_than_the_limits(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, status in (("MOST_HELD_BYTES", 429), ("LARGEST_BYTES", 413)):
        monkeypatch.setattr(serve, limit, len(PNG) - 1)
        assert client.post("/api/translate", params=ASKED, content=PNG).status_code == status
        monkeypatch.setattr(serve, limit, len(PNG))  # what was refused is no longer counted
        assert client.post("/api/translate", params=ASKED, content=PNG).status_code == 200


def test_other_names_and_other_pages_get_nothing(client: TestClient) -> None:
    own: list[dict[str, str]] = [{}, {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}]
    own += [{"Host": host} for host in ("127.0.0.1:8000", "[::1]:8000")]
    others = [{"Host": host} for host in ("evil.example", "localhost.evil.example:8000", "")]
    others += [{"Origin": origin} for origin in ("http://evil.example", "http://localhost:9000", "null")]
    for headers in [*own, *others, {"Sec-Fetch-Site": "cross-site"}]:
        answer = client.post("/api/translate", params=ASKED, content=PNG, headers=headers)
        assert answer.status_code == (200 if headers in own else 403), headers


def test_who_lets_others_in_asks_for_a_password(settings: ServeSettings) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org"):
        with pytest.raises(UsageError, match="--auth"):
            ServeSettings(host=host)
    for auth in ("ann", ":plum", "ann:"):
        with pytest.raises(UsageError, match="USER:PASSWORD"):
            ServeSettings(auth=auth)
    app = make_app(ServeSettings(host="0.0.0.0", auth="ann:plüm", runs=settings.runs))
    client = TestClient(app, base_url="http://example.org")
    for told in (None, "ann:pear", "ann", "ann:plüm2"):
        headers = {} if told is None else {"Authorization": f"Basic {base64.b64encode(told.encode()).decode()}"}
        answer = client.get("/", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    for scheme, status in (("Basic", 200), ("basic", 200), ("Bearer", 401)):
        right = {"Authorization": f"{scheme} {base64.b64encode('ann:plüm'.encode()).decode()}"}
        assert client.get("/", headers=right).status_code == status


def make_run(settings: ServeSettings, name: str) -> Path:
    run = settings.runs / name
    (run / "samples").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(to_json(named_reports.config(NAME))))
    (run / "log.jsonl").write_text("".join(json.dumps({**line, "seconds": 1.0}) + "\n" for line in named_reports.log(NAME)))
    (run / "samples" / "step-00000010.png").write_bytes(PNG)
    return run


def test_a_run_is_shown_with_its_curves_and_samples_as_they_come(client: TestClient, settings: ServeSettings) -> None:
    run = make_run(settings, "plums")
    assert "plums" in client.get("/runs").text
    before = client.get("/runs/plums")
    assert before.status_code == 200
    assert "<svg" in before.text
    assert "<b>&plums" not in before.text
    assert client.get("/runs/plums/samples/10").content == PNG
    (run / "samples" / "step-00000020.png").write_bytes(PNG)
    assert "/runs/plums/samples/20" in client.get("/runs/plums").text
    (run / "config.json").write_text("{")
    assert client.get("/runs/plums").status_code == 422
    assert client.get("/runs").status_code == 200


def test_nothing_outside_of_a_run_is_shown(client: TestClient, settings: ServeSettings, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    run = make_run(settings, "plums")
    (run / "samples" / "step-00000020.png").symlink_to(tmp_path / "secret.png")
    wanted = ("plums/samples/20", "plums/samples/30", "pears", "pears/samples/10", "%2e%2e", "..%2fplums/samples/10")
    assert {client.get(f"/runs/{address}").status_code for address in wanted} == {404}


def test_a_detector_is_asked_and_nothing_stays(
    client: TestClient, settings: ServeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.detectors / "judge").mkdir(parents=True)
    (settings.detectors / "judge" / "detector.safetensors").write_bytes(b"")
    asked: list[DetectSettings] = []

    def judged(wanted: DetectSettings, on_progress: OnProgress) -> DetectResult:
        asked.append(wanted)
        on_progress(Note("judge: no better than guessing", is_warning=True))
        assert Path(wanted.pictures[0]).read_bytes() == PNG
        picture = DetectedPicture(file=wanted.pictures[0], generated=True, probability=0.75, logit=1.0, outside=())
        return DetectResult(detector=Path("d"), accuracy=0.9, interval=(0.8, 0.95), pictures=(picture,), skipped=(), failed=())

    monkeypatch.setattr(detect_job, "detect", judged)
    assert "judge" in client.get("/detect").text
    answer = client.post("/api/detect", params={"name": "judge"}, content=PNG).json()
    assert (answer["generated"], answer["probability"], answer["accuracy"]) == (True, 0.75, 0.9)
    assert answer["doubts"] == ["judge: no better than guessing"]
    assert asked[0].detector == str(settings.detectors / "judge" / "detector.safetensors")
    assert client.post("/api/detect", params={"name": "../judge"}, content=PNG).status_code == 400
    monkeypatch.setattr(detect_job, "detect", detect)
    refused = client.post("/api/detect", params={"name": "judge"}, content=PNG)  # of an empty file
    assert refused.status_code == 422
    assert "detector.safetensors" in refused.json()["error"]
    assert not list((tmp_path / "temporary").iterdir())


def test_it_says_where_it_listens_and_ctrl_c_ends_it(settings: ServeSettings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fruitgan", "serve", "--port", "0", "--runs", str(settings.runs)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address + "/serve.js") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


SLOW = """
import sys
from starlette.responses import Response
from fruitgan.cli import main
from fruitgan.serve.app import Service

def translate(service, data, asked):
    print("at work", flush=True)
    return Response(sys.stdin.read())

Service.translate = translate
sys.exit(main(["serve", "--port", "0", *sys.argv[1:]]))
"""
"""A server whose engine is at work until its standard input ends."""


def test_a_picture_at_work_when_it_stops_gets_503_and_nothing_is_printed(settings: ServeSettings, tmp_path: Path) -> None:
    answers: list[tuple[int, bytes]] = []

    def ask(address: str) -> None:
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{address}/api/translate", data=PNG)
        answers.append((raised.value.code, raised.value.read()))

    command = [sys.executable, "-c", SLOW, "--runs", str(settings.runs)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process:
        assert process.stdout is not None
        client = threading.Thread(target=ask, args=[process.stdout.readline().strip()])
        client.start()
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        client.join()
        _, errors = process.communicate(timeout=60)
    assert answers == [(503, b'{"error":"the server is stopping"}')]
    assert (process.returncode, errors) == (130, "stopped\n")


def test_what_is_wrong_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = "import sys; from fruitgan.cli import main; print(main(sys.argv[1:]), {'torch', 'matplotlib'} & sys.modules.keys())"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = ["--port", str(taken.getsockname()[1]), "--bundle", "nothing"]
        for wrong, status, said in (
            (["--auth", "ann"], 2, "--auth"),
            (used, 1, "cannot listen"),
            (["--bundle", "x"], 2, "'x'"),
        ):
            command = [sys.executable, "-c", code, "serve", "--port", "0", *wrong]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.stdout == f"{status} set()\n"
            assert said in done.stderr


def test_wrong_options_and_a_missing_package_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--auth" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--bundle", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 4
    assert 'pip install "fruitgan[serve]"' in capsys.readouterr().err
