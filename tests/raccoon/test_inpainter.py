import json
import shutil

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from raccoon.interfaces import PaintRequest
from raccoon.models.harmonize import match_surround
from raccoon.models.inpainter import InpaintingPainter, P2VPipeline, _windows
from raccoon.models.p2v_parts import P2VParts, weight_files, weights_folder
from raccoon.models.temporal_unet import TemporalUNet
from raccoon.testing import check_painter, tiny_masks, tiny_video


@pytest.fixture
def painter(miniature_painter):
    return InpaintingPainter(str(miniature_painter), num_inference_steps=2, device="cpu")


@pytest.fixture
def pipeline(miniature_painter):
    pipeline = P2VPipeline.from_pretrained(miniature_painter)
    torch.manual_seed(5)
    # Untrained temporal layers do nothing, and then windows could not be told apart.
    for parameter in pipeline.unet.temporal_parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return pipeline


@pytest.fixture
def clip():
    video = torch.from_numpy(tiny_video(3, (16, 24)).frames).permute(0, 3, 1, 2).float() / 255
    return video, torch.from_numpy(tiny_masks(3, (16, 24)).data)


def request(kind="change", **changes):
    given = {"video": tiny_video(3, (16, 24)), "mask": tiny_masks(3, (16, 24)).data, "prompt": "a ball", "kind": kind}
    return PaintRequest(**{**given, **changes})


def test_the_painter_conforms(painter):
    check_painter(painter)


def test_another_seed_and_another_prompt_paint_something_else(pipeline, clip):
    def paint(prompt="a ball", **keywords):
        return pipeline(*clip, prompt, num_inference_steps=2, **keywords)

    first = paint(seed=1)
    assert torch.equal(paint(seed=1), first)
    assert not torch.equal(paint(seed=2), first)
    assert not torch.equal(paint("a cube of wood", seed=1), first)


def test_any_size_is_padded_and_cropped(pipeline):
    frames = torch.rand(2, 3, 19, 33)
    out = pipeline(frames, torch.ones(2, 19, 33), "a ball", num_inference_steps=1)
    assert out.shape == frames.shape
    assert out.min() >= 0
    assert out.max() <= 1


def test_a_clip_of_one_frame_is_painted(pipeline, clip):
    video, mask = clip
    assert pipeline(video[:1], mask[:1], "a ball", num_inference_steps=1).shape == video[:1].shape


def test_windows_cover_every_frame_and_overlap_by_half():
    assert _windows(5, 8) == [[0, 1, 2, 3, 4]]
    assert _windows(8, 4) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert _windows(7, 4) == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert _windows(3, 1) == [[0], [1], [2]]


def test_a_long_clip_in_windows_is_repeatable_and_smooth_where_windows_meet(pipeline, clip):
    video, mask = clip
    still, region = video[:1].repeat(9, 1, 1, 1), mask[:1].repeat(9, 1, 1)
    calls = []
    out = pipeline(still, region, "a ball", num_inference_steps=2, window=4, progress=lambda *at: calls.append(at))
    assert torch.equal(pipeline(still, region, "a ball", num_inference_steps=2, window=4), out)
    assert calls == [(i + 1, 8) for i in range(8)]
    # Frames differ by their noise alone; no step between neighbours sticks out from the others.
    steps = (out[1:] - out[:-1]).abs().mean(dim=(1, 2, 3))
    assert steps.max() < 3 * steps.median()


def test_the_noise_of_a_frame_depends_on_its_number_alone(miniature_painter, clip):
    # Untrained temporal layers are switched off: a frame is painted alike in a clip and in a longer one.
    pipeline = P2VPipeline.from_pretrained(miniature_painter)
    video, mask = clip
    long = pipeline(video, mask, "a ball", num_inference_steps=2, window=2)
    short = pipeline(video[:2], mask[:2], "a ball", num_inference_steps=2)
    torch.testing.assert_close(long[:2], short, atol=1e-5, rtol=0)


def test_guidance_of_one_is_no_guidance_and_more_changes_the_result(pipeline, clip):
    plain = pipeline(*clip, "a ball", num_inference_steps=2)
    assert not torch.allclose(pipeline(*clip, "a ball", num_inference_steps=2, guidance_scale=3.0), plain, atol=1e-4)
    # A scale next to one: nearly the plain prediction, by the other way of computing it.
    near = pipeline(*clip, "a ball", num_inference_steps=2, guidance_scale=1.000001)
    torch.testing.assert_close(near, plain, atol=1e-4, rtol=0)


# diffusers 0.42 hands tensors to numpy the old way.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_other_schedules_sample_too_and_repeatably(pipeline, clip, name):
    import diffusers

    settings = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    pipeline.scheduler = getattr(diffusers, name)(**settings)
    out = pipeline(*clip, "a ball", num_inference_steps=3)
    assert out.isfinite().all()
    assert torch.equal(pipeline(*clip, "a ball", num_inference_steps=3), out)


@pytest.mark.parametrize("steps", [{"num_inference_steps": 0}, {"window": 0}])
def test_counts_below_one_are_refused(pipeline, clip, miniature_painter, steps):
    with pytest.raises(ValueError, match="must be at least 1"):
        pipeline(*clip, "a ball", **steps)
    with pytest.raises(ValueError, match="must be at least 1"):
        InpaintingPainter(str(miniature_painter), **steps)


def test_a_mask_of_another_shape_is_refused(pipeline, painter, clip):
    with pytest.raises(ValueError, match="mask must be"):
        pipeline(clip[0], clip[1][:2], "a ball")
    with pytest.raises(ValueError, match="one mask per frame"):
        painter.paint(request(mask=tiny_masks(2, (16, 24)).data))


def test_the_painter_works_at_the_size_of_the_request(painter):
    sizes = []
    inner = painter.pipeline.__class__.__call__

    def spy(self, frames, *args, **keywords):
        sizes.append(tuple(frames.shape[-2:]))
        return inner(self, frames, *args, **keywords)

    painter.pipeline.__class__ = type("Spy", (P2VPipeline,), {"__call__": spy})
    painter.size = (32, 32)
    assert painter.paint(request()).shape == (3, 16, 24, 3)
    assert painter.paint(request(size=(8, 8))).shape == (3, 16, 24, 3)
    assert sizes == [(32, 32), (8, 8)]


def test_options_set_the_steps_and_unknown_ones_are_refused(painter):
    calls = []
    painter.paint(request(options={"num_inference_steps": 1}, progress=lambda *at: calls.append(at)))
    assert calls == [(1, 1)]
    with pytest.raises(ValueError, match="no option 'steps'"):
        painter.paint(request(options={"steps": 1}))


def test_the_sidecar_learns_the_hashes_of_the_weights(painter):
    facts = painter.provenance()
    assert set(facts["sha256"]) == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert facts["conditioning"] == "sd"
    json.dumps(facts)


def test_a_pipeline_comes_back_from_its_folder_as_it_was(pipeline, clip, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = P2VPipeline.from_pretrained(tmp_path)
    assert again.config.conditioning == "sd"
    assert torch.equal(again(*clip, "a ball", num_inference_steps=2), pipeline(*clip, "a ball", num_inference_steps=2))


def test_an_image_model_in_the_diffusers_layout_is_inflated(miniature_painter, miniature_unet, tmp_path, clip):
    shutil.copytree(miniature_painter, tmp_path / "image")
    shutil.rmtree(tmp_path / "image" / "unet")
    UNet2DConditionModel(**miniature_unet).save_pretrained(tmp_path / "image" / "unet")
    DDPMScheduler().save_pretrained(tmp_path / "image" / "scheduler")
    parts = P2VParts(str(tmp_path / "image"))
    assert isinstance(parts.unet, TemporalUNet)
    assert isinstance(parts.scheduler, DDPMScheduler)
    flat = P2VParts(str(tmp_path / "image"), temporal=False, conditioning="raccoon_trained")
    assert type(flat.unet) is UNet2DConditionModel
    out = P2VPipeline.from_parts(flat)(*clip, "a ball", num_inference_steps=1)
    assert torch.equal(
        P2VPipeline.from_parts(P2VParts(str(tmp_path / "image"), conditioning="raccoon_trained"))(
            *clip, "a ball", num_inference_steps=1
        ),
        out,
    )


def test_the_text_encoder_is_taken_out_of_a_whole_clip(miniature_painter, miniature_text, tmp_path, capfd):
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel, CLIPTextModel

    text = CLIPTextModel.from_pretrained(miniature_text / "text_encoder")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision, projection_dim=8))
    clip.half().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(miniature_text / "tokenizer").save_pretrained(tmp_path)
    capfd.readouterr()
    parts = P2VParts(str(miniature_painter), text=str(tmp_path))
    assert parts.text_encoder.dtype == torch.float32
    wanted = clip.text_model.state_dict()
    for name, value in parts.text_encoder.state_dict().items():
        assert torch.equal(wanted[name.removeprefix("text_model.")].float(), value)
    assert capfd.readouterr().err == ""


def test_only_the_unet_of_the_parts_trains(miniature_painter):
    parts = P2VParts(str(miniature_painter)).train()
    assert parts.unet.training
    assert not parts.vae.training
    assert not parts.text_encoder.training
    assert not any(p.requires_grad for p in [*parts.vae.parameters(), *parts.text_encoder.parameters()])


def test_the_shipped_weights_are_used_or_the_sentence_says_how_to_train_them(monkeypatch, tmp_path):
    monkeypatch.setattr("raccoon.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="raccoon fit --config p2v/tiny"):
        InpaintingPainter()


def test_weights_that_are_not_there_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="give the folder of a trained model"):
        weights_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="hf download somebody/painter --revision abc"):
        weights_folder("somebody/painter", revision="abc")
    with pytest.raises(FileNotFoundError, match="use sd2-community/stable-diffusion-2-inpainting instead"):
        weights_folder("stabilityai/stable-diffusion-2-inpainting")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model_index.json", "holds no painter"),
        ("unet", "unet/ is missing"),
        ("vae/config.json", "there is no AutoencoderKL"),
        ("vae/diffusion_pytorch_model.safetensors", "there is no AutoencoderKL"),
        ("scheduler/scheduler_config.json", "there is no noise schedule"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(miniature_painter, tmp_path, name, message):
    folder = shutil.copytree(miniature_painter, tmp_path / "painter")
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        P2VParts(str(folder))


@pytest.mark.parametrize("part", ["vae/diffusion_pytorch_model", "text_encoder/model", "unet/diffusion_pytorch_model"])
def test_a_damaged_weight_file_is_one_sentence(miniature_painter, tmp_path, part):
    folder = shutil.copytree(miniature_painter, tmp_path / "painter")
    path = folder / f"{part}.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        P2VParts(str(folder))


def test_weights_of_another_shape_are_refused(miniature_painter, tmp_path):
    folder = shutil.copytree(miniature_painter, tmp_path / "painter")
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "latent_channels": 3}))
    with pytest.raises(ValueError, match=r"mismatched: .*quant_conv"):
        P2VParts(str(folder))


def test_parts_that_do_not_belong_together_are_refused(miniature_painter, miniature_unet):
    with pytest.raises(ValueError, match="must take 9 channels"):
        P2VParts(str(miniature_painter), unet={**miniature_unet, "in_channels": 4})
    with pytest.raises(ValueError, match="text features of width 24"):
        P2VParts(str(miniature_painter), unet={**miniature_unet, "cross_attention_dim": 32})


def test_without_weights_every_part_must_be_named(miniature_vae):
    with pytest.raises(ValueError, match="text, unet, scheduler is missing"):
        P2VParts(vae=str(miniature_vae))


def test_a_schedule_must_be_one_of_diffusers(miniature_painter):
    with pytest.raises(ValueError, match="such as DDIMScheduler"):
        P2VParts(str(miniature_painter), scheduler={"_class_name": "Nonsense"})


def test_a_shift_of_colour_is_taken_away_and_the_painting_stays():
    source = torch.full((2, 3, 32, 32), 0.5)
    mask = torch.zeros(2, 32, 32)
    mask[:, 8:24, 8:24] = 1
    painted = source + 0.02
    painted[:, 0, 12:20, 12:20] += 0.3
    matched = match_surround(painted, source, mask)
    wanted = source.clone()
    wanted[:, 0, 12:20, 12:20] += 0.3
    torch.testing.assert_close(matched, wanted, atol=1e-4, rtol=0)


def test_a_frame_that_was_painted_all_over_stays():
    painted = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(match_surround(painted, 1 - painted, torch.ones(1, 16, 16)), painted)


def test_a_painter_may_take_its_text_encoder_from_the_folder_beside_it(miniature_painter, tmp_path):
    parts = P2VParts(str(miniature_painter))
    shared = tmp_path / "clip"
    parts.text_encoder.save_pretrained(shared)
    parts.tokenizer.save_pretrained(shared)
    parts.save_pretrained(tmp_path / "p2v", dtype=torch.float32, text="../clip")
    assert not (tmp_path / "p2v" / "text_encoder").exists()
    loaded = P2VParts(str(tmp_path / "p2v"))
    for name, value in parts.text_encoder.state_dict().items():
        assert torch.equal(loaded.text_encoder.state_dict()[name], value)
    assert "../clip/model.safetensors" in weight_files(tmp_path / "p2v")
    shutil.rmtree(shared)
    with pytest.raises(FileNotFoundError, match="keep the two together"):
        P2VParts(str(tmp_path / "p2v"))
