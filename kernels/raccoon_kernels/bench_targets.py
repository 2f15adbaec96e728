"""What the kernels are to reach, and whether a run reached it.

A target is judged only from the results of the run it is given. One that the run holds no figures for is reported as
not measured; a miss is reported as a miss, with the figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .bench_cases import ITERATIONS, Case, Op
from .bench_machine import Ceilings
from .bench_report import Kind, Result

Verdict = Literal["pass", "miss", "not measured"]
# Average pooling takes float32, so the masks it is given are; as bool they are a quarter of that.
_OF_MASKS = "% of the memory of the masks in float32, beyond its inputs"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One target with what was found."""

    name: str
    verdict: Verdict
    found: str

    def __str__(self) -> str:
        return f"- **{self.verdict}**: {self.name}: {self.found}"


def judge(results: Sequence[Result], ceilings: Ceilings, *, device_type: str) -> list[Judgement]:
    """Judge every target of a device type ("cpu" or "cuda") from the results of one run."""
    wanted = set(target_cases(device_type))
    at_targets = [result for result in results if result.case in wanted]
    judged = _judge_cpu(at_targets) if device_type == "cpu" else _judge_gpu(at_targets, ceilings)
    return [*judged, _judge_errors(results)]


def target_cases(device_type: str) -> list[Case]:
    """Return the cases that the targets of a device type are judged on."""
    if device_type == "cpu":
        cases = [Case("superpixel_mean", f"F{f}", num_frames=f) for f in (32, 64, 100)]
        cases += [Case("mgs_pool", f"F{f}", num_frames=f) for f in (16, 32, 64, 100)]
        return cases
    large = [
        Case("superpixel_mean", "L", channels=3),
        Case("superpixel_mean", "L64", channels=64),
        Case("grid_weights", "L", dtype="bf16"),
        Case("mgs_pool", "L", dtype="bf16"),
        Case("overlapping_kmeans", "L", channels=6),
        Case("overlapping_kmeans", "L64", channels=64),
        Case("overlapping_kmeans", "L-v1", channels=6, overlap=1),
    ]
    cases = [replace(case, num_frames=100, label_dtype="int32") for case in large]
    return [*cases, Case("pipeline", "F16", num_frames=16, channels=5, dtype="bf16", label_dtype="int32")]


def _judge_cpu(results: Sequence[Result]) -> list[Judgement]:
    judgements = [
        _at_least(
            f"MGS pooling at {frames} frames is at least {factor:g}x faster than the eager version with masks",
            _speedup(results, "mgs_pool", f"F{frames}", "eager-masks"),
            factor,
            "x",
        )
        for frames, factor in ((16, 6.0), (100, 20.0))
    ]
    judgements += [
        _at_most(
            f"{case.op} at {case.num_frames} frames takes at most 1.15 times the best eager provider's time",
            _ratio_to_best(results, case.op, case.size, "eager"),
            1.15,
            "x",
        )
        for case in target_cases("cpu")
        if case.num_frames >= 32
    ]
    share = _memory_share(results, "F64")
    judgements.append(_at_most(f"MGS pooling at 64 frames: at most 5 {_OF_MASKS}", share, 5.0, f" {_OF_MASKS}"))
    return judgements


def _judge_gpu(results: Sequence[Result], ceilings: Ceilings) -> list[Judgement]:
    def share(size: str) -> float | None:
        found = _best(results, "superpixel_mean", size, "ours")
        return None if found is None else found.percent_of_copy(ceilings)

    def microseconds(op: Op, size: str, *, graph: bool = False) -> float | None:
        time_ms = _median(_best(results, op, size, "ours", graph=graph))
        per = ITERATIONS if op == "overlapping_kmeans" else 1
        return None if time_ms is None else 1e3 * time_ms / per

    pipeline = _median(_best(results, "pipeline", "F16", "ours", graph=True))
    clip = _median(_best(results, "pipeline", "F16", "other"))
    of_clip = None if pipeline is None or clip is None else 100.0 * pipeline / clip
    timed: tuple[tuple[str, Op, float], ...] = (
        ("grid weights", "grid_weights", 40.0),
        ("MGS pooling, bf16", "mgs_pool", 100.0),
    )
    iteration = f"k-means iteration, 100 frames, D=6, a {ITERATIONS}th of the whole call"
    return [
        _at_least("superpixel mean, 100 frames, C=64: 85 % of the copy bandwidth", share("L64"), 85.0, " %"),
        _at_least("superpixel mean, 100 frames, C=3: 60 % of the copy bandwidth", share("L"), 60.0, " %"),
        # Launched, a call of small kernels waits for Python; in a graph only the kernels' own time is left.
        *(
            _at_most(f"{name}, 100 frames, {how}: {bound:g} us", microseconds(op, "L", graph=graph), bound, " us")
            for name, op, bound in timed
            for how, graph in (("launched", False), ("in a graph", True))
        ),
        _at_least(
            "MGS pooling, 100 frames: 10x faster than the eager version with masks",
            _speedup(results, "mgs_pool", "L", "eager-masks"),
            10.0,
            "x",
        ),
        _at_least(
            "MGS pooling, 100 frames: 2x faster than the best compiled provider",
            _inverse(_ratio_to_best(results, "mgs_pool", "L", "compiled")),
            2.0,
            "x",
        ),
        _at_most(f"MGS pooling, 100 frames: at most 2 {_OF_MASKS}", _memory_share(results, "L"), 2.0, f" {_OF_MASKS}"),
        _at_most(f"{iteration}, launched: 40 us", microseconds("overlapping_kmeans", "L"), 40.0, " us"),
        _at_most(f"{iteration}, in a graph: 10 us", microseconds("overlapping_kmeans", "L", graph=True), 10.0, " us"),
        _at_most(
            "k-means at v = 1: no slower than flash-kmeans",
            _ratio_to_best(results, "overlapping_kmeans", "L-v1", "other"),
            1.0,
            "x its time",
        ),
        _at_most(
            f"MGS given labels, 16 frames, {ITERATIONS} iterations in a graph: 2 % of a CLIP-L/14@336 forward",
            of_clip,
            2.0,
            " %",
        ),
    ]


def _judge_errors(results: Sequence[Result]) -> Judgement:
    """Judge ours against the best of plain torch on the same case; float32's rounding (1.2e-7) is no error."""
    name = "error against float64 at most twice that of plain torch in the same dtype"
    worst, where = 0.0, ""
    for ours in results:
        if ours.kind != "ours" or ours.error is None:
            continue
        plain = [
            r.error
            for r in results
            if r.kind == "eager"
            and r.error is not None
            and r.status == "ok"
            and (r.case, r.mode) == (ours.case, ours.mode)
        ]
        if plain and ours.error / max(min(plain), 1.2e-7) > worst:
            worst = ours.error / max(min(plain), 1.2e-7)
            where = f"{ours.provider}, {ours.case.op} {ours.case.size} {ours.case.dtype} {ours.mode}"
    if not where:
        return Judgement(name, "not measured", "no case with both")
    return Judgement(name, "pass" if worst <= 2.0 else "miss", f"{worst:.3g} times at most ({where})")


def _best(results: Sequence[Result], op: Op, size: str, kind: Kind, *, graph: bool = False) -> Result | None:
    found = [
        result
        for result in results
        if (result.case.op, result.case.size, result.kind) == (op, size, kind)
        and result.mode == "fwd"
        and result.graph == graph
        and result.timing is not None
    ]
    return min(found, key=lambda result: _median(result) or 0.0, default=None)


def _median(result: Result | None) -> float | None:
    return None if result is None or result.timing is None else result.timing.p50


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1.0 / value


def _speedup(results: Sequence[Result], op: Op, size: str, provider: str) -> float | None:
    ours = _median(_best(results, op, size, "ours"))
    theirs = _median(_best([result for result in results if result.provider == provider], op, size, "eager"))
    return None if ours is None or theirs is None else theirs / ours


def _ratio_to_best(results: Sequence[Result], op: Op, size: str, kind: Kind) -> float | None:
    ours, theirs = _median(_best(results, op, size, "ours")), _median(_best(results, op, size, kind))
    return None if ours is None or theirs is None else ours / theirs


def _memory_share(results: Sequence[Result], size: str) -> float | None:
    ours = _best(results, "mgs_pool", size, "ours")
    return None if ours is None or ours.peak_bytes is None else 100.0 * ours.peak_bytes / ours.case.mask_bytes


def _at_least(name: str, value: float | None, bound: float, unit: str) -> Judgement:
    if value is None:
        return Judgement(name, "not measured", "the run holds no figure for it")
    return Judgement(name, "pass" if value >= bound else "miss", f"{value:.3g}{unit}, at least {bound:.3g} is wanted")


def _at_most(name: str, value: float | None, bound: float, unit: str) -> Judgement:
    if value is None:
        return Judgement(name, "not measured", "the run holds no figure for it")
    return Judgement(name, "pass" if value <= bound else "miss", f"{value:.3g}{unit}, at most {bound:.3g} is wanted")
