"""The describer's network: visual encoder, MGS pooling, projector, and a Llama with LoRA (paper, section 3.1).

A clip becomes visual tokens [e^s ; e^l ; e^t] (whole frames, things, places), a two-layer projector maps them into the
language model's embeddings, and they take the ``<vid_patch>`` slots of the prompt. The encoder and the language model
are frozen; the projector, the LoRA on queries and values, the head and the rows of the three visual tokens learn.

The network knows nothing of Lightning. Saving and loading: `raccoon.models.video_llm_files`.
Source: RACCooN, sections 3.1 and 3.3; projector and LoRA sizes as in the released code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from raccoon.interfaces import SuperpixelModel
from raccoon.models.decoding import Constraint, Vocabulary
from raccoon.models.lora import LoraSettings, untie, with_lora
from raccoon.models.mgs import MGSPooling
from raccoon.models.visual_tokens import Projector, VisualTokenizer
from raccoon_datamodules.batch import V2PBatch
from raccoon_datamodules.conversation import IGNORE, VISUAL_TOKENS, Conversation

Trainable = Literal["paper", "all"]
TemplateName = Literal["vicuna_v1", "plain"]


class VideoLLM(nn.Module):
    """Clips and prompts to text.

    `from_parts` puts a new one together, `from_pretrained` loads a trained one.

    Args:
        encoder: a `raccoon.interfaces.VisualEncoder` that is a module; frozen here.
        language_model: a ``LlamaForCausalLM`` (or one built alike: ``model``, ``lm_head``); frozen here but its head.
        tokenizer: that of the language model; it must know the visual tokens.
        superpixels: what the pooling clusters.
        pooling: MGS pooling; its k is the number of localised tokens.
        num_frames: frames of a clip, t.
        lora: None trains no LoRA.
        template: of `raccoon_datamodules.conversation`.
        position_embeddings: add what a token stands for (its kind, frame, place, or a cluster's way through the clip)
            to the projected tokens. The paper relies on their order alone, and a miniature language model, which has
            seen no billion texts, does not learn that in minutes.
        normalize_features: normalise each token's features before the projector, whose outputs begin at the size of
            the language model's embeddings. Neither is the paper's; a projector that begins anew learns faster by it.
        max_length: longest input in tokens, answer included.

    Raises:
        ValueError: if the tokenizer does not fit (see `Conversation`), or has more tokens than the language model.
    """

    def __init__(
        self,
        encoder: nn.Module,
        language_model: nn.Module,
        tokenizer: Any,
        *,
        superpixels: SuperpixelModel,
        pooling: MGSPooling,
        num_frames: int = 16,
        lora: LoraSettings | None = None,
        template: TemplateName = "vicuna_v1",
        position_embeddings: bool = False,
        normalize_features: bool = False,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        self.visual = VisualTokenizer(encoder, superpixels, pooling, num_frames=num_frames)
        self.tokenizer = tokenizer
        self.template: TemplateName = template
        self.lora = lora
        self.position_embeddings = position_embeddings
        self.normalize_features = normalize_features
        self.conversation = Conversation(tokenizer, self.visual.num_visual_tokens, template, max_length=max_length)
        table: nn.Embedding = language_model.get_input_embeddings()  # type: ignore[operator]  # nn.Module hides methods
        if len(tokenizer) > table.num_embeddings:
            raise ValueError(
                f"the language model must have a row for each of the tokenizer's {len(tokenizer)} tokens, it has "
                f"{table.num_embeddings}; resize its embeddings or take its own tokenizer"
            )
        untie(language_model)
        self.projector = Projector(
            self.visual,
            table.embedding_dim,
            position_embeddings=position_embeddings,
            normalize_features=normalize_features,
            scale=float(table.weight.detach().float().pow(2).mean().sqrt()),
        )
        vocabulary = tokenizer.get_vocab()
        self.token_ids = [int(vocabulary[token]) for token in VISUAL_TOKENS]
        self.token_rows = nn.Parameter(table.weight.detach()[self.token_ids].float().clone())
        self.language_model = with_lora(language_model, lora)
        self.set_trainable("paper")
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_parts(
        cls,
        encoder: str,
        language_model: str,
        *,
        superpixels: SuperpixelModel,
        pooling: MGSPooling,
        encoder_revision: str | None = None,
        language_model_revision: str | None = None,
        num_frames: int = 16,
        layer: int = -2,
        pool: int = 1,
        lora: LoraSettings | None = None,
        template: TemplateName = "vicuna_v1",
        position_embeddings: bool = False,
        normalize_features: bool = False,
        max_length: int | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> "VideoLLM":
        """Put a new network together from pretrained parts; folders, or hub ids that are in the local cache.

        ``language_model`` may be a Llama or a LLaVA, whose projector is then taken as the start as well. Visual tokens
        that its tokenizer lacks are added with rows that are the mean of the others. ``layer`` and ``pool``: of
        `ClipVisionEncoder`. ``dtype`` is that of the frozen parts.

        Raises:
            FileNotFoundError: if a part is not there; names the command that fetches it.
            ValueError: if a part is damaged or does not fit.
        """
        from raccoon.models.video_llm_files import load_parts

        return load_parts(
            encoder,
            language_model,
            revisions=(encoder_revision, language_model_revision),
            encoder_settings={"layer": layer, "pool": pool},
            dtype=dtype,
            superpixels=superpixels,
            pooling=pooling,
            num_frames=num_frames,
            lora=lora,
            template=template,
            position_embeddings=position_embeddings,
            normalize_features=normalize_features,
            max_length=max_length,
        )

    @classmethod
    def from_pretrained(cls, weights: str | Path, *, revision: str | None = None) -> "VideoLLM":
        """Load what `save_pretrained` wrote, in float32 and evaluation mode. See `video_llm_files.load`."""
        from raccoon.models.video_llm_files import load

        return load(weights, revision=revision)

    def save_pretrained(self, folder: str | Path, *, dtype: str = "float16", encoder: str | None = None) -> None:
        """Write the network to a folder. See `video_llm_files.save`."""
        from raccoon.models.video_llm_files import save

        save(self, folder, dtype=dtype, encoder=encoder)

    @property
    def num_visual_tokens(self) -> int:
        """N = t + k + h w."""
        return self.visual.num_visual_tokens

    @property
    def llama(self) -> Any:
        """The language model itself, its LoRA inside."""
        return self.language_model.get_base_model() if self.lora else self.language_model  # type: ignore[operator]

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens as bytes, for constrained decoding; made once."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary.of(self.tokenizer)
        return self._vocabulary

    def set_trainable(self, trainable: Trainable) -> None:
        """Choose what learns: "paper" = projector, LoRA, head, visual tokens' rows; "all" = the language model too.

        The visual encoder never does. Raises ValueError for another word.
        """
        if trainable not in ("paper", "all"):
            raise ValueError(f"trainable must be 'paper' or 'all', got {trainable!r}")
        self.visual.requires_grad_(False)
        for name, parameter in self.language_model.named_parameters():
            parameter.requires_grad_(trainable == "all" or "lora_" in name)
        self.llama.lm_head.requires_grad_(True)

    def recompute_activations(self) -> None:
        """Recompute the language model's activations in the backward pass: less memory, a third more time."""
        llama = self.llama
        # The older name before transformers 5.23.
        enable = getattr(llama, "activation_checkpointing_enable", None) or llama.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def train(self, mode: bool = True) -> "VideoLLM":
        """As for any module, but the encoder stays in evaluation mode."""
        super().train(mode)
        self.visual.eval()
        return self

    def embed(
        self,
        input_ids: Tensor,
        *,
        frames: Tensor | None = None,
        grid: Tensor | None = None,
        superpixels: Tensor | None = None,
        superpixel_means: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [B, L, D] of ids [B, L] with the visual slots filled.

        ``frames`` [B, F, 3, H, W] in [0, 1], or ``grid`` [B, t, h, w, d], the encoder's cached features, with
        ``superpixels`` [B, F, H, W] and ``superpixel_means`` [B, F, S, C]; see `VisualTokenizer`. Without the latter
        two, superpixels of frames are computed, and of a grid the features themselves are clustered.

        Raises:
            ValueError: if not exactly one of frames and grid is given, or a row has not N slots.
        """
        slots = input_ids == self.conversation.patch_id
        counts = slots.sum(dim=1)
        if not bool((counts == self.num_visual_tokens).all()):
            raise ValueError(
                f"each row must hold {self.num_visual_tokens} visual slots, got {counts.tolist()}; make the ids with "
                "this network's `conversation`"
            )
        embeds = self.llama.get_input_embeddings()(input_ids)
        for row, index in zip(self.token_rows, self.token_ids, strict=True):
            embeds = torch.where((input_ids == index)[..., None], row.to(embeds.dtype), embeds)
        visual = self.projector(
            self.visual(frames=frames, grid=grid, superpixels=superpixels, superpixel_means=superpixel_means)
        )
        return embeds.masked_scatter(slots[..., None], visual.to(embeds.dtype))

    def forward(self, batch: V2PBatch) -> Tensor:
        """The loss of each sample, float32 [B]: mean cross-entropy of its answer's tokens, in nats.

        A mean within each sample, so that a step does not depend on how samples fall to ranks.
        """
        batch = batch.floats()
        embeds = self.embed(
            batch.input_ids,
            frames=batch.frames,
            grid=batch.grid,
            superpixels=batch.superpixels,
            superpixel_means=batch.superpixel_means,
        )
        return self.answer_loss(embeds, batch.attention_mask, batch.labels)

    def answer_loss(self, embeds: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The loss of each row, float32 [B], from embeddings [B, L, D]; labels [B, L] are -100 outside the answer."""
        hidden = self.llama.model(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False)
        return answer_loss(hidden.last_hidden_state, labels, self.llama.lm_head)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Tensor],
        *,
        frames: Tensor | None = None,
        grid: Tensor | None = None,
        superpixels: Tensor | None = None,
        superpixel_means: Tensor | None = None,
        constraints: Sequence[Constraint] | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Write one text per prompt.

        Args:
            prompts: ids [L] of each clip's prompt, `Conversation.prompt`.
            frames: see `embed`.
            grid: see `embed`.
            superpixels: see `embed`.
            superpixel_means: see `embed`.
            constraints: one for each prompt, or None to write freely; each has its own limit.
            max_new_tokens: of free text.
            temperature: 0 takes the likeliest token; above it, draws, by a generator of each row's own.
            seed: of the draws; a clip's draws are the same alone and in a batch.

        Raises:
            ValueError: if the numbers of prompts, clips and constraints differ, or a number is out of range.
        """
        clips = frames if frames is not None else grid
        if clips is None or len(prompts) != len(clips) or (constraints and len(constraints) != len(prompts)):
            given = 0 if clips is None else len(clips)
            raise ValueError(
                f"each prompt needs one clip and, if any, one constraint, got {len(prompts)} prompts, {given} clips "
                f"and {len(constraints or ())} constraints"
            )
        if max_new_tokens < 1 or temperature < 0:
            raise ValueError(f"max_new_tokens >= 1 and temperature >= 0, got {max_new_tokens} and {temperature}")
        device = self.token_rows.device
        input_ids, attention_mask = _pad_left(prompts, self.conversation.pad_id, device)
        embeds = self.embed(
            input_ids, frames=frames, grid=grid, superpixels=superpixels, superpixel_means=superpixel_means
        )
        limits = [one.max_new_tokens for one in constraints] if constraints else [max_new_tokens] * len(prompts)
        written = self._write(embeds, attention_mask, limits, constraints, temperature, seed)
        if constraints:
            return [one.text(ids) for one, ids in zip(constraints, written, strict=True)]
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
        return [text.removeprefix(" ") for text in texts]

    def _write(
        self,
        embeds: Tensor,
        attention_mask: Tensor,
        limits: Sequence[int],
        constraints: Sequence[Constraint] | None,
        temperature: float,
        seed: int,
    ) -> list[list[int]]:
        """Ids of each row up to and with the end token, or up to its limit."""
        eos, rows = self.conversation.eos_id, len(limits)
        draws = [torch.Generator().manual_seed(seed) for _ in limits]
        written: list[list[int]] = [[] for _ in limits]
        cache = None
        for _ in range(max(limits)):
            places = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
            out = self.llama.model(
                inputs_embeds=embeds,
                attention_mask=attention_mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            scores = self.llama.lm_head(out.last_hidden_state[:, -1]).float().cpu()
            chosen = []
            for row in range(rows):
                ids = written[row]
                if len(ids) >= limits[row] or (ids and ids[-1] == eos):
                    chosen.append(eos)
                    continue
                known = scores[row : row + 1]
                if constraints:
                    known = constraints[row](torch.tensor([ids], dtype=torch.int64).reshape(1, -1), known)
                ids.append(_choose(known[0], temperature, draws[row]))
                chosen.append(ids[-1])
            if all(ids[-1] == eos or len(ids) >= limit for ids, limit in zip(written, limits, strict=True)):
                break
            embeds = self.llama.get_input_embeddings()(torch.tensor(chosen, device=embeds.device)[:, None])
            attention_mask = functional.pad(attention_mask, (0, 1), value=1)
        return written


def answer_loss(hidden: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """Mean cross-entropy of each row's answer, float32 [B]; hidden [B, L, D], labels [B, L] with -100 elsewhere.

    The head sees the answers' positions only. A row without an answer has loss 0.
    """
    targets = labels[:, 1:]
    asked = targets != IGNORE
    logits = head(hidden[:, :-1][asked]).float()
    losses = functional.cross_entropy(logits, targets[asked], reduction="none")
    rows = asked.nonzero()[:, 0]
    sums = torch.zeros(len(labels), dtype=losses.dtype, device=losses.device).index_add(0, rows, losses)
    return sums / asked.sum(dim=1).clamp(min=1)


def _choose(scores: Tensor, temperature: float, draws: torch.Generator) -> int:
    if temperature == 0:
        return int(scores.argmax())
    return int(torch.multinomial((scores.double() / temperature).softmax(dim=0), 1, generator=draws))


def _pad_left(prompts: Sequence[Tensor], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, L] with every prompt ending in the last column."""
    length = max(len(ids) for ids in prompts)
    input_ids = torch.full((len(prompts), length), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(prompts), length), dtype=torch.int64)
    for row, ids in enumerate(prompts):
        input_ids[row, length - len(ids) :] = ids
        mask[row, length - len(ids) :] = 1
    return input_ids.to(device), mask.to(device)
