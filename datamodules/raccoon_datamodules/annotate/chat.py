"""What the annotator asks of a chat model, and how a model says that something went wrong.

Any object with ``chat(images, text) -> str`` will do. One that raises the exceptions below is treated better than one
that raises something else: the annotator knows whether to ask again, to give up the video, or to stop the run.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ChatModel(Protocol):
    """A conversational model that sees images."""

    def chat(self, images: Sequence[NDArray[np.uint8]], text: str, /) -> str:
        """Answer ``text`` about the images (uint8 [H, W, 3] RGB)."""
        ...


class ChatError(RuntimeError):
    """This request failed for good; others may go well."""


class AnswerRefused(ChatError):
    """The model declined to answer; asking again would not help."""


class AnswerCut(ChatError):
    """The answer ended at the length limit; ``partial`` is what came."""

    def __init__(self, message: str, partial: str = "") -> None:
        super().__init__(message)
        self.partial = partial


class ChatStopped(RuntimeError):
    """No further request makes sense: the spending limit is reached, the key is wrong, no server answers."""
