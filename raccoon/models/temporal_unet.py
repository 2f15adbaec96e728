"""A 2-D inpainting UNet that sees time: diffusers' image model with temporal attention in each transformer block.

Frames are folded into the batch, [B * F, C, h, w], so that everything the image model does is done frame by frame. A
temporal self-attention over the F frames at each place stands inside each transformer block, after the cross-attention
and before the feed-forward, without positions and without a mask; the names of its weights are those of the UNet that
RACCooN's authors released. Its output projection starts at zero, weight and bias (theirs: the weight only), so an
inflated model equals the image model exactly until it is trained.
Source: RACCooN, section 3.2; Wu et al., "Tune-A-Video", 2023, where the temporal attention follows the feed-forward.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention

# `DiffusionPipeline.save_pretrained` looks for this name in the module of a component.
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

__all__ = ["ClipGroupNorm", "ModelMixin", "TemporalTransformerBlock", "TemporalUNet", "unet_config"]

WEIGHTS = "diffusion_pytorch_model"
# CUDA's attention kernels take no more than 65535 rows of one launch; every place of every clip is a row.
_MAX_ROWS = 1 << 15
# The released configuration names its blocks after three dimensions, and holds a switch that its code does not know.
_IGNORED_KEYS = frozenset({"st_attn"})


class TemporalTransformerBlock(BasicTransformerBlock):
    """A transformer block of the image model with `attn_temp`, over ``num_frames`` folded frames.

    Raises:
        ValueError: if the image block is not of the kind that inpainting UNets have (plain layer norms, no GLIGEN).
    """

    def __init__(self, block: BasicTransformerBlock) -> None:
        if block.norm_type != "layer_norm" or hasattr(block, "fuser"):
            raise ValueError(
                f"temporal attention goes into blocks with plain layer norms, got norm_type {block.norm_type!r}; "
                "use an inpainting UNet of the Stable Diffusion family"
            )
        # Only the skeleton is made anew: the image block's own layers move in.
        with torch.device("meta"):
            super().__init__(
                block.dim,
                block.num_attention_heads,
                block.attention_head_dim,
                dropout=block.dropout,
                cross_attention_dim=block.cross_attention_dim,
                activation_fn=block.activation_fn,
                attention_bias=block.attention_bias,
                only_cross_attention=block.only_cross_attention,
                double_self_attention=block.double_self_attention,
            )
        for name, child in block.named_children():
            setattr(self, name, child)
        self.num_frames = 1
        self.make_temporal()

    def make_temporal(self) -> None:
        """Make the temporal layers anew: random but for the output projection, which is zero."""
        self.norm_temp = nn.LayerNorm(self.dim)
        self.attn_temp = Attention(
            query_dim=self.dim,
            heads=self.num_attention_heads,
            dim_head=self.attention_head_dim,
            dropout=self.dropout,
            bias=self.attention_bias,
        )
        nn.init.zeros_(self.attn_temp.to_out[0].weight)
        nn.init.zeros_(self.attn_temp.to_out[0].bias)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Tokens [B * F, n, d] to the same; the arguments are those of the image block."""
        x = hidden_states
        keywords = cross_attention_kwargs or {}
        itself = encoder_hidden_states if self.only_cross_attention else None
        x = self.attn1(self.norm1(x), encoder_hidden_states=itself, attention_mask=attention_mask, **keywords) + x
        if self.attn2 is not None:
            x = (
                self.attn2(
                    self.norm2(x),
                    encoder_hidden_states=encoder_hidden_states,
                    attention_mask=encoder_attention_mask,
                    **keywords,
                )
                + x
            )
        x = self._through_time(x) + x
        return self.ff(self.norm3(x)) + x

    def _through_time(self, x: Tensor) -> Tensor:
        folded, places, width = x.shape
        frames = self.num_frames
        by_place = self.norm_temp(x).view(-1, frames, places, width).transpose(1, 2).reshape(-1, frames, width)
        rows = [self.attn_temp(part) for part in by_place.split(_MAX_ROWS)]
        attended = rows[0] if len(rows) == 1 else torch.cat(rows)
        return attended.view(-1, places, frames, width).transpose(1, 2).reshape(folded, places, width)


class ClipGroupNorm(nn.GroupNorm):
    """A group norm whose mean and variance run over all frames of a clip, as in the released weights."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, affine=False)
        self.affine = norm.affine
        self.weight, self.bias = norm.weight, norm.bias
        self.num_frames = 1

    def forward(self, input: Tensor) -> Tensor:
        """Folded frames [B * F, C, h, w] to the same."""
        folded, channels, height, width = input.shape
        clips = input.view(-1, self.num_frames, channels, height, width).transpose(1, 2)
        return super().forward(clips).transpose(1, 2).reshape(folded, channels, height, width)


class TemporalUNet(UNet2DConditionModel):
    """`UNet2DConditionModel` on folded frames, with temporal attention.

    Args:
        norm_over_frames: whether the group norms of residual blocks and of the output take their statistics over a
            clip's frames (the released weights) or frame by frame (equal to the image model).

    The other arguments are those of `UNet2DConditionModel`. They are all named here because diffusers silently drops
    what the signature of a class does not name. Between a forward and its backward no other number of frames may be
    run through the model if gradient checkpointing is on.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ),
        mid_block_type: str | None = "UNetMidBlock2DCrossAttn",
        up_block_types: tuple[str, ...] = (
            "UpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
        ),
        only_cross_attention: bool | tuple[bool, ...] = False,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        dropout: float = 0.0,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int | tuple[int, ...] = 1280,
        transformer_layers_per_block: int | tuple[Any, ...] = 1,
        reverse_transformer_layers_per_block: tuple[Any, ...] | None = None,
        encoder_hid_dim: int | None = None,
        encoder_hid_dim_type: str | None = None,
        attention_head_dim: int | tuple[int, ...] = 8,
        num_attention_heads: int | tuple[int, ...] | None = None,
        dual_cross_attention: bool = False,
        use_linear_projection: bool = False,
        class_embed_type: str | None = None,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        num_class_embeds: int | None = None,
        upcast_attention: bool = False,
        resnet_time_scale_shift: str = "default",
        resnet_skip_time_act: bool = False,
        resnet_out_scale_factor: float = 1.0,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        time_embedding_act_fn: str | None = None,
        timestep_post_act: str | None = None,
        time_cond_proj_dim: int | None = None,
        conv_in_kernel: int = 3,
        conv_out_kernel: int = 3,
        projection_class_embeddings_input_dim: int | None = None,
        attention_type: str = "default",
        class_embeddings_concat: bool = False,
        mid_block_only_cross_attention: bool | None = None,
        cross_attention_norm: str | None = None,
        addition_embed_type_num_heads: int = 64,
        norm_over_frames: bool = False,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "norm_over_frames", "__class__")}
        super().__init__(**given)
        _inflate(self, norm_over_frames=norm_over_frames)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        num_frames: int = 1,
        return_dict: bool = True,
    ) -> Any:
        """Predict the noise of folded frames.

        Args:
            sample: [B * F, C, h, w], the frames of a clip one after another.
            timestep: one number, or [B * F].
            encoder_hidden_states: text [B * F, L, d].
            num_frames: F.
            return_dict: whether to answer with diffusers' output object or with a tuple.

        Raises:
            ValueError: if the batch is not a whole number of clips.
        """
        if num_frames < 1 or len(sample) % num_frames:
            raise ValueError(
                f"the folded batch must hold whole clips, got {len(sample)} frames for clips of {num_frames}; fold "
                "[B, F, C, h, w] to [B * F, C, h, w] and give num_frames=F"
            )
        for module in self.modules():
            if isinstance(module, TemporalTransformerBlock | ClipGroupNorm):
                module.num_frames = num_frames
        return super().forward(sample, timestep, encoder_hidden_states, return_dict=return_dict)

    def temporal_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that the image model does not have."""
        return (parameter for name, parameter in self.named_parameters() if is_temporal(name))

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, norm_over_frames: bool | None = None, dtype: torch.dtype = torch.float32
    ) -> "TemporalUNet":
        """Load a folder of ``config.json`` and weights: our own exactly, an image UNet's inflated.

        The released configuration, with its three-dimensional block names, is read too. ``norm_over_frames`` overrides
        the folder's. Temporal layers that the file has not are made anew; they may only be missing all together.

        Raises:
            FileNotFoundError: if the configuration or the weights are not there.
            ValueError: if a file is damaged or does not fit: lists every missing, unexpected and mismatched key.
        """
        folder = Path(folder)
        config = unet_config(folder)
        if norm_over_frames is not None:
            config["norm_over_frames"] = norm_over_frames
        with torch.device("meta"):
            model = cls(**config)
        state = _read_weights(folder)
        wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
        inflates = not any(is_temporal(name) for name in state)
        missing = [name for name in wanted if name not in state and not (inflates and is_temporal(name))]
        unexpected = [name for name in state if name not in wanted]
        mismatched = [
            f"{name} {list(tensor.shape)}, wanted {list(wanted[name])}"
            for name, tensor in state.items()
            if name in wanted and tensor.shape != wanted[name]
        ]
        if missing or unexpected or mismatched:
            faults = [("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)]
            listed = "; ".join(f"{len(names)} {what}: {', '.join(names)}" for what, names in faults if names)
            raise ValueError(f"the weights in {folder} do not fit the UNet of its config.json: {listed}")
        model.load_state_dict(state, strict=False, assign=True)
        if inflates:
            for module in model.modules():
                if isinstance(module, TemporalTransformerBlock):
                    module.make_temporal()
        # diffusers' own `to` warns of modules to keep in float32 where there are none.
        nn.Module.to(model, dtype=dtype)
        model.register_to_config(_name_or_path=str(folder))
        return model.eval()


def is_temporal(name: str) -> bool:
    """Whether a weight of this name belongs to the temporal layers."""
    return ".attn_temp." in name or ".norm_temp." in name


def unet_config(folder: str | Path) -> dict[str, Any]:
    """The arguments for `TemporalUNet` in a folder's ``config.json``: ours, an image UNet's, or the released one's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds a key that no UNet has.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no UNet in {folder}: {path.name} is missing")
    config = {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if not k.startswith("_")}
    config = {k: _flat_names(v) for k, v in config.items() if k not in _IGNORED_KEYS}
    known = TemporalUNet._get_init_keys(TemporalUNet)
    if strangers := sorted(set(config) - known):
        raise ValueError(f"{path} holds keys that no UNet of this kind has: {', '.join(strangers)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}


def _flat_names(value: Any) -> Any:
    """The 2-D names of the released configuration's 3-D blocks, which are 2-D blocks on folded frames."""
    if isinstance(value, str):
        return value.replace("Block3D", "Block2D")
    return [_flat_names(item) for item in value] if isinstance(value, list) else value


def _inflate(unet: UNet2DConditionModel, *, norm_over_frames: bool) -> None:
    blocks = [name for name, module in unet.named_modules() if type(module) is BasicTransformerBlock]
    for name in blocks:
        unet.set_submodule(name, TemporalTransformerBlock(unet.get_submodule(name)))
    if norm_over_frames:
        # The norm at the entrance of a transformer stays per frame in the released UNet.
        names = [n for n, m in unet.named_modules() if isinstance(m, nn.GroupNorm) and _is_residual_norm(n)]
        for name in names:
            unet.set_submodule(name, ClipGroupNorm(unet.get_submodule(name)))


def _is_residual_norm(name: str) -> bool:
    return ".resnets." in name or name == "conv_norm_out"


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    whole, pickled = folder / f"{WEIGHTS}.safetensors", folder / f"{WEIGHTS}.bin"
    if index.is_file():
        mapping: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = [folder / name for name in sorted(set(mapping.values()))]
    elif whole.is_file():
        paths = [whole]
    elif pickled.is_file():
        return torch.load(pickled, map_location="cpu", weights_only=True)
    else:
        raise FileNotFoundError(f"there are no weights in {folder}: {whole.name} is missing")
    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                state.update((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - no mapping
        except FileNotFoundError as err:
            raise FileNotFoundError(f"a piece of the weights is missing: {path}") from err
        except SafetensorError as err:
            raise ValueError(f"the weight file {path} is damaged ({err}); copy or train it again") from err
    return state
