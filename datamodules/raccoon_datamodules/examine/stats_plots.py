"""Distributions as pictures: one of the histograms, one of the counts. Needs matplotlib (the extra ``eval``)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raccoon_datamodules.atomic import check_writable, replacing
from raccoon_datamodules.examine.stats import COUNTS, MEASURES, PAPER_MEANS, DataStats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HERE, _PAPER, _INK = "#4c6a8f", "#c1440e", "#333333"
_COLUMNS = 3
_OF_OBJECTS = ("area", "visible", "object_words")
_LISTED = 15


def prepare(folder: str | Path, *, overwrite: bool = False) -> dict[str, Path]:
    """Where `draw` will write: its files by name; the folder is made.

    Raises:
        ImportError: if matplotlib is not installed.
        FileExistsError: if a file is there and ``overwrite`` is False, or the folder is a file.
        OSError: if the folder cannot be made or written.
    """
    _figure()
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"plots are drawn into a folder, but {folder} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.png" for name in ("distributions", "counts")}
    for path in files.values():
        check_writable(path, overwrite=overwrite)
    return files


def draw(stats: DataStats, files: dict[str, Path], *, overwrite: bool = False) -> None:
    """Draw what `prepare` prepared; raises as it does."""
    figures = {"distributions": _distributions(stats), "counts": _counts(stats)}
    for name, figure in figures.items():
        with replacing(files[name], overwrite=overwrite) as temporary:
            figure.savefig(temporary, dpi=110)


def _figure() -> type["Figure"]:
    try:
        # The object itself: pyplot would choose a window system and keep every figure.
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ImportError("plots need matplotlib, which is not installed; pip install 'raccoon-video[eval]'") from err
    return Figure


def _distributions(stats: DataStats) -> "Figure":
    # What is 0 everywhere (phrasings, edits) is told by the table.
    summaries = {name: stats.summary(name, bins=30) for name in MEASURES}
    found = {name: summary for name, summary in summaries.items() if summary is not None and summary.max > 0}
    rows = -(-len(found) // _COLUMNS)
    figure = _figure()(figsize=(4 * _COLUMNS, 2.6 * rows), layout="constrained")
    for axes, (name, summary) in zip(figure.subplots(rows, _COLUMNS, squeeze=False).flat, found.items(), strict=False):
        _plain(axes)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("objects" if name in _OF_OBJECTS else "clips", fontsize=8, color=_INK)
        if summary.min == summary.max:
            # One value: a narrow bar in the middle of an axis that begins at 0.
            axes.bar(summary.mean, summary.count, width=0.1 * (summary.mean or 1), color=_HERE)
            axes.set_xlim(0, max(2 * (summary.mean or 1), 1.1 * PAPER_MEANS.get(name, 0)))
        else:
            is_whole = all((edge - 0.5).is_integer() for edge in summary.edges)
            axes.xaxis.get_major_locator().set_params(integer=is_whole)
            axes.stairs(summary.counts, summary.edges, fill=True, color=_HERE)
        axes.set_title(MEASURES[name], fontsize=10, color=_INK)
        axes.axvline(summary.mean, color=_INK, linewidth=1, label=f"mean {summary.mean:.4g}")
        if name in PAPER_MEANS:
            axes.axvline(
                PAPER_MEANS[name], color=_PAPER, linewidth=1, linestyle="--", label=f"paper {PAPER_MEANS[name]}"
            )
        axes.legend(fontsize=8, frameon=False)
    for axes in figure.axes[len(found) :]:
        axes.set_axis_off()
    figure.suptitle(f"{stats.num_clips} clips, {stats.num_objects} objects", fontsize=12, color=_INK)
    return figure


def _counts(stats: DataStats) -> "Figure":
    shown = {name: title for name, title in COUNTS.items() if stats.counts[name]}
    figure = _figure()(figsize=(4 * len(shown), 4.5), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown.items(), strict=True):
        _plain(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(title, fontsize=10, color=_INK)
        listed = stats.counts[name].most_common(_LISTED)[::-1]
        bars = axes.barh([_label(label) for label, _ in listed], [count for _, count in listed], color=_HERE)
        axes.bar_label(bars, fontsize=8, padding=2, color=_INK)
        axes.margins(x=0.15)
        # Few bars stay as thin as many.
        axes.set_ylim(len(listed) - 0.4 - max(len(listed), 8), len(listed) - 0.4)
    return figure


def _label(text: str) -> str:
    shown = text if len(text) <= 24 else f"{text[:23]}…"
    # A dollar sign would begin a formula.
    return shown.replace("$", r"\$")


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_INK)
