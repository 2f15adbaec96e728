"""Damages shards and samples in reproducible ways and reads them: run as a script by ``test_fuzz.py``.

    python fuzzing.py FOLDER WORK FIRST COUNT

reads the shards of FOLDER after each of the damages FIRST to FIRST + COUNT - 1 (a damage follows from its number) and
prints a line of JSON for each. It runs in a process of its own, so that a crash of a decoder is seen by whoever started
it, with a bound on memory and on the time of each case.

Kinds named ``disk ...`` damage files under an index that is as it was: there every sample must come back as it was
written or be reported. Kinds named ``hostile ...`` come with checksums that fit, as from somebody who means harm: there
nothing may crash, hang, take memory without measure, or touch a sample beside the damaged one.
"""

import faulthandler
import hashlib
import json
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
from damage_members import CLIP_DAMAGES, MEMBER_DAMAGES, Rng
from damage_shards import DISK_DAMAGES, hostile_index, hostile_tar

from raccoon_datamodules.index import Index
from raccoon_datamodules.sample import VplmSample, decode
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.video import Video
from raccoon_datamodules.writer import write_encoded

# Beyond what is in use after the imports.
MEMORY = 1 << 30
SECONDS = 60


def digest(sample: VplmSample) -> str:
    """What a sample holds, as a hash."""
    found = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            found.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())

    add(sample.key, sample.video.frames, sample.video.fps, sample.video.timestamps, str(sample.paragraph))
    add([str(p) for p in sample.phrasings], [repr(e) for e in sample.edits], json.dumps(sample.meta, sort_keys=True))
    for one in sample.objects:
        add(one.id, one.name, one.category, one.description, one.mask, one.boxes, sorted(one.attributes.items()))
        add(None if one.inpainted is None else one.inpainted.frames)
    return found.hexdigest()


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """The members of all samples by key."""
    source = ShardSource(folder)
    return {
        source.name(shard, i)[1]: source.read(shard, i) for shard, n in enumerate(source.shard_sizes) for i in range(n)
    }


OTHER_DAMAGES = (
    "hostile, members swapped between samples",
    "hostile, members missing",
    "hostile index",
    "hostile tar",
    "hostile file",
)
KINDS = (*DISK_DAMAGES, *MEMBER_DAMAGES, *OTHER_DAMAGES)


def damage_samples(
    kind: str, whole: dict[str, dict[str, bytes]], rng: Rng
) -> tuple[dict[str, dict[str, bytes]], set[str]]:
    """The samples with one of them damaged, and the keys that may have changed."""
    out = {key: dict(data) for key, data in whole.items()}
    keys = sorted(out)
    key, other = (keys[i] for i in rng.permutation(len(keys))[:2])
    if kind in MEMBER_DAMAGES:
        endings, work = MEMBER_DAMAGES[kind]
        names = [name for name in out[key] if name.endswith(endings)]
        name = names[rng.integers(len(names))]
        out[key][name] = work(out[key][name], rng)
        return out, {key}
    if kind == "hostile, members swapped between samples":
        for name in list(out[key]):
            if name in out[other] and rng.random() < 0.5:
                out[key][name], out[other][name] = out[other][name], out[key][name]
        return out, {key, other}
    for name in list(out[key]):
        if rng.random() < 0.3:
            value = out[key].pop(name)
            if rng.random() < 0.5:
                out[key][
                    ["mask-2.npz", "inpainted-1.npz", "x.pyd", "video.pickle", "object-99.json"][rng.integers(5)]
                ] = value
    out[key].setdefault("x.json", b"{}")
    return out, {key}


def read_all(folder: Path) -> dict[str, tuple[str | None, str]]:
    """Each sample of the index: (its digest, "") or (None, why it cannot be read)."""
    source = ShardSource(folder)
    found = {}
    for shard, count in enumerate(source.shard_sizes):
        for i in range(count):
            key = source.name(shard, i)[1]
            try:
                view = source.view(shard, i)
                sample = decode(source.read(shard, i))
                small = view.clip([0, 2], (8, 8))
                fits = small.shape == (2, 8, 8, 3) and all(
                    one.mask.shape == sample.video.frames.shape[:3] for one in sample.objects
                )
                found[key] = (digest(sample), "") if fits and sample.key == key else (None, "WRONG SHAPE OR KEY")
            except (ValueError, OSError) as err:
                found[key] = None, f"{type(err).__name__}: {err}"
    return found


def run_case(number: int, folder: Path, work: Path, whole: dict[str, dict[str, bytes]], truth: dict[str, str]) -> dict:
    """Make one damage, read everything, and say what came of each sample."""
    kind = KINDS[number % len(KINDS)]
    rng = np.random.default_rng(number)
    target = work / f"case-{number}"
    touched = set(truth)
    try:
        if kind == "hostile file":
            names = sorted(CLIP_DAMAGES)
            damage = CLIP_DAMAGES[names[rng.integers(len(names))]]
            path = work / f"case-{number}.mp4"
            path.write_bytes(damage((folder / "large.mp4").read_bytes(), rng))
            try:
                Video.read(path)
                return {"kind": kind, "equal": 1, "reported": 0, "changed": 0, "wrong": [], "reasons": []}
            except (ValueError, OSError, RuntimeError) as err:
                reasons = [f"{type(err).__name__}: {err}"]
                return {"kind": kind, "equal": 0, "reported": 1, "changed": 0, "wrong": [], "reasons": reasons}
            finally:
                path.unlink()
        if kind in DISK_DAMAGES or kind in ("hostile index", "hostile tar"):
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.mp4"))
            {**DISK_DAMAGES, "hostile index": hostile_index, "hostile tar": hostile_tar}[kind](target, rng)
            if kind == "hostile tar":
                Index.build(target).save(target)
        else:
            damaged, touched = damage_samples(kind, whole, rng)
            write_encoded(sorted(damaged.items()), target, samples_per_shard=2)
        found = read_all(target)
    except (ValueError, OSError) as err:
        # The data set as a whole is refused: every sample is accounted for.
        found = {key: (None, f"{type(err).__name__}: {err}") for key in truth}
    finally:
        shutil.rmtree(target, ignore_errors=True)
    equal = [key for key, (hashed, _) in found.items() if hashed is not None and hashed == truth.get(key)]
    reported = [key for key, (hashed, _) in found.items() if hashed is None]
    changed = set(found) - set(equal) - set(reported)
    # With fitting checksums another picture is another picture; on disk it would be a silent error.
    wrong = changed if kind.startswith("disk") else changed - touched
    wrong |= set(truth) - set(found) if kind.startswith("disk") else set()
    reasons = sorted({why for _, why in found.values() if why})
    return {
        "kind": kind,
        "equal": len(equal),
        "reported": len(reported),
        "changed": len(changed),
        "wrong": sorted(wrong) + [why for why in reasons if why.startswith("WRONG")],
        "reasons": reasons[:3],
    }


def main(folder: Path, work: Path, first: int, count: int) -> None:
    """Run the cases and print a line for each, begun and done."""
    whole = contents(folder)
    truth = {key: digest(decode(data)) for key, data in whole.items()}
    Video.read(folder / "large.mp4")
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, first + count):
        print(json.dumps({"begun": number}), flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(json.dumps({"done": number, **run_case(number, folder, work, whole, truth)}), flush=True)
        faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"grown": grown}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
