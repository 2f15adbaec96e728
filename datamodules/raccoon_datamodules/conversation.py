"""Text to token ids, with the slots that visual tokens fill.

A training example is one turn: system line, visual slots, instruction, answer. Only the answer and the end token after
it are learned (labels -100 elsewhere). The prompt is tokenized exactly as it is for generation, so that the boundary
between prompt and answer never falls inside a token.

Source: RACCooN, section 3.3; tokens and template as in the released code (Vicuna v1.1, ``<vid_start>``, the slots,
``<vid_end>``, a line break, the instruction).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor

IGNORE = -100
PATCH_TOKEN, START_TOKEN, END_TOKEN = "<vid_patch>", "<vid_start>", "<vid_end>"
# In the order of the released vocabulary: 32000, 32001, 32002 on top of Vicuna's.
VISUAL_TOKENS = (PATCH_TOKEN, START_TOKEN, END_TOKEN)


class Tokenizer(Protocol):
    """What a conversation needs of a tokenizer; every tokenizer of transformers offers it."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Text to ids."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id, added ones included."""
        ...


@dataclass(frozen=True, slots=True)
class Template:
    """How a turn is written: ``before`` the visual slots, ``after`` them (with ``{query}``), then the answer.

    ``joint`` stands between prompt and answer; it belongs to the answer's first token, so generation starts without it.
    """

    before: str
    after: str
    joint: str


TEMPLATES = {
    "vicuna_v1": Template(
        before=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
            "detailed, and polite answers to the user's questions. USER: "
        ),
        after="\n{query} ASSISTANT:",
        joint=" ",
    ),
    "plain": Template(before="", after="\n{query}\n", joint=""),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One encoded turn: ``input_ids`` and ``labels`` int64 [L]; ``is_truncated``: the answer did not fit in whole."""

    input_ids: Tensor
    labels: Tensor
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class TurnBatch:
    """Turns padded on the right: ``input_ids``, ``labels`` int64 and ``attention_mask`` int64 {0, 1}, all [B, L]."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor


def add_visual_tokens(tokenizer: Any) -> int:
    """Add the three visual tokens to a tokenizer of transformers, in the released order; return how many were new.

    The model's embeddings must then be resized to ``len(tokenizer)``.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in VISUAL_TOKENS if token not in vocabulary]
    return int(tokenizer.add_tokens(missing, special_tokens=True)) if missing else 0


class Conversation:
    """Writes instructions and answers as token ids.

    Args:
        tokenizer: a tokenizer that knows `VISUAL_TOKENS` (see `add_visual_tokens`).
        num_visual_tokens: N, the number of slots per video.
        template: "vicuna_v1" (the paper's language model) or "plain" (slots, instruction, answer, a line each).
        max_length: longest input in tokens, or None for no limit. Only an answer is ever cut to fit.

    Raises:
        ValueError: if the tokenizer lacks a visual token or an end token, N or max_length is not positive, or the
            template is unknown.
    """

    def __init__(
        self,
        tokenizer: Any,
        num_visual_tokens: int,
        template: Literal["vicuna_v1", "plain"] = "vicuna_v1",
        *,
        max_length: int | None = None,
    ) -> None:
        if template not in TEMPLATES:
            raise ValueError(f"template must be one of {', '.join(TEMPLATES)}, got {template!r}")
        if num_visual_tokens < 1:
            raise ValueError(f"num_visual_tokens must be at least 1, got {num_visual_tokens}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in VISUAL_TOKENS if token not in vocabulary]
        if missing:
            raise ValueError(
                f"the tokenizer must know the visual tokens, and lacks {', '.join(missing)}; call add_visual_tokens on "
                "it and resize the model's embeddings"
            )
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer must have an end token (eos_token_id), which the answers end with; it has none"
            )
        self.tokenizer = cast(Tokenizer, tokenizer)
        self.num_visual_tokens = num_visual_tokens
        self.template = TEMPLATES[template]
        self.max_length = max_length
        self.patch_id = int(vocabulary[PATCH_TOKEN])
        self.eos_id = int(tokenizer.eos_token_id)
        # Padding is masked everywhere, so any id will do where the tokenizer has none for it.
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)

    def prompt(self, query: str) -> Tensor:
        """Return the ids to generate from, int64 [L]: all of a turn before its answer.

        Raises:
            ValueError: if the query holds a visual token's name, or the prompt does not fit max_length.
        """
        return torch.tensor(self._prompt_ids(query), dtype=torch.int64)

    def turn(self, query: str, answer: str) -> Turn:
        """Encode one turn; labels are -100 up to the answer, then the answer's ids and the end token's.

        An answer that does not fit max_length is cut, loses its end token (it does not end there) and is flagged.

        Raises:
            ValueError: if query or answer holds a visual token's name, the answer is empty, or the prompt leaves no
                room for a single token of it.
        """
        self._refuse_visual_tokens("answer", answer)
        if not answer.strip():
            raise ValueError("an answer must not be empty: there would be nothing to learn but the end token")
        prompt_ids = self._prompt_ids(query)
        answer_ids = [*self._answer_ids(query, answer, prompt_ids), self.eos_id]
        room = len(answer_ids) if self.max_length is None else self.max_length - len(prompt_ids)
        kept = answer_ids[:room]
        return Turn(
            input_ids=torch.tensor(prompt_ids + kept, dtype=torch.int64),
            labels=torch.tensor([IGNORE] * len(prompt_ids) + kept, dtype=torch.int64),
            is_truncated=len(kept) < len(answer_ids),
        )

    def slots(self, input_ids: Tensor) -> Tensor:
        """Return where the visual tokens go: bool, of the shape of ``input_ids``, N times true in each row."""
        return input_ids == self.patch_id

    def collate(self, turns: Sequence[Turn]) -> TurnBatch:
        """Pad turns on the right to the longest and stack them.

        Raises:
            ValueError: if there are no turns.
        """
        if not turns:
            raise ValueError("a batch needs at least one turn, got none")
        length = max(len(turn.input_ids) for turn in turns)
        input_ids = torch.full((len(turns), length), self.pad_id, dtype=torch.int64)
        labels = torch.full((len(turns), length), IGNORE, dtype=torch.int64)
        attention_mask = torch.zeros((len(turns), length), dtype=torch.int64)
        for row, turn in enumerate(turns):
            input_ids[row, : len(turn.input_ids)] = turn.input_ids
            labels[row, : len(turn.labels)] = turn.labels
            attention_mask[row, : len(turn.input_ids)] = 1
        return TurnBatch(input_ids, labels, attention_mask)

    def _prompt_text(self, query: str) -> str:
        slots = START_TOKEN + PATCH_TOKEN * self.num_visual_tokens + END_TOKEN
        # str.replace, not str.format: a query may hold braces.
        return self.template.before + slots + self.template.after.replace("{query}", query)

    def _prompt_ids(self, query: str) -> list[int]:
        self._refuse_visual_tokens("query", query)
        ids = self._encode(self._prompt_text(query))
        slots = ids.count(self.patch_id)
        if slots != self.num_visual_tokens:
            raise ValueError(
                f"the prompt must hold {self.num_visual_tokens} visual slots, got {slots}; the tokenizer splits "
                f"{PATCH_TOKEN}: add it as a special token (add_visual_tokens)"
            )
        if self.max_length is not None and len(ids) >= self.max_length:
            raise ValueError(
                f"the prompt must be shorter than max_length = {self.max_length} to leave room for an answer, got "
                f"{len(ids)} tokens, {slots} of them visual; raise max_length or shorten the instruction"
            )
        return ids

    def _answer_ids(self, query: str, answer: str, prompt_ids: list[int]) -> list[int]:
        """The ids of the answer as the tokenizer writes it after the prompt."""
        whole = self._encode(self._prompt_text(query) + self.template.joint + answer)
        if whole[: len(prompt_ids)] == prompt_ids:
            return whole[len(prompt_ids) :]
        # The tokenizer merges across the boundary; generation never does, so the answer is encoded by itself.
        return list(self.tokenizer.encode(self.template.joint + answer, add_special_tokens=False))

    def _encode(self, text: str) -> list[int]:
        ids = list(self.tokenizer.encode(text, add_special_tokens=False))
        bos = self.tokenizer.bos_token_id
        return ids if bos is None else [int(bos), *ids]

    def _refuse_visual_tokens(self, what: str, text: str) -> None:
        held = [token for token in VISUAL_TOKENS if token in text]
        if held:
            raise ValueError(
                f"the {what} must not hold {', '.join(held)}, which would be taken for visual slots: {text!r:.80}"
            )
