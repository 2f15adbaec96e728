import json

import pytest
import torch
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from raccoon.models.image_text import ClipImageText, ImageTextEncoder
from raccoon.models.vision import CLIP_MEAN, CLIP_STD, ClipVisionEncoder, clip_pixels
from raccoon.tasks.tokenizer import train_tokenizer
from raccoon.testing import check_visual_encoder

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION = CLIPVisionConfig(**SMALL, image_size=32, patch_size=8, projection_dim=16)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a red star", "a blue ball", "background"] * 5, 300)


@pytest.fixture(scope="module")
def clip(tokenizer):
    torch.manual_seed(0)
    text = CLIPTextConfig(**SMALL, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=2)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=VISION.to_dict(), projection_dim=16)).eval()


@pytest.fixture(scope="module")
def folder(clip, tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture
def frames():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_it_conforms_to_its_plug_point(folder):
    check_visual_encoder(ClipVisionEncoder.from_pretrained(folder))


def test_features_are_the_state_before_the_last_layer_without_the_class_token(folder, clip, frames):
    encoder = ClipVisionEncoder.from_pretrained(folder, chunk_size=2)
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    states = clip.vision_model(pixel_values=(frames - mean) / std, output_hidden_states=True).hidden_states
    expected = states[-2][:, 1:].reshape(5, 4, 4, 32)
    assert torch.allclose(encoder.encode(frames), expected, atol=1e-5)
    assert torch.equal(encoder(frames), encoder.encode(frames))


def test_another_layer_can_be_read(folder, clip, frames):
    encoder = ClipVisionEncoder.from_pretrained(folder, layer=-1)
    states = clip.vision_model(pixel_values=clip_pixels(frames, 32)).last_hidden_state
    assert torch.allclose(encoder.encode(frames).flatten(1, 2), states[:, 1:], atol=1e-5)


def test_pooling_averages_blocks_of_patches(folder, frames):
    fine = ClipVisionEncoder.from_pretrained(folder).encode(frames)
    encoder = ClipVisionEncoder.from_pretrained(folder, pool=2)
    coarse = encoder.encode(frames)
    assert coarse.shape == (5, 2, 2, 32)
    assert (encoder.patch_size, encoder.grid) == (16, (2, 2))
    assert torch.allclose(coarse[:, 0, 1], fine[:, :2, 2:].mean(dim=(1, 2)), atol=1e-5)


def test_a_vision_model_alone_loads_as_well(tmp_path, frames):
    torch.manual_seed(1)
    model = CLIPVisionModel(VISION).eval()
    model.save_pretrained(tmp_path)
    encoder = ClipVisionEncoder.from_pretrained(tmp_path)
    assert torch.equal(encoder.encode(frames), ClipVisionEncoder(model).encode(frames))


def test_a_loaded_encoder_is_frozen_and_a_given_one_can_be_trained(folder, clip, frames):
    loaded = ClipVisionEncoder.from_pretrained(folder)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert ClipVisionEncoder(clip).encode(frames).requires_grad


def test_half_precision_is_stored_and_computed_in(clip, frames, tmp_path):
    type(clip)(clip.config).half().save_pretrained(tmp_path)
    assert ClipVisionEncoder.from_pretrained(tmp_path).encode(frames).dtype == torch.float16
    assert ClipVisionEncoder.from_pretrained(tmp_path, dtype="float32").encode(frames).dtype == torch.float32


def test_frames_of_another_size_are_stretched_to_the_square(folder):
    flat = torch.full((1, 3, 50, 90), 0.25)
    assert torch.allclose(clip_pixels(flat, 32), clip_pixels(torch.full((1, 3, 32, 32), 0.25), 32), atol=1e-5)
    assert ClipVisionEncoder.from_pretrained(folder).encode(torch.rand(1, 3, 50, 90)).shape == (1, 4, 4, 32)


def test_shrinking_averages_and_stays_in_range():
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1.0
    pixels = clip_pixels(stripes, 16, mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.allclose(pixels[..., 2:-2], torch.full((1, 3, 16, 12), 0.5), atol=0.02)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_the_papers_encoder_has_24_by_24_features_of_1024():
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    with torch.device("meta"):
        encoder = ClipVisionEncoder(CLIPVisionModel(config))
        assert encoder.encode(torch.empty(2, 3, 336, 336)).shape == (2, 24, 24, 1024)
    assert (encoder.image_size, encoder.patch_size, encoder.width, encoder.grid) == (336, 14, 1024, (24, 24))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 4}, "layer must be from -4 to 3 for an encoder of 3 layers, got 4"),
        ({"pool": 3}, "pool must divide the 4 patches of a side, got 3"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ],
    ids=["layer", "pool", "chunk"],
)
def test_wrong_settings_are_refused(clip, options, message):
    with pytest.raises(ValueError, match=message):
        ClipVisionEncoder(clip, **options)


def test_frames_of_a_wrong_shape_are_refused(clip):
    with pytest.raises(ValueError, match=r"frames must be \[F, 3, H, W\] .* got \[3, 32, 32\]"):
        ClipVisionEncoder(clip).encode(torch.rand(3, 32, 32))


def test_8_bit_frames_are_refused(clip):
    with pytest.raises(TypeError, match=r"floating in \[0, 1\], got torch.uint8"):
        ClipVisionEncoder(clip).encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_a_missing_hub_model_says_name_size_and_command():
    with pytest.raises(FileNotFoundError, match=r"(?s)openai/clip-vit-large-patch14-336.*hf download.*about 1\.7 GB"):
        ClipVisionEncoder.from_pretrained("openai/clip-vit-large-patch14-336")


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there are no weights in .*absent"):
        ClipVisionEncoder.from_pretrained(tmp_path / "absent")


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        ClipVisionEncoder.from_pretrained(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    VISION.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds a config\.json and no weights"):
        ClipVisionEncoder.from_pretrained(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"must hold a CLIP .* says 'bert'"):
        ClipVisionEncoder.from_pretrained(tmp_path)


def test_weights_of_another_size_are_refused_by_name(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"(?s)must hold every weight.*layers\.3"):
        ClipVisionEncoder.from_pretrained(tmp_path)


def test_patches_and_texts_are_unit_vectors_in_one_space(folder, frames):
    encoder = ClipImageText.from_pretrained(folder)
    assert isinstance(encoder, ImageTextEncoder)
    patches, texts = encoder.encode_patches(frames), encoder.encode_text(["red star", "background"])
    assert patches.shape == (5, 4, 4, 16)
    assert texts.shape == (2, 16)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(5, 4, 4), atol=1e-5)
    assert torch.allclose(texts.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)


def test_texts_are_embedded_as_clip_does(folder, clip, tokenizer):
    encoder = ClipImageText.from_pretrained(folder)
    ids = tokenizer(["red star"], return_tensors="pt")["input_ids"]
    expected = clip.text_projection(clip.text_model(input_ids=ids).pooler_output)
    # Padding by the longer text beside it changes nothing.
    found = encoder.encode_text(["red star", "a blue ball in the background"])[:1]
    assert torch.allclose(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)


def test_a_long_text_is_cut(folder):
    assert ClipImageText.from_pretrained(folder).encode_text(["star " * 200]).shape == (1, 16)


def test_no_text_is_refused(folder):
    with pytest.raises(ValueError, match="at least one text"):
        ClipImageText.from_pretrained(folder).encode_text([])


def test_an_image_text_encoder_needs_a_text_side(tmp_path):
    CLIPVisionModel(VISION).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must hold a CLIP \(clip\), its config.json says 'clip_vision_model'"):
        ClipImageText.from_pretrained(tmp_path)
