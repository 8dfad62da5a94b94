"""The pages of `fruitgan serve` and what they ask for: one queue before one engine, nothing kept, strangers kept out."""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fruitgan.bundle import FILE_NAME, Card, load, load_card, locate, pinned, shipped, shipped_names
from fruitgan.data.decode import formats
from fruitgan.data.finder import reason_no_image
from fruitgan.engines.contracts import Engine
from fruitgan.engines.onnx_engine import AUTO, open_engine
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.progress import Event, Note
from fruitgan.report import page
from fruitgan.report.page import render, sample_files
from fruitgan.runs.resume import DETECTOR
from fruitgan.runs.run import CONFIG, SAMPLES, Run
from fruitgan.settings import RUNS, Settings, to_json
from fruitgan.train_detector.settings import OUT
from fruitgan.train_gan.settings import read_config
from fruitgan.translate.job import TranslateSettings, mark_of
from fruitgan.translate.pictures import ADDRESS
from fruitgan.translate.pipeline import Pipeline
from fruitgan.translate.plan import Task

LARGEST_BYTES = 32 << 20
"""Of one picture's file."""
LARGEST_PIXELS = 50_000_000
MOST_WAITING = 64
"""Requests that wait for the engine, the one that it is at included."""
MOST_HELD_BYTES = 256 << 20
"""Of all pictures that wait."""
LONGEST_ARRIVAL_SECONDS = 120
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # the pages have the rest of it
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
STATUS = {2: 400, 3: 422, 4: 503}
"""By the exit code of an error; any other is 500."""
NOTES = "Fruitgan-Notes"
"""The header of a translation with what there is to know of it: sentences, as JSON."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings(Settings):
    """What is offered, where, and to whom."""

    bundles: tuple[str, ...] = ()
    """Besides those that ship and those of the runs."""
    runs: Path = RUNS
    detectors: Path = OUT
    host: str = "127.0.0.1"
    auth: str | None = None
    """USER:PASSWORD; needed where others reach the host."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.auth is not None and not all(self.auth.partition(":")):
            raise UsageError("--auth: expected USER:PASSWORD")
        if not self.is_loopback and self.auth is None:
            raise UsageError(f"--host {self.host} lets others in: give --auth USER:PASSWORD, or set FRUITGAN_AUTH to that")

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK


class Guard:
    """Lets in who asks by the server's own name, from its own pages, with the password where there is one."""

    def __init__(self, app: Any, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        refusal = self.refusal(Request(scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send_guarded)

    def refusal(self, request: Request) -> Response | None:
        asked, host = request.headers, request.headers.get("host", "")
        # Another's page may have a name that leads here (DNS rebinding), or send forms here (CSRF).
        name = re.sub(r":[0-9]*$", "", host).strip("[]")
        if self.settings.is_loopback and name not in LOOPBACK:
            return _refused(403, f"this server has no name {host!r}")
        is_own = asked.get("origin", f"//{host}").partition("//")[2] == host
        if request.method not in ("GET", "HEAD") and not (
            is_own and asked.get("sec-fetch-site", "none") in ("same-origin", "none")
        ):
            return _refused(403, "only this server's own pages may ask that")
        if self.settings.auth is not None:
            scheme, _, told = asked.get("authorization", "").partition(" ")
            expected = base64.b64encode(self.settings.auth.encode())
            if scheme.lower() != "basic" or not hmac.compare_digest(told.strip().encode("latin-1"), expected):
                return _refused(401, "a name and a password are needed", {"WWW-Authenticate": 'Basic realm="fruitgan"'})
        return None


def _refused(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


def _explained(request: Request, error: Any) -> Response:
    """The answer to a request that raised an error of ours or Starlette's."""
    if isinstance(error, FruitganError):
        return _refused(STATUS.get(error.exit_code, 500), str(error))
    return _refused(error.status_code, "no such page" if error.status_code == 404 else error.detail, error.headers)


class Service:
    """What the pages show and ask for; what is not `async` runs in threads of Starlette's."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.addresses = {name: pinned(name) for name in settings.bundles}
        self.given = {name: locate(address or name, settings.runs) for name, address in self.addresses.items()}
        self.worker = ThreadPoolExecutor(1, "engine")
        self.waiting = self.held_bytes = 0

    def bundles(self) -> dict[str, Path]:
        """The files on offer by name: nothing else can be asked for."""
        made = {file.parent.name: file for file in sorted(self.settings.runs.glob(f"*/{FILE_NAME}"))}
        return {**{name: shipped(name) for name in shipped_names()}, **made, **self.given}

    def detectors(self) -> dict[str, Path]:
        return {file.parent.name: file for file in sorted(self.settings.detectors.glob(f"*/{DETECTOR}"))}

    def runs(self) -> dict[str, Run]:
        """By name, the newest first."""
        files = sorted(self.settings.runs.glob(f"*/{CONFIG}"), key=lambda file: -file.stat().st_mtime_ns)
        return {file.parent.name: Run(file.parent) for file in files}

    def translate_page(self, request: Request) -> Response:
        ways = []
        for name, file in self.bundles().items():
            with suppress(DataError):  # a run that is just begun, or a stranger's
                card = load_card(file)
                for way in card.directions:
                    words = f"{name}: {card.domains[way == 'b2a']} → {card.target(way)}"
                    ways.append((words, {"name": name, "way": way}))
        return HTMLResponse(render("serve_ask.html", here="/", choices=ways, largest_bytes=LARGEST_BYTES))

    def detect_page(self, request: Request) -> Response:
        names = [(name, {"name": name}) for name in self.detectors()]
        return HTMLResponse(render("serve_ask.html", here="/detect", choices=names, largest_bytes=LARGEST_BYTES))

    def runs_page(self, request: Request) -> Response:
        rows = []
        for name, run in self.runs().items():
            with suppress(DataError):
                config, entries = read_config(run), run.entries()
                step = entries[-1]["step"] if entries else 0
                rows.append((name, config.domains, bool(run.result), step, config.total_steps))
        return HTMLResponse(render("serve_runs.html", here="/runs", rows=rows))

    def run_page(self, request: Request) -> Response:
        from fruitgan.train_gan.curves import Story, loss_panels  # here, and `detect` below: they import torch

        run = self._run(request)
        entries, story = run.entries(), Story(read_config(run))
        steps = list(sample_files(run.path / SAMPLES))
        told = {"here": "/runs", "name": run.path.name, "story": story, "finished": bool(run.result)}
        told |= {"last": entries[-1] if entries else {"step": 0, "seconds": 0}, "steps": [*steps[-1:], *steps[-4:-1]]}
        return HTMLResponse(render("serve_run.html", panels=loss_panels(entries, story), **told))

    def sample(self, request: Request) -> Response:
        folder = self._run(request).path / SAMPLES
        sheet = sample_files(folder).get(request.path_params["step"])
        if sheet is None or not sheet.resolve().is_relative_to(folder.parent.resolve()):  # a link may lead out of a run
            raise HTTPException(404)
        return FileResponse(sheet, media_type="image/png")

    def _run(self, request: Request) -> Run:
        """Raises: HTTPException, where there is none of that name."""
        run = self.runs().get(request.path_params["name"])
        if run is None:
            raise HTTPException(404)
        return run

    def translate(self, data: bytes, asked: Mapping[str, str]) -> Response:
        """The picture's translation as PNG. Raises: FruitganError."""
        name, way = asked.get("name", ""), asked.get("way", "a2b")
        file = self.bundles().get(name)
        if file is None:
            raise UsageError("no bundle of that name is here")
        try:
            settings = TranslateSettings(sources=("-",), strength=float(asked.get("strength", "1")))
        except ValueError as error:
            raise UsageError("the strength is no number from 0 to 1") from error
        card, engine, mark = _loaded(file, file.stat().st_mtime_ns, way)
        mark = {**mark, "strength": settings.strength, ADDRESS: self.addresses.get(name)}
        made = io.BytesIO()
        outcome = Pipeline(engine, card, settings, mark, made).attempt(Task(None, None, "png", data))
        for remark in (*outcome.failed, *outcome.skipped):
            raise DataError(remark.reason)
        notes = [*filter(None, [card.doubt]), *(remark.reason for remark in outcome.notes)]
        return Response(made.getvalue(), media_type="image/png", headers={NOTES: json.dumps(notes)})

    def detect(self, data: bytes, asked: Mapping[str, str]) -> Response:
        """What a detector says of the picture. Raises: FruitganError."""
        from fruitgan.train_detector.detect_job import DetectSettings, detect

        doubts: list[str] = []

        def tell(event: Event) -> None:
            if isinstance(event, Note):
                doubts.append(event.text)

        file = self.detectors().get(asked.get("name", ""))
        if file is None:
            raise UsageError("no detector of that name is here")
        with tempfile.TemporaryDirectory(prefix="fruitgan-") as folder:
            picture = Path(folder, "picture")
            picture.write_bytes(data)
            result = detect(DetectSettings(pictures=(str(picture),), detector=str(file)), tell)
        for remark in (*result.failed, *result.skipped):
            raise DataError(remark.reason)
        answer = {**to_json(result.pictures[0]), "file": "picture"}  # its place here is nobody's
        return JSONResponse({**answer, "accuracy": result.accuracy, "interval": result.interval, "doubts": doubts})

    async def queued(self, work: Callable[[bytes, Mapping[str, str]], Response], request: Request) -> Response:
        """Read the picture and have the engine's thread do the work, or say in a sentence why not."""
        data, later = bytearray(), {"Retry-After": "5"}
        if self.waiting >= MOST_WAITING:
            return _refused(429, "too many pictures are waiting; try again in a moment", later)
        self.waiting += 1
        try:
            async with asyncio.timeout(LONGEST_ARRIVAL_SECONDS):
                async for piece in request.stream():
                    data += piece
                    self.held_bytes += len(piece)
                    if len(data) > LARGEST_BYTES:
                        return _refused(413, f"the file is larger than {LARGEST_BYTES >> 20} MB")
                    if self.held_bytes > MOST_HELD_BYTES:
                        return _refused(429, "too many large pictures are waiting; try again in a moment", later)
            content = bytes(data)
            if reason := reason_no_image(content):
                return _refused(415, reason)
            if _pixels(content) > LARGEST_PIXELS:
                return _refused(413, f"the picture has more than {LARGEST_PIXELS // 1_000_000} million pixels")
            return await asyncio.get_running_loop().run_in_executor(self.worker, work, content, request.query_params)
        except (TimeoutError, ClientDisconnect):
            return _refused(408, "the picture did not arrive")
        except asyncio.CancelledError:  # the server waits for no request longer than a moment
            return _refused(503, "the server is stopping")
        finally:
            self.waiting -= 1
            self.held_bytes -= len(data)


def _pixels(data: bytes) -> int:
    """As the file's header says; 0 where Pillow cannot tell, and the decoder will say why."""
    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        return LARGEST_PIXELS + 1
    except Exception:  # hostile bytes raise nearly anything
        return 0


@functools.lru_cache(maxsize=4)
def _loaded(file: Path, changed_ns: int, way: str) -> tuple[Card, Engine, dict[str, Any]]:
    """A bundle's card, the engine of one direction and what marks its pictures, kept as long as the file stays as it is."""
    bundle = load(file)
    if way not in bundle.weights:
        raise UsageError("the bundle has no such direction")
    _, engine = open_engine(AUTO, bundle.card.generator, bundle.weights[way], 1)
    return bundle.card, engine, mark_of(TranslateSettings(sources=("-",)), bundle, way, None)


def make_app(settings: ServeSettings) -> Any:
    """The application, for any ASGI server. Raises: as `locate`, for a bundle that is not here."""
    service = Service(settings)
    script = Path(page.__file__).parent / "templates" / "serve.js"
    routes = [
        Route("/", service.translate_page),
        Route("/runs", service.runs_page),
        Route("/runs/{name}", service.run_page),
        Route("/runs/{name}/samples/{step:int}", service.sample),
        Route("/detect", service.detect_page),
        Route("/serve.js", lambda request: FileResponse(script, media_type="text/javascript")),
        Route("/api/translate", functools.partial(service.queued, service.translate), methods=["POST"]),
        Route("/api/detect", functools.partial(service.queued, service.detect), methods=["POST"]),
    ]
    handlers: Any = {HTTPException: _explained, FruitganError: _explained}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), settings)
