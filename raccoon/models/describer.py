"""The describer as a plug-in of the editor: a video to a paragraph, and a box in each frame for an object to be added.

Frames are taken evenly over the clip (``int(i n / F)``), stretched to the encoder's square like those it was trained
on, and answered to by a `VideoLLM` under constrained decoding: every answer parses and ends within its limit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raccoon.interfaces import DescribeRequest, Description, PlanRequest
from raccoon.models.decoding import Constraint
from raccoon.models.grammars import Grammar, LineGrammar, ParagraphGrammar
from raccoon.models.layout_grammar import LayoutGrammar
from raccoon.models.video_llm import VideoLLM
from raccoon_datamodules import prompts
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph
from raccoon_datamodules.pixels import resize
from raccoon_datamodules.tasks import sample_frames
from raccoon_datamodules.video import Video

DESCRIBE_OPTIONS = ("object", "seed", "temperature")
PLAN_OPTIONS = ("seed", "temperature")


class VideoLLMDescriber:
    """A `raccoon.interfaces.Describer` and `LayoutPlanner`.

    Options of a request: ``seed`` (int, default 0) and ``temperature`` (float, default this object's); to describe one
    object (task "object") its name as ``object`` as well.

    Args:
        weights: folder or hub id of a trained `VideoLLM`.
        revision: of a hub id.
        num_frames: frames shown; None = as many as the network was trained on, which is all it can take.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: of the weights: "float32", "float16" or "bfloat16".
        max_objects: the most objects in a paragraph.
        max_new_tokens: of a paragraph.
        max_layout_tokens: of a layout; raised where the frames need more.
        temperature: 0 takes the likeliest text.
        batch_size: clips at once in `describe_batch` and `plan_batch`.

    Raises:
        FileNotFoundError: if the weights are not there; names the command that trains or fetches them.
        ValueError: if they are damaged, num_frames is not the network's, or a number is out of range.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        revision: str | None = None,
        num_frames: int | None = None,
        device: str = "auto",
        dtype: str = "float32",
        max_objects: int = prompts.MAX_OBJECTS,
        max_new_tokens: int = 512,
        max_layout_tokens: int = 640,
        temperature: float = 0.0,
        batch_size: int = 16,
    ) -> None:
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
        if batch_size < 1 or temperature < 0:
            raise ValueError(f"batch_size >= 1 and temperature >= 0 must hold, got {batch_size} and {temperature}")
        network = VideoLLM.from_pretrained(weights, revision=revision)
        trained = network.visual.num_frames
        if num_frames not in (None, trained):
            raise ValueError(f"num_frames must be {trained}, which {weights} was trained on, got {num_frames}")
        where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.network = network.to(where, getattr(torch, dtype)).eval()
        self.weights = str(weights)
        self.num_frames = trained
        self.max_layout_tokens = max_layout_tokens
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.batch_size = batch_size
        # Kept, since a constraint remembers which tokens its states allow.
        self._paragraph = Constraint(network.vocabulary, ParagraphGrammar(max_objects), max_new_tokens)

    def describe(self, request: DescribeRequest, /) -> Description:
        """Write the paragraph of a video, or (task "object") of one object of it.

        Raises:
            ValueError: if an option is unknown or the task is.
        """
        return self.describe_batch([request])[0]

    def plan(self, request: PlanRequest, /) -> Layout:
        """Place an object: a box for every frame of the video, linear between the frames that were shown.

        Raises:
            ValueError: if an option is unknown.
        """
        return self.plan_batch([request])[0]

    def describe_batch(self, requests: Sequence[DescribeRequest]) -> list[Description]:
        """Describe several videos at once. Raises as `describe`."""
        asked = [self._question(request) for request in requests]
        texts = self._answers([request.video for request in requests], asked, [request.options for request in requests])
        return [
            Description(_paragraph(request, text), text, self._record(request.video, request.options))
            for request, text in zip(requests, texts, strict=True)
        ]

    def plan_batch(self, requests: Sequence[PlanRequest]) -> list[Layout]:
        """Place several objects at once. Raises as `plan`."""
        asked: list[tuple[str, Constraint]] = []
        for request in requests:
            _check_options(request.options, PLAN_OPTIONS)
            thing = request.object
            query = prompts.plan_layout(thing.name, num_frames=self.num_frames, description=thing.description)
            grammar = LayoutGrammar(thing.name, self.num_frames)
            asked.append((query, self._roomy(grammar, self.max_layout_tokens)))
        texts = self._answers([request.video for request in requests], asked, [request.options for request in requests])
        return [
            Layout.parse(text, num_frames=self.num_frames)[0].resample(request.video.num_frames)
            for request, text in zip(requests, texts, strict=True)
        ]

    def _question(self, request: DescribeRequest) -> tuple[str, Constraint]:
        _check_options(request.options, DESCRIBE_OPTIONS)
        name = request.options.get("object")
        if request.task == "all":
            if name is not None:
                raise ValueError(f"option object belongs to task 'object', and the task is 'all'; got object {name!r}")
            return prompts.DESCRIBE_ALL, self._paragraph
        if request.task != "object":
            raise ValueError(f"task must be 'all' or 'object', got {request.task!r}")
        if not isinstance(name, str):
            raise ValueError(f"task 'object' needs the option object, the name of the one to describe, got {name!r}")
        grammar = LineGrammar(name)
        return prompts.describe_object(name), Constraint(self.network.vocabulary, grammar, self.max_new_tokens)

    def _roomy(self, grammar: Grammar, limit: int) -> Constraint:
        """A constraint with the limit, or with room for the longest boxes where a name needs more."""
        constraint = Constraint(self.network.vocabulary, grammar, 1 << 20)
        constraint.max_new_tokens = max(limit, 2 * constraint.least)
        return constraint

    def _answers(
        self, videos: Sequence[Video], asked: Sequence[tuple[str, Constraint]], options: Sequence[Any]
    ) -> list[str]:
        texts: list[str] = []
        start = 0
        while start < len(videos):
            drawn = self._draws(options[start])
            end = start
            # Draws are a batch's; what differs in them goes into the next one.
            while end < min(len(videos), start + self.batch_size) and self._draws(options[end]) == drawn:
                end += 1
            texts += self.network.generate(
                [self.network.conversation.prompt(query) for query, _ in asked[start:end]],
                frames=torch.stack([self._frames(video) for video in videos[start:end]]),
                constraints=[constraint for _, constraint in asked[start:end]],
                temperature=drawn[0],
                seed=drawn[1],
            )
            start = end
        return texts

    def _draws(self, options: Any) -> tuple[float, int]:
        return float(options.get("temperature", self.temperature)), int(options.get("seed", 0))

    def _frames(self, video: Video) -> Tensor:
        """The frames shown: [F, 3, S, S] in [0, 1] at the encoder's size, on the network's device."""
        encoder: Any = self.network.visual.encoder
        shown = video.frames[sample_frames(video.num_frames, self.num_frames)]
        square = resize(np.ascontiguousarray(shown), (encoder.image_size, encoder.image_size))
        pixels = torch.from_numpy(square).permute(0, 3, 1, 2).to(self.network.token_rows.device)
        return pixels.to(self.network.token_rows.dtype) / 255

    def _record(self, video: Video, options: Any) -> dict[str, Any]:
        temperature, seed = self._draws(options)
        return {
            "weights": self.weights,
            "frame_indices": sample_frames(video.num_frames, self.num_frames),
            "size": [int(getattr(self.network.visual.encoder, "image_size"))] * 2,  # noqa: B009 -- nn.Module hides it
            "temperature": temperature,
            "seed": seed,
            "max_new_tokens": self.max_new_tokens,
        }


def _paragraph(request: DescribeRequest, text: str) -> Paragraph:
    if request.task == "all":
        return Paragraph.parse(text)[0]
    return Paragraph("", (ObjectDescription.parse(text),))


def _check_options(options: Any, known: Sequence[str]) -> None:
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; this describer takes {', '.join(known)}")
