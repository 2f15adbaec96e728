"""What README.md and docs/ show runs: Python blocks are executed, command lines are parsed."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from raccoon.cli.main import build_parser
from raccoon.cli.train import VERBS as TRAINING_VERBS
from raccoon.cli.train import locate_configs
from raccoon_datamodules.masks import write_masks
from raccoon_datamodules.synthetic import make_sample, seed_of
from raccoon_datamodules.writer import write_shards

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A block whose first line is "# name.py" is that file.
FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks_of(document, *languages):
    text = document.read_text(encoding="utf-8")
    found = [Block(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]
    return [block for block in found if block.language in languages]


def commands_of(document):
    """Every line of a bash block that calls raccoon, as words without comment, variables and what it is piped to."""
    for block in blocks_of(document, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "raccoon" in words:
                words = words[words.index("raccoon") + 1 :]
                yield words[: words.index("|")] if "|" in words else words


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the documents take for granted: a clip, masks, two texts, shards, footage, a DAVIS of one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sample = make_sample(seed_of("test", 9), "easy")
    sample.video.write(tmp_path / "clip.mp4", lossless=True)
    car = next(thing for thing in sample.objects if thing.name == "Blue Car")
    write_masks(car.mask, tmp_path / "masks")
    write_masks(car.mask, tmp_path / "mask-1.npz")
    text = str(sample.paragraph)
    (tmp_path / "before.txt").write_text(text)
    (tmp_path / "after.txt").write_text("\n".join(line for line in text.splitlines() if "Blue Car:" not in line))
    write_shards((make_sample(seed) for seed in range(4)), tmp_path / "train", split="train")
    put_footage(tmp_path, sample.video, car.mask)
    return tmp_path


def put_footage(folder, video, mask):
    """The clip and its masks as a user's folder of footage, and once more in the layout of DAVIS."""
    for inner in ("footage/clips", "footage/masks", "DAVIS/Annotations/480p"):
        (folder / inner).mkdir(parents=True)
    video.write(folder / "footage/clips/one.mp4", lossless=True)
    write_masks(mask, folder / "footage/masks/one")
    write_masks(mask, folder / "DAVIS/Annotations/480p/one")
    (folder / "DAVIS/JPEGImages/480p/one").mkdir(parents=True)
    for number, frame in enumerate(video.frames):
        Image.fromarray(frame).save(folder / f"DAVIS/JPEGImages/480p/one/{number:05d}.jpg")
    (folder / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (folder / "DAVIS/ImageSets/2017/trainval.txt").write_text("one\n")


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if blocks_of(path, "python")], ids=lambda path: path.stem
)
def test_the_python_blocks_of_a_document_run_one_after_the_other(document, desk):
    namespace = {"__name__": "__main__"}
    for block in blocks_of(document, "python", "yaml"):
        if named := FILE.match(block.text):
            (desk / named[1]).write_text(block.text)
        elif block.language == "python":
            # Errors show the line of the document.
            exec(compile("\n" * (block.line - 1) + block.text, str(document), "exec"), namespace)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if [*commands_of(path)]], ids=lambda path: path.stem)
def test_the_command_lines_of_a_document_are_understood(document, desk):
    for block in blocks_of(document, "yaml"):
        if named := FILE.match(block.text):
            (desk / named[1]).write_text(block.text)
    for words in commands_of(document):
        if words[0] in TRAINING_VERBS:
            locate_configs(words[1:])
        else:
            _, unknown = build_parser().parse_known_args(words)
            assert not unknown, f"raccoon {shlex.join(words)}"
