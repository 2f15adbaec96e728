"""Pre-training of the visual encoder that the paper takes as given: a miniature CLIP that knows what stands where.

CLIP learns from whole images; a world of six colours and six categories asks for regions instead. Four losses:

- regions: the average of a region's patches (layer norm, projection, mask) against its phrase, both ways, among all of
  the batch; what fits a region as well as its own phrase is no negative;
- patches: each patch against the phrases of its own frame, which is what grounding does later;
- attributes: linear probes for category, colour, pattern and size, on regions and on the patches of the hidden state
  that the describer reads;
- captions, weakly: the class token against what is said of the whole scene.

Source: stands in for CLIP-L/14@336 of RACCooN, section 4.1; the objective is ours.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from raccoon.models.image_text import project_patches
from raccoon.models.vision import clip_pixels
from raccoon.tasks.optim import OptimizerSettings, configure
from raccoon.tasks.run_log import mean_over_ranks
from raccoon.tasks.tokenizer import tiny_tokenizer
from raccoon_datamodules.regions import ATTRIBUTES, NO_LABEL, RegionBatch, RegionDataModule, labels_of, matches
from raccoon_datamodules.synthetic.vocabulary import difficulty_named

PROBED = ("category", "colour", "pattern", "size")
# exp of it is 100, as CLIP's own training bounds it.
_LARGEST_LOGIT_SCALE = 4.6052
# A patch belongs to the region that covers at least this part of it.
_COVERED = 0.5


class ClipTask(pl.LightningModule):
    """Trains a `transformers.CLIPModel` on `RegionBatch`.

    Logs ``train/loss`` and its parts; ``val/loss``, ``val/retrieval`` (share of object regions whose own "colour
    category" phrase beats those of all colours and categories of the difficulty), ``val/patches`` (share of patches
    that fit the phrase of their own region best among their frame's, each region counting alike) and
    ``val/category|colour|pattern|size`` (accuracy of the region probes).
    A test logs the same under ``test/``.
    The contrast is among the regions of one rank's batch.

    Args:
        vision: of `transformers.CLIPVisionConfig`.
        text: of `transformers.CLIPTextConfig`; vocabulary and special tokens are the tokenizer's.
        optimizer: see `raccoon.tasks.optim`.
        projection_size: e, the width of the joint space.
        tokenizer: folder of the tokenizer; None for `tokenizer.tiny_tokenizer`, trained on the spot.
        layer: the hidden state whose patches are probed; the describer's.
        region_weight: of the contrast of regions and phrases.
        patch_weight: of the contrast of patches and the phrases of their frame.
        probe_weight: of the probes on regions.
        patch_probe_weight: of the probes on patches.
        caption_weight: of the contrast of class token and caption.
        difficulty: whose colours and categories ``val/retrieval`` chooses from.

    Raises:
        ValueError: if a weight is negative or the difficulty unknown.
    """

    names_stated: Tensor

    def __init__(
        self,
        vision: dict[str, Any],
        text: dict[str, Any],
        optimizer: OptimizerSettings,
        *,
        projection_size: int = 128,
        tokenizer: str | None = None,
        layer: int = -2,
        region_weight: float = 1.0,
        patch_weight: float = 0.5,
        probe_weight: float = 0.5,
        patch_probe_weight: float = 0.5,
        caption_weight: float = 0.1,
        difficulty: str = "easy",
    ) -> None:
        super().__init__()
        self.weights = {
            "region": region_weight,
            "patch": patch_weight,
            "probe": probe_weight,
            "patch_probe": patch_probe_weight,
            "caption": caption_weight,
        }
        if min(self.weights.values()) < 0:
            raise ValueError(f"the weights of the losses must not be negative, got {self.weights}")
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel

        max_length = int(text.get("max_position_embeddings", 77))
        self.tokenizer: Any = (
            tiny_tokenizer(max_length) if tokenizer is None else AutoTokenizer.from_pretrained(tokenizer)
        )
        names = {
            "vocab_size": len(self.tokenizer),
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        config = CLIPConfig(
            text_config={**text, **names, "projection_dim": projection_size},
            vision_config={**vision, "projection_dim": projection_size},
            projection_dim=projection_size,
        )
        self.clip: Any = CLIPModel(config)
        width = config.vision_config.hidden_size
        sizes = {name: len(ATTRIBUTES[name]) for name in PROBED}
        self.region_probes = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.patch_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.patch_probes = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.optimizer = optimizer
        self.layer = layer
        level = difficulty_named(difficulty)
        pairs = [(colour, category) for colour in level.colours for category in level.categories]
        self.names = [f"{colour} {category}" for colour, category in pairs]
        stated = torch.stack([torch.from_numpy(labels_of(colour=c, category=k)) for c, k in pairs])
        self.register_buffer("names_stated", stated, persistent=False)

    def setup(self, stage: str) -> None:
        """Hand the tokenizer to a datamodule that has none."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, RegionDataModule) and data.tokenizer is None:
            data.tokenizer = self.tokenizer

    def forward(self, batch: RegionBatch) -> dict[str, Tensor]:
        """Features of a batch.

        Returns:
            ``patches`` [N, n, e], ``phrases`` [R, e] and ``regions`` [R, e], unit vectors; ``pooled`` [R, d], a
            region's average before the projection; ``states`` [N, n, d], the hidden state of ``layer``; ``images`` and
            ``captions`` [N, e], unit vectors; ``cover`` [R, n], the part of each patch that a region covers.
        """
        vision = self.clip.config.vision_config
        pixels = clip_pixels(batch.frames.float() / 255, vision.image_size)
        seen = self.clip.vision_model(pixel_values=pixels, output_hidden_states=True)
        last = seen.last_hidden_state[:, 1:]
        masks = batch.masks[:, None].float()
        side = vision.image_size // vision.patch_size
        cover = functional.adaptive_avg_pool2d(masks, side).flatten(1)
        share = (cover / cover.sum(dim=1, keepdim=True).clamp(min=1e-6)).to(last.dtype)
        normed = self.clip.vision_model.post_layernorm(last)
        pooled = torch.einsum("rn,rnd->rd", share, normed[batch.frame_of])
        return {
            "patches": functional.normalize(project_patches(self.clip, last).float(), dim=-1),
            "phrases": self._embed(batch.phrase_ids),
            "regions": functional.normalize(self.clip.visual_projection(pooled).float(), dim=-1),
            "pooled": pooled,
            "states": seen.hidden_states[self.layer][:, 1:],
            "images": functional.normalize(self.clip.visual_projection(seen.pooler_output).float(), dim=-1),
            "captions": self._embed(batch.caption_ids),
            "cover": cover,
        }

    def training_step(self, batch: RegionBatch, batch_idx: int) -> Tensor:
        """One batch.

        Raises:
            RuntimeError: if the loss is not finite: says which scenes the batch held.
        """
        losses, _ = self._losses(batch)
        loss = self._total(losses)
        if not torch.isfinite(loss):
            ordinals = sorted(set(batch.ordinal.tolist()))
            raise RuntimeError(
                f"the loss must be finite, got {loss.item()} at step {self.global_step} for the scenes with ordinals "
                f"{ordinals}; lower the learning rate or train in bf16 or float32"
            )
        self.log_dict({f"train/{name}": mean_over_ranks(self, value) for name, value in losses.items()})
        self.log("train/loss", mean_over_ranks(self, loss), prog_bar=True)
        return loss

    def validation_step(self, batch: RegionBatch, batch_idx: int) -> None:
        """One batch of the validation scenes."""
        self._measure(batch, "val")

    def test_step(self, batch: RegionBatch, batch_idx: int) -> None:
        """One batch of the test scenes."""
        self._measure(batch, "test")

    def _measure(self, batch: RegionBatch, use: str) -> None:
        losses, found = self._losses(batch)
        is_object = batch.attributes[:, list(ATTRIBUTES).index("colour")] != NO_LABEL
        regions, attributes = found["regions"][is_object], batch.attributes[is_object]
        names = self._embed(self._ids(self.names))
        best = (regions @ names.T).argmax(dim=1)
        own = matches(self.names_stated, attributes)
        values = {"loss": self._total(losses), "patches": self._patch_accuracy(found, batch)}
        values["retrieval"] = own[torch.arange(len(best), device=best.device), best].float().mean()
        for name, probe in self.region_probes.items():
            labels = attributes[:, list(ATTRIBUTES).index(name)]
            values[name] = (probe(found["pooled"][is_object]).argmax(dim=1) == labels).float().mean()
        self.log_dict(
            {f"{use}/{name}": value for name, value in values.items()}, batch_size=int(is_object.sum()), sync_dist=True
        )

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, see `raccoon.tasks.optim.configure`."""
        return configure(self, self.optimizer, max_steps=self.trainer.max_steps)

    def export(self, folder: str | Path) -> None:
        """Write the CLIPModel and its tokenizer in half precision; the probes were only needed for training.

        `raccoon.models.vision.ClipVisionEncoder`, `raccoon.models.image_text.ClipImageText` and transformers read it.
        """
        from transformers import CLIPModel

        # A copy, so that training can go on in full precision.
        model = CLIPModel(self.clip.config)
        model.load_state_dict(self.clip.state_dict())
        # What training multiplied by; the parameter itself may have gone on rising.
        model.logit_scale.data.clamp_(max=_LARGEST_LOGIT_SCALE)
        model.half().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _embed(self, ids: Tensor) -> Tensor:
        pooled = self.clip.text_model(input_ids=ids).pooler_output
        return functional.normalize(self.clip.text_projection(pooled).float(), dim=-1)

    def _ids(self, texts: list[str]) -> Tensor:
        ids: Tensor = self.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
        return ids.to(self.device)

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()

    def _losses(self, batch: RegionBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        found = self(batch)
        scale = self.clip.logit_scale.clamp(max=_LARGEST_LOGIT_SCALE).exp()
        region, patch = owned_patches(found["cover"], batch.frame_of, len(batch.frames))
        states = self.patch_norm(found["states"].float()[batch.frame_of[region], patch])
        # A cosine in bfloat16 has three digits, and the scale multiplies what is lost.
        with torch.autocast(self.device.type, enabled=False):
            regions, phrases = found["regions"], found["phrases"]
            own_scene = batch.ordinal[:, None] == batch.ordinal[None]
            losses = {
                "region": contrast(scale * regions @ phrases.T, matches(batch.stated, batch.attributes)),
                "patch": patch_contrast(found["patches"], phrases, batch.frame_of, region, patch, scale=scale),
                "probe": _probe_loss(self.region_probes, found["pooled"].float(), batch.attributes),
                "patch_probe": _probe_loss(self.patch_probes, states, batch.attributes[region]),
                "caption": contrast(scale * found["images"] @ found["captions"].T, own_scene),
            }
        return losses, found

    def _patch_accuracy(self, found: dict[str, Tensor], batch: RegionBatch) -> Tensor:
        region, patch = owned_patches(found["cover"], batch.frame_of, len(batch.frames))
        fit = _fit(found["patches"], found["phrases"], batch.frame_of)
        best = _largest_by_frame(fit, batch.frame_of, len(batch.frames))
        right = (fit[region, patch] >= best[batch.frame_of[region], patch]).float()
        return _mean_by_region(right, region, len(batch.frame_of))


def contrast(logits: Tensor, fits: Tensor) -> Tensor:
    """Contrast pairs [n, n], the true ones on the diagonal, both ways; others that fit are left out.

    ``fits`` bool [n, n] says which columns fit a row as well as its own.
    """
    others = fits & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.float().masked_fill(others, -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))


def owned_patches(cover: Tensor, frame_of: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Pairs (region, patch), int64 [m] each: patches that a region covers by half and no other region more.

    ``cover`` [R, n] is the part of each patch that a region covers, ``frame_of`` int64 [R] its frame.
    """
    most = _largest_by_frame(cover, frame_of, num_frames)
    owned = (cover >= _COVERED) & (cover == most[frame_of])
    region, patch = owned.nonzero(as_tuple=True)
    return region, patch


def patch_contrast(
    patches: Tensor, phrases: Tensor, frame_of: Tensor, region: Tensor, patch: Tensor, *, scale: Tensor
) -> Tensor:
    """Cross-entropy of each patch among the phrases of its frame; every region counts alike, however large.

    ``patches`` [N, n, e] and ``phrases`` [R, e] are unit vectors; for the other arguments see `owned_patches`.
    """
    logits = scale * _fit(patches, phrases, frame_of)
    largest = _largest_by_frame(logits.detach(), frame_of, len(patches))
    sums = logits.new_zeros(largest.shape).index_add(0, frame_of, (logits - largest[frame_of]).exp())
    frames = frame_of[region]
    loss = sums[frames, patch].log() + largest[frames, patch] - logits[region, patch]
    return _mean_by_region(loss, region, len(frame_of))


def _fit(patches: Tensor, phrases: Tensor, frame_of: Tensor) -> Tensor:
    """Products of each region's phrase with every patch of its frame, [R, n]."""
    return torch.einsum("rne,re->rn", patches[frame_of], phrases)


def _largest_by_frame(values: Tensor, frame_of: Tensor, num_frames: int) -> Tensor:
    """The largest of the regions' values [R, n] in each frame: [num_frames, n]."""
    # Not index_reduce: torch warns that it may change.
    largest = values.new_full((num_frames, values.shape[1]), -torch.inf)
    return largest.scatter_reduce(0, frame_of[:, None].expand_as(values), values, "amax")


def _mean_by_region(values: Tensor, region: Tensor, num_regions: int) -> Tensor:
    counts = torch.bincount(region, minlength=num_regions)
    means = values.new_zeros(num_regions).index_add(0, region, values) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


def _probe_loss(probes: nn.ModuleDict, features: Tensor, attributes: Tensor) -> Tensor:
    """Mean cross-entropy of the probes over what has a label; [m, d] features, [m, A] attributes."""
    losses = []
    for name, probe in probes.items():
        labels = attributes[:, list(ATTRIBUTES).index(name)]
        count = (labels != NO_LABEL).sum().clamp(min=1)
        logits = probe(features).float()
        losses.append(functional.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="sum") / count)
    return torch.stack(losses).mean()
