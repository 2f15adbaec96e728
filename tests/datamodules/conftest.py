"""Tiny samples and shards for the tests of the data layer, made without the procedural world."""

import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import EditPrompt, ObjectRecord, VplmSample
from raccoon_datamodules.video import Video
from raccoon_datamodules.writer import write_shards

MakeSample = Callable[..., VplmSample]
MakeShards = Callable[..., Path]


@pytest.fixture(scope="session")
def make_sample() -> MakeSample:
    def make(number: int = 0, *, num_objects: int = 1, num_frames: int = 4, size: int = 16) -> VplmSample:
        rng = np.random.default_rng(number)
        frames = rng.integers(0, 255, (num_frames, size, size, 3), dtype=np.uint8)
        video = Video.from_frames(frames, 8.0)
        records, described = [], []
        for i in range(1, num_objects + 1):
            mask = np.zeros((num_frames, size, size), dtype=np.uint8)
            # The object is not there in the first frame.
            mask[1:, i : i + 5, 2:9] = 1
            without = video.with_frames(np.where(mask[..., None] == 1, 127, frames).astype(np.uint8))
            name, text = f"Thing {i}", f"The thing number {i} of sample {number}."
            described.append(ObjectDescription(name, text))
            attributes = {"colour": "grün", "size": 3}
            records.append(ObjectRecord(str(i), name, "thing", text, mask, boxes_of(mask), without, attributes))
        paragraph = Paragraph(f"Scene {number} with things.", tuple(described))
        edits = ()
        if described:
            after = Paragraph(paragraph.description, tuple(described[1:]))
            edits = (EditPrompt("remove", "1", "Remove thing 1.", paragraph, after),)
        return VplmSample(
            f"clip-{number:04d}",
            video,
            paragraph,
            tuple(records),
            edits,
            (Paragraph(f"In other words, scene {number}.", tuple(described)),),
            {"seed": number, "licence": "none"},
        )

    return make


@pytest.fixture(scope="session")
def make_shards(make_sample: MakeSample) -> MakeShards:
    def make(
        folder: Path, count: int = 10, *, first: int = 0, samples_per_shard: int = 4, split: str = "train"
    ) -> Path:
        samples = (make_sample(first + i) for i in range(count))
        write_shards(samples, folder, split=split, samples_per_shard=samples_per_shard)
        return folder

    return make


@pytest.fixture(scope="session")
def shards(make_shards: MakeShards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples in shards of 4, 4 and 2; not to be changed by a test."""
    return make_shards(tmp_path_factory.mktemp("shards") / "train")


@pytest.fixture(scope="session")
def put_video() -> Callable[..., None]:
    """Write a video in ROVI's layout: moving squares, one an object, as tall as half the frame (``tall`` pixels)."""

    def put(
        root: Path,
        name: str,
        *,
        count: int = 6,
        size: tuple[int, int] = (32, 48),
        objects: tuple[int, ...] = (1,),
        every: int = 1,
        inpainted: tuple[int, ...] = (),
        tall: int | None = None,
        shade: int = 0,
    ) -> None:
        height, width = size
        tall = height // 2 if tall is None else tall
        for n in range(count):
            ramp = (np.mgrid[0:height, 0:width].sum(0) * 2 + shade) % 200
            frame = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
            label = np.zeros(size, dtype=np.uint8)
            for place, value in enumerate(objects):
                spot = np.s_[2 : 2 + tall, place * tall + n : place * tall + n + max(tall - 2, 1)]
                label[spot], frame[spot] = value, (255, 40 * value % 255, 0)
            _save(Image.fromarray(frame), root / "JPEGImages" / name / f"{n:05d}.jpg")
            if n % every == 0:
                picture = Image.fromarray(label)
                picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
                _save(picture, root / "Annotations" / name / f"{n:05d}.png")
            for value in inpainted:
                without = np.where((label == value)[..., None], 99, frame).astype(np.uint8)
                _save(Image.fromarray(without), root / "InpaintImages" / name / str(value) / f"{n:05d}.jpg")

    return put


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves the files of ``root`` with byte ranges and keeps connections; takes down what it is asked.

    ``plan`` holds what goes wrong with the next requests, one word each (see `_RangeHandler`); "ok" is a good answer.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _RangeHandler)
        self.root = root
        self.asked: list[tuple[str, str | None]] = []
        self.plan: list[str] = []
        self.num_connections = 0
        self.num_bytes = 0
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _RangeHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.num_connections += 1

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        what = server.plan.pop(0) if server.plan else "ok"
        path = server.root / self.path.lstrip("/").removeprefix("moved/")
        if what == "hang up":
            self.close_connection = True
        elif what.isdigit():
            self.answer(int(what), b"sorry", {"Retry-After": "7"} if what == "429" else {})
        elif what.startswith("to "):
            self.answer(302, b"over there", {"Location": what[3:]})
        elif not path.is_file():
            self.answer(404, b"nothing here")
        else:
            self.file(path.read_bytes(), asked, what)

    def file(self, data: bytes, asked: str | None, what: str) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        if wanted is None or what == "whole":
            self.answer(200, data, cut=what == "short", chunked=what == "broken chunk")
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if first >= len(data):
            self.answer(416, b"no such range", {"Content-Range": f"bytes */{len(data)}"})
            return
        shift = 3 if what == "another range" else 0
        part = data[first + shift : last + 1 + shift]
        headers = {} if what == "unsaid" else {"Content-Range": f"bytes {first + shift}-{last + shift}/{len(data)}"}
        self.answer(206, part, headers, cut=what == "short", slow=what == "slow")

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        cut: bool = False,
        chunked: bool = False,
        slow: bool = False,
    ) -> None:
        self.send_response(status)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(body) + body[:100])
            self.close_connection = True
            return
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: len(body) // 2] if cut else body
        self.server.num_bytes += len(body)
        while slow and body:
            self.wfile.write(body[:1])
            body = body[1:]
            time.sleep(0.05)
        self.wfile.write(body)
        self.close_connection = self.close_connection or cut

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], RangeServer]]:
    """Start servers of folders; they stop with the test."""
    started = []

    def start(root: Path) -> RangeServer:
        server = RangeServer(root)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()
