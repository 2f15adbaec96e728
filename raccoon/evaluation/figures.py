"""What an evaluation gives: figures with their intervals, floors, ceilings, bars and aims."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from raccoon.evaluation.bootstrap import Interval

Group = Literal["V2P", "grounding", "P2V"]
Unit = Literal["", "dB", "of 255"]


@dataclass(frozen=True, slots=True)
class Scores:
    """One figure's scores, one pair a scene: what was reached, and what was to be reached (1 where it is a mean)."""

    numerators: tuple[float, ...]
    denominators: tuple[float, ...]

    @classmethod
    def mean_of(cls, values: Sequence[float]) -> "Scores":
        """The scores of a figure that is the mean of ``values``."""
        return cls(tuple(float(value) for value in values), (1.0,) * len(values))

    @property
    def is_countable(self) -> bool:
        """Whether there was anything to reach."""
        return sum(self.denominators) > 0


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must reach.

    "exactly": equal to ``amount``. "times": at least ``amount`` times the best of the floors named in ``over``.
    "floor": at least the best of them. "clear": the interval's lower bound lies above the best of them. ``over`` empty
    = all floors.
    """

    kind: Literal["exactly", "times", "floor", "clear"]
    amount: float = 1.0
    over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """A floor or ceiling: its name and its figure, measured on the same scenes (or fewer, see ``interval.count``)."""

    name: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    ``interval`` the figure itself; ``floors`` and ``ceilings`` what it is held against; ``bar`` what it must reach,
    None where nothing is asked; ``aim`` what it should reach.
    """

    key: str
    name: str
    group: Group
    interval: Interval
    unit: Unit = ""
    floors: tuple[Reference, ...] = ()
    ceilings: tuple[Reference, ...] = ()
    bar: Bar | None = None
    aim: float | None = None

    @property
    def threshold(self) -> float | None:
        """The number that the bar asks for; None where there is no bar, or none of the floors it is measured from."""
        if self.bar is None:
            return None
        if self.bar.kind == "exactly":
            return self.bar.amount
        over = [floor.interval.value for floor in self.floors if not self.bar.over or floor.name in self.bar.over]
        return max(over) * (self.bar.amount if self.bar.kind == "times" else 1.0) if over else None

    @property
    def passed(self) -> bool | None:
        """Whether the bar is reached; None where nothing is asked."""
        threshold = self.threshold
        if self.bar is None or threshold is None:
            return None
        if self.bar.kind == "exactly":
            return self.interval.value == threshold
        if self.bar.kind == "clear":
            return self.interval.low > threshold
        return self.interval.value >= threshold

    @property
    def aim_reached(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        return None if self.aim is None else self.interval.value >= self.aim


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A finished evaluation.

    ``scores`` per figure the scores of every scene, by ``keys`` of the scenes; ``notes`` what could not be measured and
    what failed; ``settings``, ``facts`` (recipe, parts, versions, machine) as plain JSON; ``seconds`` of each stage.
    """

    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    seconds: Mapping[str, float]
    scores: Mapping[str, Scores] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def missed(self) -> tuple[Figure, ...]:
        """The figures that do not reach their bar."""
        return tuple(figure for figure in self.figures if figure.passed is False)

    def find(self, key: str) -> Figure:
        """Return the figure of a key.

        Raises:
            KeyError: if it was not measured.
        """
        for figure in self.figures:
            if figure.key == key:
                return figure
        raise KeyError(f"there is no figure {key!r}, there are {', '.join(figure.key for figure in self.figures)}")
