"""1,000 damaged samples and shards: nothing crashes or hangs, memory stays bounded, and every sample is accounted for.

The damages and the reading stand in ``fuzzing.py``, which runs in processes of its own: a decoder that died on hostile
bytes would take only that process with it, and is named here with the number of the case.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raccoon_datamodules.video import Video, encode_clip

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="bounds its memory as Linux does")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BATCH = 100


@pytest.fixture(scope="module")
def sound(make_shards, tmp_path_factory):
    """Six samples in three shards, and a clip that is large enough for decord."""
    folder = make_shards(tmp_path_factory.mktemp("fuzz") / "sound", 6, samples_per_shard=2)
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 96, 3), dtype=np.uint8)
    (folder / "large.mp4").write_bytes(encode_clip(Video.from_frames(noise, 8.0)))
    return folder


def run(sound, work, first, count):
    """The results of some cases; fails if the process did not come to its end."""
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzzing.py"), str(sound), str(work), str(first), str(count)],
        capture_output=True,
        text=True,
        timeout=1800,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "kernels", "datamodules")),
            "OMP_NUM_THREADS": "1",
        },
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended with {done.returncode} in {lines[-1:]}: {done.stderr[-2000:]}"
    results, last = [line for line in lines if "done" in line], lines[-1]
    assert [result["done"] for result in results] == list(range(first, first + count))
    return results, last["grown"]


def check(results, grown):
    for result in results:
        assert not result["wrong"], result
        # An allocation that fails under the bound on memory is one that would have taken the machine's.
        assert not any("emory" in why or "llocate" in why or why.endswith(": ") for why in result["reasons"]), result
        # A tar or an index that was made anew from damaged headers is another data set, perhaps a smaller one.
        if result["kind"] not in ("hostile file", "hostile tar", "hostile index"):
            assert result["equal"] + result["reported"] + result["changed"] >= 6, result
        if result["kind"].startswith("disk"):
            assert result["changed"] == 0, result
    assert grown < 256 << 20


def test_a_hundred_damages_of_all_kinds_are_accounted_for(sound, tmp_path):
    results, grown = run(sound, tmp_path, 0, BATCH)
    check(results, grown)
    kinds = {result["kind"] for result in results}
    assert len(kinds) == 24
    # The damages do something: in each kind there is a sample that is no longer what it was.
    quiet = {kind for kind in kinds if not any(r["reported"] + r["changed"] for r in results if r["kind"] == kind)}
    assert quiet == set()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(BATCH, 1000, BATCH))
def test_the_rest_of_a_thousand_damages_is_accounted_for(sound, tmp_path, first):
    check(*run(sound, tmp_path, first, BATCH))
