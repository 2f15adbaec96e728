"""Evaluation: a pipeline recipe on held-out scenes, every figure beside its floor and its ceiling.

    from raccoon.editor import Editor
    from raccoon.evaluation import EvaluationSettings, evaluate, to_markdown

    done = evaluate(Editor.from_recipe("pipeline/tiny"), EvaluationSettings())
    print(to_markdown(done))

The measures of one clip stand in `raccoon.evaluation.measures`.
"""

from raccoon.evaluation.bootstrap import Interval, ratio_interval
from raccoon.evaluation.figures import Bar, Evaluation, Figure, Reference, Scores
from raccoon.evaluation.run import EvaluationSettings, evaluate
from raccoon.evaluation.tables import to_json, to_markdown, write_tables

__all__ = [
    "Bar",
    "Evaluation",
    "EvaluationSettings",
    "Figure",
    "Interval",
    "Reference",
    "Scores",
    "evaluate",
    "ratio_interval",
    "to_json",
    "to_markdown",
    "write_tables",
]
