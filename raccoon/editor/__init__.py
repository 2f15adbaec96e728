"""The editor: two paragraphs, masks and a painter to an edited video that keeps everything else."""

from raccoon.editor.editor import Editor
from raccoon.editor.output import EncodedReport, check_output, inspect_encoded, write_result
from raccoon.editor.paste import ContractBroken, Measurements, paste_back
from raccoon.editor.regions import REMOVAL_PROMPT
from raccoon.editor.replay import ReplayReport, Verification, replay, verify
from raccoon.editor.request import (
    EditorSettings,
    EditProgress,
    EditRequest,
    EditResult,
    EditStep,
    PartError,
    Preparation,
)
from raccoon.editor.words import plan_of_words

__all__ = [
    "REMOVAL_PROMPT",
    "ContractBroken",
    "EditProgress",
    "EditRequest",
    "EditResult",
    "EditStep",
    "Editor",
    "EditorSettings",
    "EncodedReport",
    "Measurements",
    "PartError",
    "Preparation",
    "ReplayReport",
    "Verification",
    "check_output",
    "inspect_encoded",
    "paste_back",
    "plan_of_words",
    "replay",
    "verify",
    "write_result",
]
