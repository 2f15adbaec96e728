from pathlib import Path

import pytest

# A UNet of 3 cross-attention sites; heads of 4, as few channels as the group norms allow.
MINIATURE_UNET = {
    "sample_size": 8,
    "in_channels": 9,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 24,
}
MINIATURE_SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


@pytest.fixture
def miniature_unet() -> dict:
    """The configuration of a UNet small enough to run in milliseconds."""
    return dict(MINIATURE_UNET)


@pytest.fixture(scope="session")
def miniature_text(tmp_path_factory) -> Path:
    """A folder with a text encoder and a byte tokenizer, untrained."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("text")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="session")
def miniature_vae(tmp_path_factory) -> Path:
    """A folder with a VAE of factor 4, untrained."""
    import torch
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def miniature_painter(tmp_path_factory, miniature_vae, miniature_text) -> Path:
    """A whole painter's folder in the diffusers layout, untrained."""
    import torch

    from raccoon.models.p2v_parts import P2VParts

    folder = tmp_path_factory.mktemp("painter")
    torch.manual_seed(0)
    parts = P2VParts(
        vae=str(miniature_vae), text=str(miniature_text), unet=dict(MINIATURE_UNET), scheduler=dict(MINIATURE_SCHEDULE)
    )
    parts.save_pretrained(folder, dtype=torch.float32)
    return folder
