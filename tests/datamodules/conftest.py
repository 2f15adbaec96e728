"""Tiny samples and shards for the tests of the data layer, made without the procedural world."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
