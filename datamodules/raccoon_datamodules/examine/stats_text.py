"""Distributions as text: a table with small bar plots, beside the paper's figures."""

from collections import Counter

from raccoon_datamodules.annotate.statistics import PAPER
from raccoon_datamodules.examine.report import counted, printable
from raccoon_datamodules.examine.stats import COUNTS, MEASURES, PAPER_MEANS, DataStats

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR = 24
# Categories and sizes that are listed; the rest is one line.
_LISTED = 12


def sparkline(counts: tuple[int, ...]) -> str:
    """A histogram as one character a bin: blank for none, else an eighth to eight eighths of the highest."""
    top = max(counts, default=0)
    return "".join(" " if not count else _LEVELS[(len(_LEVELS) * count - 1) // top] for count in counts)


def table(stats: DataStats) -> str:
    """Everything, as a text of some forty lines of at most 120 columns."""
    blocks = [_totals(stats)]
    if stats.num_clips:
        blocks.append(_distributions(stats))
    blocks += [_counts(COUNTS[name], counter) for name, counter in stats.counts.items() if counter]
    if stats.num_unreadable:
        more = stats.num_unreadable - len(stats.unreadable)
        lines = [f"{counted(stats.num_unreadable, 'sample')} could not be read:", *map(printable, stats.unreadable)]
        blocks.append("\n".join([*lines, f"and {more} more"] if more else lines))
    return "\n\n".join(blocks)


def _totals(stats: DataStats) -> str:
    def described(number: int, of: int) -> list[tuple[str, str, str]]:
        return [("  of them described", f"{number}", "")] if number < of else []

    rows = [(f"{folder} ({stats.splits[folder]})", f"{count}", "") for folder, count in stats.folders.items()]
    rows = [
        *(rows if len(rows) > 1 else []),
        ("clips", f"{stats.num_clips}", f"{PAPER.num_videos / 1000:.1f}K"),
        *described(stats.num_described, stats.num_clips),
        ("objects with a mask", f"{stats.num_objects}", f"{PAPER.num_objects / 1000:.1f}K"),
        *described(stats.num_described_objects, stats.num_objects),
        ("inpainted clips", f"{stats.num_inpainted}", ""),
    ]
    wide = max(len(row[0]) for row in rows)
    head = f"{'':<{wide}} {'here':>9} {'paper':>7}"
    return "\n".join([head, *(f"{name:<{wide}} {here:>9} {paper:>7}".rstrip() for name, here, paper in rows)])


def _distributions(stats: DataStats) -> str:
    wide = max(map(len, MEASURES.values()))
    head = " ".join(f"{title:>8}" for title in ("least", "5 %", "median", "95 %", "most"))
    lines = [f"{'':<{wide}} {'mean':>8} {'paper':>7} {head}  distribution"]
    for name, title in MEASURES.items():
        found = stats.summary(name)
        if found is None:
            continue
        paper = f"{PAPER_MEANS[name]:.1f}" if name in PAPER_MEANS else ""
        numbers = (found.min, found.p5, found.median, found.p95, found.max)
        columns = " ".join(f"{_short(value):>8}" for value in numbers)
        line = f"{title:<{wide}} {_short(found.mean):>8} {paper:>7} {columns}  {sparkline(found.counts)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _short(value: float) -> str:
    """At most eight characters: whole numbers as such, others with four digits that count."""
    if value == int(value):
        return f"{int(value)}" if abs(value) < 1e8 else f"{value:.1e}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _counts(title: str, counter: Counter[str]) -> str:
    listed = counter.most_common(_LISTED)
    total = counter.total()
    wide = min(max(len(name) for name, _ in listed), 40)
    top = listed[0][1]
    lines = [f"{title} ({len(counter)} different)"]
    for name, count in listed:
        shown = printable(name if len(name) <= wide else f"{name[: wide - 1]}…")
        bar = "█" * round(_BAR * count / top) or "▏"
        lines.append(f"  {shown:<{wide}} {count:>9} {count / total:>6.1%}  {bar}")
    rest = total - sum(count for _, count in listed)
    if rest:
        lines.append(f"  {f'{len(counter) - len(listed)} others':<{wide}} {rest:>9} {rest / total:>6.1%}")
    return "\n".join(lines)
