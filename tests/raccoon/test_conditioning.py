from types import SimpleNamespace

import pytest
import torch
from torch import nn

from raccoon.models.conditioning import (
    SCHEMES,
    decode_frames,
    encode_frames,
    encode_prompts,
    inpainting_condition,
    predict,
    scheme_named,
)
from raccoon.models.temporal_unet import TemporalUNet


class FakeVae(nn.Module):
    """Latents are the means of 4x4 pixels, of the three colours and of their sum; decoding repeats them."""

    def __init__(self, **config):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(**{"scaling_factor": 0.5, "latents_mean": None, "latents_std": None, **config})

    def encode(self, x):
        small = nn.functional.avg_pool2d(x, 4)
        latents = torch.cat([small, small.sum(1, keepdim=True)], dim=1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, z):
        return SimpleNamespace(sample=z[:, :3].repeat_interleave(4, -1).repeat_interleave(4, -2))


@pytest.fixture
def clips():
    """Two clips of two frames of 8x8, all white; one masked pixel in the upper left latent pixel, not its corner."""
    mask = torch.zeros(2, 2, 1, 8, 8)
    mask[..., 1, 2] = 1
    return torch.ones(2, 2, 3, 8, 8), mask


def test_the_scheme_of_stable_diffusion_is_noise_mask_masked_with_one_to_repaint(clips):
    condition = inpainting_condition(*clips, ["remove", "add"], vae=FakeVae(), scheme=SCHEMES["sd"])
    shown = condition.with_noise(torch.full((2, 2, 4, 2, 2), 9.0))
    assert shown.shape == (2, 2, 9, 2, 2)
    assert (shown[:, :, :4] == 9).all()
    # Any masked pixel marks its latent pixel, though nearest would have looked at another one.
    assert shown[0, 0, 4].tolist() == [[1, 0], [0, 0]]
    # One of 16 pixels is grey (0), which is masked before encoding, also where an object is added; then scaled.
    for clip in (0, 1):
        assert shown[clip, 0, 5].tolist() == [[0.5 * 15 / 16, 0.5], [0.5, 0.5]]


def test_the_scheme_of_the_released_unet_masks_latents_and_hides_nothing_where_it_adds(clips):
    video, mask = clips
    mask[..., :4, :4] = 1
    condition = inpainting_condition(video, mask, ["change", "add"], vae=FakeVae(), scheme=SCHEMES["raccoon_trained"])
    shown = condition.with_noise(torch.full((2, 2, 4, 2, 2), 9.0))
    assert (shown[:, :, :4] == 9).all()
    assert shown[0, 0, 4].tolist() == [[0, 0.5], [0.5, 0.5]]
    assert shown[1, 0, 4].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert shown[0, 0, 8].tolist() == [[0, 1], [1, 1]]
    assert shown[1, 0, 8].tolist() == [[0, 1], [1, 1]]


def test_the_released_scheme_looks_at_one_pixel_of_the_mask(clips):
    condition = inpainting_condition(*clips, ["remove"] * 2, vae=FakeVae(), scheme=SCHEMES["raccoon_trained"])
    assert (condition.mask == 1).all()


def test_frames_can_be_chosen_and_taken_as_images(clips):
    condition = inpainting_condition(*clips, ["remove"] * 2, vae=FakeVae(), scheme=SCHEMES["sd"])
    assert condition.frames([1]).masked.shape == (2, 1, 4, 2, 2)
    images = condition.as_images()
    assert images.mask.shape == (4, 1, 1, 2, 2)
    assert torch.equal(images.masked[2, 0], condition.masked[1, 0])


def test_shapes_that_do_not_belong_together_are_refused(clips):
    video, mask = clips
    with pytest.raises(ValueError, match="edit_mask must be"):
        inpainting_condition(video, mask[:, :1], ["remove"] * 2, vae=FakeVae(), scheme=SCHEMES["sd"])
    with pytest.raises(ValueError, match="1 kinds"):
        inpainting_condition(video, mask, ["remove"], vae=FakeVae(), scheme=SCHEMES["sd"])


def test_an_unknown_scheme_is_refused_by_name():
    with pytest.raises(ValueError, match="sd, raccoon_trained"):
        scheme_named("latent")


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.18215},
        {"scaling_factor": 0.5, "shift_factor": 0.25},
        {"scaling_factor": 1.0, "latents_mean": [0.1, 0.2, 0.3, 0.0], "latents_std": [0.5, 1.0, 2.0, 1.0]},
    ],
    ids=["scale", "shift", "per-channel"],
)
def test_decoding_undoes_the_normalisation_of_encoding(config):
    flat = torch.rand(2, 3, 3, 2, 2).repeat_interleave(4, -1).repeat_interleave(4, -2)
    vae = FakeVae(**config)
    latents = encode_frames(vae, flat, chunk=4)
    torch.testing.assert_close(decode_frames(vae, latents, chunk=4), flat)


def test_statistics_per_channel_make_latents_of_mean_zero_and_variance_one():
    frames = torch.randn(500, 3, 8, 8)
    raw = encode_frames(FakeVae(scaling_factor=1.0), frames)
    mean, std = raw.mean(dim=(0, 2, 3)), raw.std(dim=(0, 2, 3))
    vae = FakeVae(scaling_factor=1.0, latents_mean=mean.tolist(), latents_std=std.tolist())
    latents = encode_frames(vae, frames)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-5, rtol=0)


def test_a_prompt_has_the_same_features_alone_and_in_a_batch(miniature_text):
    from transformers import AutoTokenizer, CLIPTextModel

    encoder = CLIPTextModel.from_pretrained(miniature_text / "text_encoder")
    tokenizer = AutoTokenizer.from_pretrained(miniature_text / "tokenizer")
    long = "A very long description that goes on beyond what the text encoder can read."
    with torch.no_grad():
        many = encode_prompts(encoder, tokenizer, ["a", long, "a", ""])
        alone = encode_prompts(encoder, tokenizer, ["a"])
    assert many.shape == (4, 40, 24)
    assert torch.equal(many[0], many[2])
    torch.testing.assert_close(many[:1], alone)


def test_an_image_unet_sees_every_frame_as_an_image(miniature_unet):
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    image = UNet2DConditionModel(**miniature_unet).eval()
    video = TemporalUNet(**miniature_unet).eval()
    video.load_state_dict(image.state_dict(), strict=False)
    shown, text = torch.randn(2, 3, 9, 8, 8), torch.randn(2, 5, 24)
    with torch.no_grad():
        out = predict(video, shown, torch.tensor([3, 900]), text)
        assert torch.equal(out, predict(image, shown, torch.tensor([3, 900]), text))
        assert out.shape == (2, 3, 4, 8, 8)
        torch.testing.assert_close(out[1:], predict(video, shown[1:], torch.tensor([900]), text[1:]))
