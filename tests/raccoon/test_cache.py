"""Training from a cache equals training without, and a cache is never read for what it was not made of."""

import shutil
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from raccoon.models.lora import LoraSettings
from raccoon.models.mgs import MGSPooling
from raccoon.models.p2v_parts import P2VParts
from raccoon.models.superpixels import SlicSuperpixels
from raccoon.models.video_llm import VideoLLM
from raccoon.models.vision import ClipVisionEncoder
from raccoon.tasks.cache_features import encode_grid, encode_latents, encode_text, fingerprint, p2v_model, v2p_model
from raccoon.tasks.cache_fill import fill
from raccoon.tasks.optim import OptimizerSettings
from raccoon.tasks.p2v import P2VTask
from raccoon.tasks.tokenizer import tiny_tokenizer
from raccoon.tasks.v2p import V2PTask
from raccoon_datamodules.batch import P2VBatch, P2VLatentBatch
from raccoon_datamodules.cache import CachedView
from raccoon_datamodules.faults import read_faults
from raccoon_datamodules.index import Index
from raccoon_datamodules.p2v import P2VDataModule
from raccoon_datamodules.pixels import stack_planes
from raccoon_datamodules.sample import encode
from raccoon_datamodules.sources import SyntheticSource
from raccoon_datamodules.synthetic import make_sample, seed_of
from raccoon_datamodules.tasks import choices, painted, plan_p2v
from raccoon_datamodules.v2p import V2PDataModule
from raccoon_datamodules.writer import write_encoded

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
SETTINGS = OptimizerSettings(learning_rate=1e-3, schedule="constant")
HALF = {"rtol": 4e-3, "atol": 4e-3}
# Equal losses, bit for bit; several threads add the gradients of one row up in another order each time.
SUMS = {"rtol": 1e-4, "atol": 1e-7}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "train"
    scenes = (make_sample(seed_of("train", i), "easy", num_frames=6, size=(40, 40), fps=8.0) for i in range(5))
    write_encoded(((scene.key, encode(scene)) for scene in scenes), folder, samples_per_shard=3)
    return folder


def v2p_task(seed=0, *, cell=8, frozen=True):
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    llama = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    network = VideoLLM(
        ClipVisionEncoder(CLIPVisionModel(vision)),
        LlamaForCausalLM(llama),
        tokenizer,
        superpixels=SlicSuperpixels(cell, 2),
        pooling=MGSPooling(3, 2),
        num_frames=4,
        lora=LoraSettings(2, dropout=0.0),
        template="plain",
        position_embeddings=True,
    )
    task = V2PTask(network, SETTINGS, describe_clips=0)
    if not frozen:
        network.visual.encoder.requires_grad_(True)
    return task


def v2p_data(train, task=None, **how):
    data = V2PDataModule(
        train if isinstance(train, SyntheticSource) else str(train),
        **{"global_batch_size": 4, "num_frames": 4, "size": (32, 32), **how},
    )
    if task is not None:
        data.conversation = task.conversation
        data.cached_model = v2p_model(task.network)
    return data


@pytest.fixture
def p2v_task(miniature_painter):
    def make(seed=0, **how):
        torch.manual_seed(seed)
        parts = P2VParts(str(miniature_painter), **how.pop("network", {}))
        return P2VTask(parts, SETTINGS, **{"trainable": "all", **how})

    return make


def p2v_data(train, task=None, **how):
    data = P2VDataModule(str(train), **{"global_batch_size": 4, "num_frames": 4, "size": (32, 32), **how})
    if task is not None:
        data.cached_model = p2v_model(task.network)
    return data


def batches(data, count=3):
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


def gradients(task):
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def steps(task, found):
    """Losses and the gradients they add up to."""
    losses = []
    for batch in found:
        loss = task.training_step(batch, 0)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses), gradients(task)


@pytest.mark.parametrize("sampling", ["uniform", "segments"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_describer_trains_from_a_cache_as_without(shards, tmp_path, dtype, sampling):
    task = v2p_task()
    plain = v2p_data(shards, task, frame_sampling=sampling)
    fill(task, plain, tmp_path, dtype=dtype, batch_frames=7)
    cached = batches(v2p_data(shards, task, frame_sampling=sampling, cache=str(tmp_path), cache_miss="error"))
    assert all(batch.frames is None and batch.grid is not None for batch in cached)
    wanted_losses, wanted = steps(task, batches(plain))
    task.zero_grad()
    losses, found = steps(task, cached)
    tolerance = {"rtol": 0, "atol": 0} if dtype == "float32" else HALF
    torch.testing.assert_close(losses, wanted_losses, **tolerance)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **(tolerance if dtype == "float16" else SUMS), msg=name)


@pytest.mark.parametrize("conditioning", ["sd", "raccoon_trained"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_painter_trains_from_a_cache_as_without(shards, tmp_path, p2v_task, dtype, conditioning):
    task = p2v_task(network={"conditioning": conditioning}, text_dropout=0.4)
    plain = p2v_data(shards, task)
    fill(task, plain, tmp_path, dtype=dtype, batch_frames=7)
    cached = batches(p2v_data(shards, task, cache=str(tmp_path), cache_miss="error"))
    assert all(isinstance(batch, P2VLatentBatch) for batch in cached)
    assert {name for batch in cached for name in batch.task} == {"remove", "add", "change"}
    wanted_losses, wanted = steps(task, batches(plain))
    task.zero_grad()
    losses, found = steps(task, cached)
    # The networks round differently in batches of another size: by 1e-7, with a cache or without.
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else HALF
    torch.testing.assert_close(losses, wanted_losses, **tolerance)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **(tolerance if dtype == "float16" else SUMS), msg=name)


def test_images_of_a_clip_train_from_a_cache_too(shards, tmp_path, p2v_task):
    task = p2v_task(as_images=True)
    fill(task, p2v_data(shards, task), tmp_path, dtype="float32")
    (frames,), (latents,) = batches(p2v_data(shards, task), 1), batches(p2v_data(shards, task, cache=str(tmp_path)), 1)
    torch.testing.assert_close(task.training_step(latents, 0), task.training_step(frames, 0))


def test_latents_are_those_of_each_frame_and_of_what_its_mask_leaves(shards, tmp_path, p2v_task):
    task = p2v_task()
    fill(task, p2v_data(shards, task, tasks={"remove": 1.0}), tmp_path, dtype="float32", batch_frames=4, limit=1)
    source = p2v_data(shards, task, tasks={"remove": 1.0}, cache=str(tmp_path))
    view = CachedView(source.sources[0], 0, 0, source.sources[0].suffixes(0, 0))
    choice = choices(source.sources[0].suffixes(0, 0), {"remove": 1.0})["remove"][0]
    plan = replace(plan_p2v(view, choice, num_frames=6, rng=None, sampling="uniform"), frames=(0, 1, 2, 3))
    features = source.cache.p2v(source.cached_model, view, plan, (32, 32))
    example = painted(view, plan, (32, 32))
    torch.testing.assert_close(features.text, encode_text(task.network, [plan.prompt])[0])
    for name, found, mask in (("target", features.target, 0), ("condition", features.condition, example.edit_mask)):
        planes = stack_planes([getattr(example, name)])[0].float().div_(127.5).sub_(1.0)
        hidden = torch.zeros(4, 32, 32) + torch.as_tensor(mask)
        alone = torch.cat([encode_latents(task.network, f[None], m[None]) for f, m in zip(planes, hidden, strict=True)])
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)


def test_a_second_run_has_nothing_to_do_and_a_stopped_one_goes_on(shards, tmp_path):
    task = v2p_task()
    first = fill(task, v2p_data(shards, task), tmp_path, limit=2)
    rest = fill(task, v2p_data(shards, task), tmp_path)
    again = fill(task, v2p_data(shards, task), tmp_path)
    assert (first.num_samples, rest.num_samples, rest.num_known) == (2, 5, 2)
    assert (again.num_known, again.num_tensors, again.num_failed) == (5, 0, 0)


def test_parts_fill_one_folder_together(shards, tmp_path):
    task = v2p_task()
    done = [fill(task, v2p_data(shards, task), tmp_path, part=(i, 2), num_workers=i) for i in range(2)]
    assert [one.num_samples for one in done] == [3, 2]
    assert fill(task, v2p_data(shards, task), tmp_path).num_known == 5


def test_another_network_finds_nothing(shards, tmp_path):
    task = v2p_task()
    fill(task, v2p_data(shards, task), tmp_path)
    for other in (v2p_task(seed=1), v2p_task(cell=10)):
        (batch,) = batches(v2p_data(shards, other, cache=str(tmp_path)), 1)
        assert batch.grid is None
        with pytest.raises(RuntimeError, match=r"must hold every sample, and lacks something of .*raccoon cache"):
            batches(v2p_data(shards, other, cache=str(tmp_path), cache_miss="error"), 1)


def test_another_size_or_content_finds_nothing(shards, tmp_path, p2v_task):
    task = p2v_task()
    fill(task, p2v_data(shards, task), tmp_path / "cache")
    other = tmp_path / "other"
    scenes = (make_sample(seed_of("train", i), "medium", num_frames=6, size=(40, 40), fps=8.0) for i in range(5))
    write_encoded(((scene.key, encode(scene)) for scene in scenes), other, samples_per_shard=3)
    for data in (
        p2v_data(other, task, cache=str(tmp_path / "cache")),
        p2v_data(shards, task, size=(40, 40), cache=str(tmp_path / "cache")),
    ):
        assert isinstance(batches(data, 1)[0], P2VBatch)


def test_a_batch_of_which_one_sample_is_missing_is_decoded_whole(shards, tmp_path, p2v_task):
    describer, painter = v2p_task(), p2v_task()
    for task, data, kind in ((describer, v2p_data, "grid"), (painter, p2v_data, "latents")):
        folder = tmp_path / kind
        fill(task, data(shards, task), folder, limit=4)
        (batch,) = batches(data(shards, task, global_batch_size=5, cache=str(folder)), 1)
        (wanted,) = batches(data(shards, task, global_batch_size=5), 1)
        pixels = "frames" if kind == "grid" else "target"
        assert torch.equal(getattr(batch, pixels), getattr(wanted, pixels))


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("kind", ["describer", "painter"])
def test_a_cached_sample_that_cannot_be_decoded_beside_one_that_is_missing_is_replaced(
    shards, tmp_path, p2v_task, kind, num_workers
):
    task, data = (v2p_task(), v2p_data) if kind == "describer" else (p2v_task(), p2v_data)
    broken, folder = shutil.copytree(shards, tmp_path / "shards"), str(tmp_path / "cache")
    how = {"global_batch_size": 5, "tasks": {"describe": 1.0} if kind == "describer" else {"remove": 1.0}}
    fill(task, data(broken, task, **how), folder, limit=4)
    index = Index.load(broken)
    # The video of a sample that the cache holds; the last of the five it does not.
    bad = index.shards[0].key(1)
    (entry,) = (m for m in index.shards[0].members(1) if m.suffix == "video.mp4")
    with (broken / index.shards[0].name).open("r+b") as tar:
        tar.seek(entry.offset + entry.length // 2)
        tar.write(b"not what the index says")
    cached = data(broken, task, cache=folder, num_workers=num_workers, quarantine=str(tmp_path / "q.jsonl"), **how)
    batch, wanted = (next(iter(one.train_dataloader())) for one in (cached, data(broken, task, **how)))
    assert bad not in batch.key
    assert batch.key == wanted.key
    pixels = "frames" if kind == "describer" else "target"
    assert torch.equal(getattr(batch, pixels), getattr(wanted, pixels))
    (fault,) = read_faults(tmp_path / "q.jsonl")
    assert (fault.key, fault.attempt, cached.train_log.num_bad) == (bad, 0, 1)


def test_a_damaged_entry_is_computed_anew(shards, tmp_path):
    task = v2p_task()
    fill(task, v2p_data(shards, task), tmp_path)
    (pack,) = tmp_path.glob("pack-*.bin")
    data = bytearray(pack.read_bytes())
    for i in range(0, len(data), 50):
        data[i] ^= 1
    pack.write_bytes(data)
    (batch,) = batches(v2p_data(shards, task, cache=str(tmp_path)), 1)
    assert batch.grid is None


def test_rendered_scenes_are_cached_with_a_limit(tmp_path):
    task = v2p_task()
    source = SyntheticSource(num_frames=4, size=(32, 32))
    with pytest.raises(ValueError, match="has no end: say how many samples to cache by --limit"):
        fill(task, v2p_data(source, task), tmp_path)
    fill(task, v2p_data(source, task), tmp_path, limit=4)
    assert batches(v2p_data(source, task, cache=str(tmp_path)), 1)[0].grid is not None


def test_workers_read_the_same_cache(shards, tmp_path, p2v_task):
    task = p2v_task()
    fill(task, p2v_data(shards, task), tmp_path)
    here = batches(p2v_data(shards, task, cache=str(tmp_path)))
    there = batches(p2v_data(shards, task, cache=str(tmp_path), num_workers=2))
    assert all(
        torch.equal(a.target, b.target) and torch.equal(a.text, b.text) for a, b in zip(here, there, strict=True)
    )


def test_an_encoder_that_learns_has_no_cache(shards, tmp_path, p2v_task):
    with pytest.raises(ValueError, match=r"the visual encoder is being trained .* cannot come from a cache"):
        fill(v2p_task(frozen=False), v2p_data(shards), tmp_path)
    painter = p2v_task()
    painter.network.vae.requires_grad_(True)
    with pytest.raises(ValueError, match="the VAE is being trained"):
        fill(painter, p2v_data(shards), tmp_path)


def test_a_trainer_links_the_network_and_trains_from_the_cache(shards, tmp_path):
    task, seen = v2p_task(), []
    fill(task, v2p_data(shards, task), tmp_path / "cache")
    task.training_step = lambda batch, i, inner=task.training_step: seen.append(batch.grid is None) or inner(batch, i)
    data = v2p_data(shards, cache=str(tmp_path / "cache"))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
        limit_val_batches=0,
    )
    trainer.fit(task, datamodule=data)
    assert seen == [False, False]


def test_data_that_makes_its_own_examples_is_refused(shards, tmp_path):
    class Flipped(V2PDataModule):
        def make_example(self, view, choice, rng):
            return super().make_example(view, choice, rng)

    task = v2p_task()
    fill(task, v2p_data(shards, task), tmp_path)
    data = Flipped(str(shards), conversation=task.conversation, cache=str(tmp_path), num_frames=4, size=(32, 32))
    with pytest.raises(ValueError, match=r"Flipped.make_example makes these examples, .* set cache to null"):
        data.train_dataloader()


def test_a_cache_whose_network_nobody_named_is_refused(shards, tmp_path):
    task = v2p_task()
    fill(task, v2p_data(shards, task), tmp_path)
    data = v2p_data(shards, cache=str(tmp_path))
    data.conversation = task.conversation
    with pytest.raises(RuntimeError, match="set the datamodule's cached_model"):
        data.train_dataloader()


def test_a_task_without_its_data_is_refused(shards, tmp_path, p2v_task):
    with pytest.raises(TypeError, match="got V2PTask with P2VDataModule"):
        fill(v2p_task(), p2v_data(shards), tmp_path)


@pytest.mark.parametrize("how", [{"part": (2, 2)}, {"limit": 0}, {"batch_frames": 0}, {"num_workers": -1}], ids=str)
def test_numbers_out_of_range_are_refused(shards, tmp_path, how):
    with pytest.raises(ValueError, match="part must be"):
        fill(v2p_task(), v2p_data(shards), tmp_path, **how)


def test_unreadable_samples_are_counted_and_all_of_them_are_an_error(shards, tmp_path):
    broken = shutil.copytree(shards, tmp_path / "shards")
    (broken / "vplm-train-000001.tar").unlink()
    task = v2p_task()
    done = fill(task, v2p_data(broken, task), tmp_path / "cache")
    assert (done.num_samples, done.num_failed) == (5, 2)
    assert "vplm-train-000001.tar" in done.reason
    (broken / "vplm-train-000000.tar").unlink()
    with pytest.raises(RuntimeError, match="none of the 5 samples could be read, the first one: vplm-train"):
        fill(task, v2p_data(broken, task), tmp_path / "other")


def test_a_fingerprint_is_that_of_the_weights_and_settings():
    same, again = v2p_task().network.visual, v2p_task().network.visual
    assert fingerprint(same.encoder) == fingerprint(again.encoder)
    assert fingerprint(same.superpixels) == fingerprint(again.superpixels)
    again.encoder.layer = -1
    assert fingerprint(same.encoder) != fingerprint(again.encoder)
    again.encoder.layer = same.encoder.layer
    with torch.no_grad():
        next(again.encoder.parameters()).view(-1)[0] += 1e-6
    assert fingerprint(same.encoder) != fingerprint(again.encoder)


def test_a_strangers_part_says_its_own_fingerprint_or_is_refused():
    class Stranger:
        def __init__(self, rule):
            self.rule = rule

    class Telling(Stranger):
        def fingerprint(self):
            return "rule 7"

    assert fingerprint(Telling(print)).endswith("rule 7")
    assert fingerprint(Stranger(3)) != fingerprint(Stranger(4))
    with pytest.raises(TypeError, match=r"Stranger keeps rule .*, which a cache cannot tell from another"):
        fingerprint(Stranger(print))


def test_an_encoder_that_joins_frames_is_refused(shards, tmp_path):
    task = v2p_task()
    inner = task.network.visual.encoder.encode
    task.network.visual.encoder.encode = lambda frames: inner(frames)[::2]
    with pytest.raises(ValueError, match="a cache keeps one grid for each frame, ClipVisionEncoder makes 2 of 4"):
        encode_grid(task.network, torch.rand(4, 3, 32, 32))
