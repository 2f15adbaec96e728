"""The paper's other benchmarks, read from local copies: DAVIS, YouCook2, ActivityNet Captions and UCF101.

Each reader looks at folders and lists only and gives a `Benchmark` of `BenchmarkItem`; pictures and masks are decoded
when an item is asked for them. Nothing is downloaded: an error says where a data set is published.
"""

from raccoon_datamodules.benchmarks.activitynet import activitynet_captions
from raccoon_datamodules.benchmarks.davis import davis, read_edits
from raccoon_datamodules.benchmarks.item import Benchmark, BenchmarkEdit, BenchmarkItem, Segment
from raccoon_datamodules.benchmarks.selection import hash_order
from raccoon_datamodules.benchmarks.ucf101 import ucf101
from raccoon_datamodules.benchmarks.youcook2 import youcook2

__all__ = [
    "Benchmark",
    "BenchmarkEdit",
    "BenchmarkItem",
    "Segment",
    "activitynet_captions",
    "davis",
    "hash_order",
    "read_edits",
    "ucf101",
    "youcook2",
]
