"""UCF101: short clips of 101 human actions; in the paper conditional generation.

Layout of the two published archives (UCF101.rar, UCF101TrainTestSplits-RecognitionTask.zip)::

    ROOT/UCF-101/<Class>/v_<Class>_g01_c01.avi
    ROOT/ucfTrainTestlist/classInd.txt                 "1 ApplyEyeMakeup", a class a line
    ROOT/ucfTrainTestlist/{train,test}list0{1,2,3}.txt "<Class>/v_<Class>_g08_c01.avi 1", in test lists no number

Source: the paper, appendix A.2: "We uniformly selected 100 videos from those 3 datasets"; read as 100 of each here. It
names no split; the first test list is the default. Clips have no captions: what stands for one is the class in words.
"""

import re
from pathlib import Path
from typing import Literal

from raccoon_datamodules.benchmarks.item import Benchmark, BenchmarkItem
from raccoon_datamodules.benchmarks.selection import Names, need, select

PUBLISHED = "https://www.crcv.ucf.edu/data/UCF101.php"
LAYOUT = "ROOT/UCF-101/CLASS/v_CLASS_g01_c01.avi and ROOT/ucfTrainTestlist/classInd.txt"
# Of the paper's selection.
COUNT = 100


def ucf101(
    root: str | Path,
    *,
    split: Literal["train", "test"] = "test",
    fold: Literal[1, 2, 3] = 1,
    count: int | None = COUNT,
    seed: int = 0,
    names: Names | None = None,
) -> Benchmark:
    """The clips of one of UCF101's lists; ``label`` is the class, the caption the class in words ("apply eye makeup").

    ``count`` clips in hash order (100 in the paper; None = all), or those of ``names``: a text file with one
    "v_ApplyEyeMakeup_g01_c01" a line, or a sequence.

    Raises:
        FileNotFoundError: if the clips or lists are not there; the sentence says where to get them.
        ValueError: if a list is not as published, or fewer clips are there than asked for.
    """
    root = Path(root)
    if split not in ("train", "test") or fold not in (1, 2, 3):
        raise ValueError(f"UCF101 has the lists train and test of the folds 1, 2 and 3, got {split} {fold}")
    clips = need(root / "UCF-101", "UCF101", PUBLISHED, LAYOUT)
    lists = need(root / "ucfTrainTestlist", "UCF101", PUBLISHED, LAYOUT)
    classes = _classes(need(lists / "classInd.txt", "UCF101", PUBLISHED, LAYOUT))
    path = need(lists / f"{split}list0{fold}.txt", "UCF101", PUBLISHED, LAYOUT)
    files: dict[str, Path] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        place, *label = line.split()
        folder, slash, file = place.partition("/")
        if not slash or folder not in classes or (label and label != [classes[folder]]):
            raise ValueError(
                f"{path}, line {number} must be CLASS/CLIP.avi of a class of classInd.txt, with that class's number or "
                f"none, got {line.strip()!r:.80}"
            )
        files[Path(file).stem] = clips / folder / file

    def make(name: str) -> BenchmarkItem | None:
        file = files[name]
        if not file.is_file():
            return None
        return BenchmarkItem(name, file, captions=(_in_words(file.parent.name),), label=file.parent.name)

    return select("UCF101", files, make, count=count, seed=seed, chosen=names)


def _classes(path: Path) -> dict[str, str]:
    """Class to its number, as it stands in the lists."""
    classes: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and (len(words) != 2 or not words[0].isdecimal()):
            raise ValueError(f"{path} must hold a number and a class a line, got {line!r:.80}")
        if words:
            classes[words[1]] = words[0]
    return classes


def _in_words(name: str) -> str:
    """A class in words: "ApplyEyeMakeup" is "apply eye makeup"."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()
