import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from raccoon.interfaces import DescribeRequest, PlanRequest
from raccoon.models.describer import VideoLLMDescriber
from raccoon.models.mgs import MGSPooling
from raccoon.models.superpixels import GridSuperpixels
from raccoon.models.video_llm import VideoLLM
from raccoon.models.vision import ClipVisionEncoder
from raccoon.tasks.tokenizer import tiny_tokenizer
from raccoon.testing import CHECKS, tiny_video
from raccoon_datamodules.layout import Layout
from raccoon_datamodules.paragraph import ObjectDescription, Paragraph

LIMITS = {"max_new_tokens": 80, "max_layout_tokens": 200, "device": "cpu"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = VideoLLM(
        ClipVisionEncoder(CLIPVisionModel(vision)),
        LlamaForCausalLM(llama),
        tokenizer,
        superpixels=GridSuperpixels(8),
        pooling=MGSPooling(3, 2),
        num_frames=4,
        template="plain",
        position_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("v2p")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def describer(weights):
    return VideoLLMDescriber(weights, **LIMITS)


def test_it_conforms_as_a_describer_and_as_a_planner(describer):
    CHECKS["describer"](describer)
    CHECKS["layout_planner"](describer)


def test_an_untrained_network_still_writes_a_paragraph(describer):
    answer = describer.describe(DescribeRequest(tiny_video(9)))
    assert Paragraph.parse(answer.raw) == (answer.paragraph, [])
    assert answer.sampling["frame_indices"] == [0, 2, 4, 6]
    assert answer.sampling["size"] == [32, 32]


def test_one_object_is_described_by_its_name(describer):
    answer = describer.describe(DescribeRequest(tiny_video(), task="object", options={"object": "Brown Dog"}))
    assert answer.paragraph.names == ("Brown Dog",)
    assert answer.raw.startswith("Brown Dog: ")


def test_a_layout_has_a_box_for_every_frame_of_the_video(describer):
    thing = ObjectDescription("Red Ball", "A red ball that rolls.")
    layout = describer.plan(PlanRequest(tiny_video(11), thing))
    assert (layout.name, layout.num_frames) == ("Red Ball", 11)
    assert isinstance(layout, Layout)
    assert np.isfinite(layout.boxes).any()


def test_a_long_name_gets_the_tokens_that_its_layout_needs(weights):
    short = VideoLLMDescriber(weights, **{**LIMITS, "max_layout_tokens": 10})
    layout = short.plan(PlanRequest(tiny_video(), ObjectDescription("Ünïcödé " * 20)))
    assert layout.num_frames == tiny_video().num_frames


def test_several_clips_are_answered_as_each_alone(weights):
    describer = VideoLLMDescriber(weights, **LIMITS, batch_size=2)
    requests = [
        DescribeRequest(tiny_video(5, seed=1)),
        DescribeRequest(tiny_video(6, seed=2)),
        DescribeRequest(tiny_video(5, seed=3), options={"temperature": 1.0, "seed": 4}),
        DescribeRequest(tiny_video(5, seed=4)),
    ]
    together = [answer.raw for answer in describer.describe_batch(requests)]
    assert together == [describer.describe(request).raw for request in requests]
    plans = [PlanRequest(tiny_video(5, seed=i), ObjectDescription(name)) for i, name in enumerate(("Cat", "Red Dog"))]
    assert describer.plan_batch(plans) == [describer.plan(plan) for plan in plans]
    assert describer.describe_batch([]) == []


def test_draws_follow_the_seed(describer):
    def say(seed):
        return describer.describe(DescribeRequest(tiny_video(), options={"temperature": 1.5, "seed": seed})).raw

    assert say(0) == say(0) != say(1)


def test_wrong_requests_are_refused(describer):
    video = tiny_video()
    for request, message in [
        (DescribeRequest(video, options={"sed": 1}), "unknown option 'sed'; this describer takes object, seed"),
        (DescribeRequest(video, options={"object": "Dog"}), "option object belongs to task 'object'"),
        (DescribeRequest(video, task="object"), "task 'object' needs the option object"),
        (DescribeRequest(video, task="poem"), "task must be 'all' or 'object', got 'poem'"),
    ]:
        with pytest.raises(ValueError, match=message):
            describer.describe(request)
    with pytest.raises(ValueError, match="unknown option 'object'; this describer takes seed, temperature"):
        describer.plan(PlanRequest(video, ObjectDescription("Dog"), options={"object": "Dog"}))


def test_wrong_settings_are_refused(weights, tmp_path):
    for changes, message in [
        ({"num_frames": 9}, "num_frames must be 4, which .* was trained on, got 9"),
        ({"dtype": "int8"}, "dtype must be float32, float16 or bfloat16, got 'int8'"),
        ({"batch_size": 0}, "batch_size >= 1 and temperature >= 0 must hold, got 0 and 0.0"),
        ({"max_new_tokens": 3}, "max_new_tokens must be at least"),
    ]:
        with pytest.raises(ValueError, match=message):
            VideoLLMDescriber(weights, **{**LIMITS, **changes})
    with pytest.raises(FileNotFoundError, match="there are no weights in"):
        VideoLLMDescriber(tmp_path / "nowhere")


def test_it_runs_in_half_precision(weights):
    describer = VideoLLMDescriber(weights, **LIMITS, dtype="bfloat16", num_frames=4)
    assert Paragraph.parse(describer.describe(DescribeRequest(tiny_video())).raw)[1] == []
