import inspect
import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from raccoon.models.temporal_unet import ClipGroupNorm, TemporalUNet, is_temporal, unet_config

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def image_folder(tmp_path, miniature_unet):
    torch.manual_seed(1)
    UNet2DConditionModel(**miniature_unet).save_pretrained(tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(6, 9, 8, 8, generator=generator), 7, torch.randn(6, 5, 24, generator=generator)


def trained(unet):
    """The same UNet with temporal layers that do something."""
    torch.manual_seed(3)
    for parameter in unet.temporal_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return unet


@torch.no_grad()
def run(unet, inputs, **keywords):
    return unet(*inputs, return_dict=False, **keywords)[0]


def test_the_inflated_model_equals_the_image_model_exactly(image_folder, inputs):
    image = UNet2DConditionModel.from_pretrained(image_folder).eval()
    video = TemporalUNet.from_pretrained(image_folder)
    assert torch.equal(run(video, inputs, num_frames=3), run(image, inputs))


def test_a_video_model_made_from_nothing_starts_frame_by_frame_too(miniature_unet, inputs):
    video = TemporalUNet(**miniature_unet).eval()
    assert torch.equal(run(video, inputs, num_frames=3), run(video, inputs, num_frames=1))


def test_trained_temporal_layers_carry_from_frame_to_frame_but_not_from_clip_to_clip(image_folder, inputs):
    video = trained(TemporalUNet.from_pretrained(image_folder))
    sample, step, text = inputs
    changed = sample.clone()
    changed[0] += 1
    difference = run(video, (changed, step, text), num_frames=3) - run(video, inputs, num_frames=3)
    moved = difference.abs().amax(dim=(1, 2, 3)) > 1e-4
    assert moved.tolist() == [True, True, True, False, False, False]


def test_without_positions_the_order_of_frames_does_not_matter(image_folder, inputs):
    video = trained(TemporalUNet.from_pretrained(image_folder))
    sample, step, text = inputs
    order = [2, 0, 1, 5, 3, 4]
    out = run(video, inputs, num_frames=3)
    torch.testing.assert_close(run(video, (sample[order], step, text[order]), num_frames=3), out[order])


def test_more_places_than_one_launch_takes_give_the_same(image_folder, inputs, monkeypatch):
    video = trained(TemporalUNet.from_pretrained(image_folder))
    whole = run(video, inputs, num_frames=3)
    monkeypatch.setattr("raccoon.models.temporal_unet._MAX_ROWS", 50)
    torch.testing.assert_close(run(video, inputs, num_frames=3), whole)


def test_the_temporal_weights_have_the_names_of_the_released_ones(miniature_unet):
    names = {name for name in TemporalUNet(**miniature_unet).state_dict() if is_temporal(name)}
    places = ("down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.1")
    for place in places:
        for name in (
            "attn_temp.to_q.weight",
            "attn_temp.to_k.weight",
            "attn_temp.to_v.weight",
            "attn_temp.to_out.0.weight",
            "attn_temp.to_out.0.bias",
            "norm_temp.weight",
            "norm_temp.bias",
        ):
            assert f"{place}.transformer_blocks.0.{name}" in names
    assert len(names) == 7 * 4


@pytest.mark.parametrize("over_frames", [False, True], ids=["per-frame", "over-frames"])
def test_what_is_saved_is_loaded_exactly(tmp_path, miniature_unet, inputs, over_frames):
    video = trained(TemporalUNet(**miniature_unet, norm_over_frames=over_frames)).eval()
    video.save_pretrained(tmp_path)
    again = TemporalUNet.from_pretrained(tmp_path)
    assert again.config.norm_over_frames is over_frames
    assert torch.equal(run(again, inputs, num_frames=3), run(video, inputs, num_frames=3))


def test_a_sharded_file_and_a_pickle_are_read_too(tmp_path, miniature_unet, inputs):
    video = trained(TemporalUNet(**miniature_unet)).eval()
    video.save_pretrained(tmp_path / "pieces", max_shard_size="100KB")
    video.save_pretrained(tmp_path / "pickle", safe_serialization=False)
    assert not (tmp_path / "pieces" / WEIGHTS).exists()
    for folder in ("pieces", "pickle"):
        assert torch.equal(run(TemporalUNet.from_pretrained(tmp_path / folder), inputs), run(video, inputs))


def test_half_precision_weights_are_loaded_as_float32_unless_asked_otherwise(tmp_path, miniature_unet, inputs):
    TemporalUNet(**miniature_unet).half().save_pretrained(tmp_path)
    assert TemporalUNet.from_pretrained(tmp_path).dtype == torch.float32
    video = TemporalUNet.from_pretrained(tmp_path, dtype=torch.bfloat16)
    sample, step, text = inputs
    out = run(video, (sample.bfloat16(), step, text.bfloat16()), num_frames=3)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_norms_over_frames_are_those_of_residual_blocks_and_of_the_output(miniature_unet):
    video = TemporalUNet(**miniature_unet, norm_over_frames=True)
    over = {name for name, module in video.named_modules() if isinstance(module, ClipGroupNorm)}
    assert "conv_norm_out" in over
    assert all(".resnets." in name for name in over - {"conv_norm_out"})
    assert "down_blocks.0.attentions.0.norm" not in over


def test_a_norm_over_frames_is_the_group_norm_of_the_five_dimensional_clip():
    norm = torch.nn.GroupNorm(2, 4)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(6, 4, 3, 3)
    clip_norm = ClipGroupNorm(norm)
    clip_norm.num_frames = 3
    wanted = norm(x.view(2, 3, 4, 3, 3).transpose(1, 2)).transpose(1, 2).reshape_as(x)
    torch.testing.assert_close(clip_norm(x), wanted)


def test_the_released_configuration_is_read(tmp_path, miniature_unet, inputs):
    video = trained(TemporalUNet(**miniature_unet, norm_over_frames=True)).eval()
    video.save_pretrained(tmp_path)
    # As the released file has it: 3-D names, a class that it is not, a key of its own, none of ours.
    released = {
        **miniature_unet,
        "_class_name": "UNet2DConditionModel",
        "_name_or_path": "./hf-models/stable-diffusion-v2-inpainting/unet",
        "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
        "mid_block_type": "UNetMidBlock3DCrossAttn",
        "st_attn": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(released))
    again = TemporalUNet.from_pretrained(tmp_path, norm_over_frames=True)
    assert again.config.down_block_types == ("CrossAttnDownBlock2D", "DownBlock2D")
    assert torch.equal(run(again, inputs, num_frames=3), run(video, inputs, num_frames=3))


def test_every_configuration_key_of_the_image_model_is_named():
    image = inspect.signature(UNet2DConditionModel.__init__).parameters
    video = inspect.signature(TemporalUNet.__init__).parameters
    assert set(video) - set(image) == {"norm_over_frames"}
    assert {name: video[name].default for name in image} == {name: p.default for name, p in image.items()}


def test_checkpointing_changes_no_gradient(miniature_unet, inputs):
    gradients = []
    for checkpoints in (False, True):
        torch.manual_seed(4)
        video = trained(TemporalUNet(**miniature_unet, norm_over_frames=True)).train()
        if checkpoints:
            video.enable_gradient_checkpointing()
        video(*inputs, num_frames=3).sample.pow(2).mean().backward()
        gradients.append([p.grad for p in video.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_what_does_not_fit_is_listed_in_full(tmp_path, miniature_unet):
    TemporalUNet(**miniature_unet).save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    del state["conv_in.bias"]
    del state["mid_block.attentions.0.transformer_blocks.0.attn_temp.to_q.weight"]
    state["stranger.weight"] = torch.zeros(1)
    state["conv_out.bias"] = torch.zeros(7)
    save_file(state, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="2 missing") as caught:
        TemporalUNet.from_pretrained(tmp_path)
    message = str(caught.value)
    assert "conv_in.bias" in message
    assert "attn_temp.to_q.weight" in message
    assert "1 unexpected: stranger.weight" in message
    assert "conv_out.bias [7], wanted [4]" in message


def test_a_damaged_file_is_one_sentence(image_folder):
    path = image_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="is damaged"):
        TemporalUNet.from_pretrained(image_folder)


def test_missing_files_are_named(tmp_path, image_folder):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        TemporalUNet.from_pretrained(tmp_path)
    (image_folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="there are no weights"):
        TemporalUNet.from_pretrained(image_folder)


def test_a_missing_piece_is_named(tmp_path, miniature_unet):
    TemporalUNet(**miniature_unet).save_pretrained(tmp_path, max_shard_size="100KB")
    next(tmp_path.glob("*00002-of-*")).unlink()
    with pytest.raises(FileNotFoundError, match="a piece of the weights is missing"):
        TemporalUNet.from_pretrained(tmp_path)


def test_an_unknown_configuration_key_is_refused(image_folder):
    path = image_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    with pytest.raises(ValueError, match="colour"):
        unet_config(image_folder)


@pytest.mark.parametrize("num_frames", [0, 4])
def test_a_batch_must_hold_whole_clips(miniature_unet, inputs, num_frames):
    with pytest.raises(ValueError, match="must hold whole clips"):
        TemporalUNet(**miniature_unet)(*inputs, num_frames=num_frames)


def test_blocks_of_another_kind_are_refused(miniature_unet):
    with pytest.raises(ValueError, match="plain layer norms"):
        TemporalUNet(**miniature_unet, attention_type="gated")
