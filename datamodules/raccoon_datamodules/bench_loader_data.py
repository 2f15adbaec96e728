"""What the loader's benchmark reads: shards of rendered scenes or of real clips, and the same as loose files."""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from raccoon_datamodules import members
from raccoon_datamodules.index import Index
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.sample import ObjectRecord, VplmSample, encode
from raccoon_datamodules.shard import Member, Shard
from raccoon_datamodules.synthetic import make_sample, seed_of
from raccoon_datamodules.video import Video, encode_clip
from raccoon_datamodules.writer import write_encoded

# Constant rate factor of real clips in shards: what libx264 calls visually lossless.
CLIP_CRF = 18


@dataclass(frozen=True, slots=True)
class Workload:
    """Samples to read: ``shards`` and the loose files of the same in ``folder``; what is made of each.

    ``task`` of `tasks.P2V_TASKS`; ``num_frames`` of ``size`` (height, width) are asked for of each clip.
    """

    name: str
    shards: Path
    folder: Path
    num_samples: int
    task: str
    num_frames: int
    size: tuple[int, int]


def synthetic_workload(work: Path, *, count: int, num_shards: int = 8) -> Workload:
    """Rendered scenes of 8 frames of 64 x 64, stored losslessly; an object is removed from each.

    Raises:
        ValueError: if there are fewer scenes than shards.
    """
    if count < num_shards:
        raise ValueError(f"at least {num_shards} samples are needed, one a shard, got {count}")
    shards = work / "synthetic"
    scenes = (make_sample(seed_of("train", i), "easy", num_frames=8, size=(64, 64), fps=8.0) for i in range(count))
    items = ((scene.key, encode(scene)) for scene in scenes)
    write_encoded(items, shards, samples_per_shard=-(-count // num_shards), overwrite=True)
    return Workload("synthetic", shards, unpack(shards, work / "synthetic-files"), count, "remove", 8, (64, 64))


def clips_workload(
    work: Path, clips: Path, *, max_frames: int = 48, num_frames: int = 16, size: tuple[int, int] = (336, 336)
) -> Workload:
    """Real clips at the size they have, stored as H.264; of each, 16 frames of 336 x 336 of two clips are asked for.

    Raises:
        FileNotFoundError: if there is no video in the folder.
    """
    paths = sorted(path for path in clips.glob("*") if path.suffix.lower() in (".mp4", ".mov", ".mkv", ".avi"))
    if not paths:
        raise FileNotFoundError(f"{clips} must hold video files (.mp4, .mov, .mkv, .avi), it holds none")
    shards = work / "clips"
    items = list(_clips(paths, max_frames))
    write_encoded(items, shards, samples_per_shard=max(1, len(items) // 4), overwrite=True)
    return Workload("clips", shards, unpack(shards, work / "clips-files"), len(items), "remove", num_frames, size)


def index_workload(work: Path, *, num_samples: int, samples_per_shard: int = 1000) -> Workload:
    """Shards of which only the index is there, each sample with two objects: to time what opens and orders them."""
    suffixes = ["meta.json", "paragraph.json", "edits.json", "video.mp4"]
    suffixes += [members.object_suffix(kind, i) for i in ("1", "2") for kind in ("object", "mask", "inpainted")]
    rng = np.random.default_rng(0)
    shards = []
    for number in range(-(-num_samples // samples_per_shard)):
        samples = []
        end = 512
        for i in range(number * samples_per_shard, min((number + 1) * samples_per_shard, num_samples)):
            found = []
            lengths, checksums = (rng.integers(100, high, len(suffixes)).tolist() for high in (60_000, 1 << 32))
            for suffix, length, crc32 in zip(suffixes, lengths, checksums, strict=True):
                found.append(Member(suffix, end, length, crc32))
                end += -(-length // 512) * 512 + 512
            samples.append((f"video-{i:07d}", found))
        shards.append(Shard.from_samples(f"vplm-train-{number:06d}.tar", samples, size=end, sha256=f"{number:064x}"))
    work.mkdir(parents=True, exist_ok=True)
    Index("train", tuple(shards), str(work)).save(work)
    return Workload("index", work, work, num_samples, "remove", 8, (64, 64))


def unpack(shards: Path, folder: Path) -> Path:
    """Write the members of all tars of a folder as files of another; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                data = tar.extractfile(info)
                if data is not None and info.isreg():
                    key, suffix = members.split_name(info.name)
                    (folder / f"{key}.{suffix}").write_bytes(data.read())
    return folder


def _clips(paths: Iterable[Path], max_frames: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    for number, path in enumerate(paths):
        video = Video.read(path)
        # The first seconds, as a cut clip has them.
        video = Video.from_frames(video.frames[:max_frames], video.fps)
        mask = np.zeros(video.frames.shape[:3], dtype=np.uint8)
        mask[:, video.height // 4 : video.height // 2, video.width // 4 : video.width // 2] = 1
        name, text = "Thing", "What is seen in the middle of the picture."
        paragraph = Paragraph(f"The clip {path.stem}.", (ObjectDescription(name, text),))
        # Nobody has removed anything here: the mirrored clip is another one that costs as much to decode.
        other = video.with_frames(np.ascontiguousarray(video.frames[:, :, ::-1]))
        record = ObjectRecord("1", name, "thing", text, mask, boxes_of(mask), other, {})
        sample = VplmSample(f"clip-{number:04d}", video, paragraph, (record,))
        yield sample.key, encode(sample, encode_video=partial(encode_clip, crf=CLIP_CRF))
