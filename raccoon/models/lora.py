"""LoRA on a language model's queries and values, by peft (Hu et al., 2021; RACCooN, section 3.3)."""

import warnings
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """LoRA on the query and value projections: rank r, ``alpha`` (the update is scaled by alpha / r), dropout.

    Raises:
        ValueError: if rank is not positive or dropout outside [0, 1).
    """

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA needs rank >= 1 and dropout in [0, 1), got {self.rank} and {self.dropout}")


def untie(language_model: Any) -> None:
    """Give the head weights of its own where it shares the embeddings': it learns and they do not."""
    if language_model.lm_head.weight is language_model.get_input_embeddings().weight:
        language_model.lm_head.weight = nn.Parameter(language_model.lm_head.weight.detach().clone())
    language_model.config.tie_word_embeddings = False


def with_lora(language_model: nn.Module, lora: LoraSettings | None) -> nn.Module:
    """Wrap a language model for LoRA, its own weights frozen; None leaves it as it is."""
    if lora is None:
        return language_model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=["q_proj", "v_proj"],
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks for an attribute that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        wrapped: nn.Module = get_peft_model(language_model, config)
    return wrapped
