import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from raccoon.models.decoding import Constraint
from raccoon.models.grammars import ParagraphGrammar
from raccoon.models.lora import LoraSettings
from raccoon.models.mgs import MGSPooling
from raccoon.models.released_v2p import import_released
from raccoon.models.superpixels import GridSuperpixels
from raccoon.models.video_llm import VideoLLM, answer_loss
from raccoon.models.video_llm_files import grow_vocabulary
from raccoon.models.vision import ClipVisionEncoder
from raccoon.tasks.tokenizer import train_tokenizer
from raccoon_datamodules import prompts
from raccoon_datamodules.batch import V2PBatch
from raccoon_datamodules.paragraph import Paragraph
from raccoon_datamodules.synthetic import make_sample, make_scene

FRAMES, SIDE = 4, 32


@pytest.fixture(scope="module")
def tokenizer():
    texts = [str(make_scene(seed).paragraph()) for seed in range(10)]
    return train_tokenizer([*texts, prompts.DESCRIBE_ALL], 400)


LORA = LoraSettings(4, 8.0, 0.0)


def build(tokenizer, *, lora=LORA, position_embeddings=True, seed=0):
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return VideoLLM(
        ClipVisionEncoder(CLIPVisionModel(vision)),
        LlamaForCausalLM(llama),
        tokenizer,
        superpixels=GridSuperpixels(8),
        pooling=MGSPooling(3, 2),
        num_frames=FRAMES,
        lora=lora,
        template="plain",
        position_embeddings=position_embeddings,
        normalize_features=position_embeddings,
    )


@pytest.fixture
def model(tokenizer):
    return build(tokenizer)


def frames_of(*seeds):
    clips = [make_sample(seed, num_frames=FRAMES, size=(SIDE, SIDE), inpainted=False).video.frames for seed in seeds]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).float() / 255


def batch_of(model, *seeds):
    samples = [make_sample(seed, num_frames=FRAMES, size=(SIDE, SIDE), inpainted=False) for seed in seeds]
    texts = model.conversation.collate(
        [model.conversation.turn("Describe this video.", str(sample.paragraph)) for sample in samples]
    )
    return V2PBatch(
        frames=frames_of(*seeds),
        grid=None,
        superpixels=None,
        input_ids=texts.input_ids,
        labels=texts.labels,
        attention_mask=texts.attention_mask,
        task=["describe"] * len(seeds),
        key=[sample.key for sample in samples],
        ordinal=torch.arange(len(seeds)),
    )


def test_a_clip_becomes_frames_clusters_and_places(model):
    tokens = model.visual(frames=frames_of(1, 2))
    assert model.num_visual_tokens == FRAMES + 3 + 16
    assert tokens.features.shape == (2, model.num_visual_tokens, 16)
    assert tokens.valid.shape == (2, model.num_visual_tokens)
    assert tokens.tracks.shape == (2, 3, 3 * FRAMES)
    assert tokens.tracks.reshape(2, 3, FRAMES, 3)[..., 1:].abs().max() <= 0.5


def test_the_track_of_a_cluster_follows_its_pixels(model):
    # A white cell moves from left to right over black.
    frames = torch.zeros(1, FRAMES, 3, SIDE, SIDE)
    for frame in range(FRAMES):
        frames[0, frame, :, 8:16, 8 * frame : 8 * frame + 8] = 1.0
    model.visual.pooling = MGSPooling(2, 1)
    tracks = model.visual(frames=frames).tracks.reshape(2, FRAMES, 3)
    small = tracks[tracks[:, 0, 0].argmin()]
    torch.testing.assert_close(small[:, 0], torch.full((FRAMES,), 1 / 16))
    torch.testing.assert_close(small[:, 1], torch.tensor([-0.375, -0.125, 0.125, 0.375]))
    torch.testing.assert_close(small[:, 2], torch.full((FRAMES,), -0.125))


def test_a_cluster_without_pixels_is_a_zero_token(model):
    # One colour everywhere: the superpixels are one point, and three clusters cannot share it.
    model.visual.pooling = MGSPooling(3, 1, features="lab")
    tokens = model.visual(frames=torch.full((1, FRAMES, 3, SIDE, SIDE), 0.5))
    assert not bool(tokens.valid.all())
    embedded = model.projector(tokens)
    assert embedded[~tokens.valid].abs().max() == 0
    assert embedded[tokens.valid].abs().min(dim=-1).values.max() > 0


def test_normalised_features_begin_at_the_size_of_the_embeddings(model):
    embedded = model.projector(model.visual(frames=frames_of(1, 2)))
    size, wanted = (x.pow(2).mean().sqrt() for x in (embedded, model.llama.get_input_embeddings().weight))
    # Features and position are one size each.
    assert wanted < size < 2.5 * wanted
    assert not build(model.tokenizer, position_embeddings=False).projector.normalize_features


def test_given_superpixels_give_the_same_tokens(model):
    frames = frames_of(1, 2)
    labels = GridSuperpixels(8).segment(frames.flatten(0, 1))[0].unflatten(0, (2, FRAMES))
    given = model.visual(frames=frames, superpixels=labels)
    torch.testing.assert_close(given.features, model.visual(frames=frames).features)


def test_cached_features_share_the_tokens_of_frames_and_places(model):
    frames = frames_of(1, 2)
    grid = model.visual.encoder.encode(frames.flatten(0, 1)).unflatten(0, (2, FRAMES))
    cached, fresh = model.visual(grid=grid).features, model.visual(frames=frames).features
    torch.testing.assert_close(cached[:, :FRAMES], fresh[:, :FRAMES])
    torch.testing.assert_close(cached[:, FRAMES + 3 :], fresh[:, FRAMES + 3 :])


def test_the_visual_tokens_fill_the_slots_and_nothing_else(model):
    batch = batch_of(model, 1, 2)
    embeds = model.embed(batch.input_ids, frames=batch.frames)
    plain = model.llama.get_input_embeddings()(batch.input_ids)
    slots = batch.input_ids == model.conversation.patch_id
    visual = model.projector(model.visual(frames=batch.frames))
    torch.testing.assert_close(embeds[slots].reshape(2, -1, 32), visual)
    torch.testing.assert_close(embeds[~slots], plain[~slots])


def test_only_what_the_paper_trains_learns(model):
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"projector", "token_rows", "language_model"}
    inside = {name for name, p in model.language_model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "lm_head" in name for name in inside)
    assert sum("lora_" in name for name in inside) == 2 * 2 * 2
    model.set_trainable("all")
    assert all(p.requires_grad for p in model.language_model.parameters())
    assert not any(p.requires_grad for p in model.visual.parameters())


def test_one_batch_can_be_learned_through_a_frozen_random_encoder(model):
    batch = batch_of(model, 1, 2, 3, 4)
    model.train()
    assert not model.visual.encoder.training
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(40):
        loss = model(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None for grad in grads.values())
    assert all(float(grad.abs().max()) > 0 for name, grad in grads.items() if "lora_" in name or "mlp" in name)
    assert losses[-1] < 0.5 * losses[0]


def test_a_samples_loss_is_the_mean_over_its_answer_and_ignores_its_padding(model):
    batch = batch_of(model, 1, 2)
    both = model(batch)
    one = batch_of(model, 1)
    torch.testing.assert_close(both[:1], model(one), atol=1e-4, rtol=1e-4)
    logits = model.llama(inputs_embeds=model.embed(one.input_ids, frames=one.frames)).logits[0, :-1]
    asked = one.labels[0, 1:] != -100
    expected = torch.nn.functional.cross_entropy(logits[asked], one.labels[0, 1:][asked])
    torch.testing.assert_close(model(one)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_row_without_an_answer_costs_nothing():
    loss = answer_loss(torch.randn(2, 3, 4), torch.tensor([[-100, -100, 1], [-100] * 3]), torch.nn.Linear(4, 5))
    assert loss.shape == (2,)
    assert loss[1] == 0


def test_a_clip_is_described_the_same_alone_and_in_a_batch(model):
    model.eval()
    frames = frames_of(1, 2)
    prompts_ = [model.conversation.prompt("Describe this video."), model.conversation.prompt("What is there?")]
    both = model.generate(prompts_, frames=frames, max_new_tokens=12)
    alone = [model.generate([prompt], frames=frames[i : i + 1], max_new_tokens=12) for i, prompt in enumerate(prompts_)]
    assert both == [text for (text,) in alone]


def test_draws_follow_the_seed(model):
    model.eval()
    frames, prompt = frames_of(1), [model.conversation.prompt("Describe this video.")]
    texts = [
        model.generate(prompt, frames=frames, max_new_tokens=12, temperature=2.0, seed=seed)[0] for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_generation_with_a_cache_is_generation_without(model):
    model.eval()
    frames, prompt = frames_of(3), model.conversation.prompt("Describe this video.")
    written: list[int] = []
    for _ in range(6):
        ids = torch.cat((prompt, torch.tensor(written, dtype=torch.int64)))[None]
        hidden = model.llama.model(inputs_embeds=model.embed(ids, frames=frames)).last_hidden_state
        written.append(int(model.llama.lm_head(hidden[:, -1]).argmax()))
    (text,) = model.generate([prompt], frames=frames, max_new_tokens=6)
    assert text == model.tokenizer.decode(written, skip_special_tokens=True).removeprefix(" ")


def test_constrained_text_parses(model):
    model.eval()
    constraint = Constraint(model.vocabulary, ParagraphGrammar(), 60)
    prompt = model.conversation.prompt(prompts.DESCRIBE_ALL)
    texts = model.generate([prompt] * 2, frames=frames_of(1, 2), constraints=[constraint] * 2)
    assert all(Paragraph.parse(text)[1] == [] for text in texts)


@pytest.mark.parametrize("lora", [LoraSettings(4, 8.0, 0.0), None])
@pytest.mark.parametrize("reference", [False, True])
def test_a_saved_network_loads_as_it_was(tokenizer, tmp_path, lora, reference):
    model = build(tokenizer, lora=lora).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.visual.encoder.tower.save_pretrained(tmp_path / "clip")
    folder = tmp_path / "v2p"
    model.save_pretrained(folder, dtype="float32", encoder="../clip" if reference else None)
    assert (folder / "encoder").exists() != reference
    assert (folder / "adapter").exists() == (lora is not None)
    loaded = VideoLLM.from_pretrained(folder)
    batch = batch_of(model, 1, 2)
    torch.testing.assert_close(loaded(batch), model(batch), atol=1e-5, rtol=1e-5)
    assert not loaded.training
    assert str(tmp_path) not in "".join(p.read_text() for p in folder.rglob("*.json") if p.parent.name != "tokenizer")


def test_the_adapter_is_what_peft_reads(tokenizer, tmp_path):
    from peft import PeftConfig

    build(tokenizer).save_pretrained(tmp_path)
    config = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert (config.r, config.lora_alpha, set(config.target_modules)) == (4, 8.0, {"q_proj", "v_proj"})
    state = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in state
    assert all(tensor.dtype == torch.float16 for tensor in state.values())


def test_the_adapters_config_names_its_modules_in_order(tokenizer, tmp_path):
    build(tokenizer).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == ["q_proj", "v_proj"]


def test_every_wrong_key_of_every_part_is_listed(tokenizer, tmp_path):
    build(tokenizer).save_pretrained(tmp_path)
    state = load_file(tmp_path / "v2p.safetensors")
    state["projector.mlp.9.weight"] = state.pop("projector.mlp.0.weight")
    state["head.weight"] = state["head.weight"][:, :8].clone()
    save_file(state, tmp_path / "v2p.safetensors")
    adapter = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(adapter)
    state.pop("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight")
    save_file(state, adapter)
    with pytest.raises(ValueError, match="must hold exactly the weights") as err:
        VideoLLM.from_pretrained(tmp_path)
    message = str(err.value)
    assert "lacks base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in message
    assert "lacks projector.mlp.0.weight" in message
    assert "has the unknown projector.mlp.9.weight" in message
    assert f"has another shape for head.weight [{len(tokenizer)}, 8] instead of [{len(tokenizer)}, 32]" in message


def test_a_language_model_without_a_weight_is_refused(tokenizer, tmp_path):
    build(tokenizer).save_pretrained(tmp_path)
    file = tmp_path / "language_model" / "model.safetensors"
    state = load_file(file)
    state.pop("model.norm.weight")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"language_model lacks model\.norm\.weight"):
        VideoLLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["v2p.safetensors", "adapter/adapter_model.safetensors"])
def test_a_damaged_file_is_named(tokenizer, tmp_path, name):
    build(tokenizer).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"{name.split('/')[-1]} must be a safetensors file, and is damaged"):
        VideoLLM.from_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match="the describer's weights lack"):
        VideoLLM.from_pretrained(tmp_path)


def test_a_damaged_language_model_is_named(tokenizer, tmp_path):
    build(tokenizer).save_pretrained(tmp_path)
    (tmp_path / "language_model" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="must hold a language model, and cannot be read"):
        VideoLLM.from_pretrained(tmp_path)


def test_missing_weights_are_said_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there are no weights in .*nowhere"):
        VideoLLM.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        VideoLLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("encoder", "language_model", "message"),
    [
        ("openai/clip-vit-large-patch14-336", "llava-hf/llava-1.5-7b-hf", "hf download openai/clip-vit-large-patch14"),
        ("{here}", "llava-hf/llava-1.5-7b-hf", r"hf download llava-hf/llava-1\.5-7b-hf"),
        ("runs/weights/tiny/none", "x", "an earlier stage makes: `raccoon fit --config tiny/none`"),
        ("{here}", "runs/weights/tiny/none", "an earlier stage makes: `raccoon fit --config tiny/none`"),
    ],
)
def test_a_part_that_is_not_here_names_the_command_that_brings_it(tmp_path, encoder, language_model, message):
    with pytest.raises(FileNotFoundError, match=message):
        VideoLLM.from_parts(
            encoder.format(here=tmp_path), language_model, superpixels=GridSuperpixels(), pooling=MGSPooling()
        )


def test_it_trains_in_mixed_precision(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch_of(model, 1, 2))
    losses.mean().backward()
    torch.testing.assert_close(losses, model(batch_of(model, 1, 2)), atol=0.2, rtol=0.05)


def test_references_are_checked(tokenizer, tmp_path):
    model = build(tokenizer)
    model.save_pretrained(tmp_path / "v2p")
    file = tmp_path / "v2p" / "config.json"
    config = json.loads(file.read_text())
    model_folder = tmp_path / "v2p" / "language_model"
    for entry, error, message in [
        ({"path": "../gone"}, FileNotFoundError, "refers to its language_model in .*gone, which is not there"),
        ({"repo": str(model_folder), "sha256": "0" * 64}, ValueError, "must have the sha256 0000"),
    ]:
        file.write_text(json.dumps({**config, "language_model": entry}))
        with pytest.raises(error, match=message):
            VideoLLM.from_pretrained(tmp_path / "v2p")
    file.write_text(json.dumps({**config, "superpixels": {"class_path": "os.system", "init_args": {}}}))
    with pytest.raises(ValueError, match=r"may name this package's classes only, got 'os\.system'"):
        VideoLLM.from_pretrained(tmp_path / "v2p")
    file.write_text(json.dumps({**config, "format": "other"}))
    with pytest.raises(ValueError, match="must be of format raccoon-v2p, version 1, got 'other'"):
        VideoLLM.from_pretrained(tmp_path / "v2p")


def test_a_network_is_put_together_from_folders(tokenizer, tmp_path):
    model = build(tokenizer)
    model.visual.encoder.tower.save_pretrained(tmp_path / "clip")
    plain = build(tokenizer, lora=None)
    plain.llama.save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    made = VideoLLM.from_parts(
        str(tmp_path / "clip"),
        str(tmp_path / "llm"),
        superpixels=GridSuperpixels(8),
        pooling=MGSPooling(3, 2),
        num_frames=FRAMES,
        lora=LoraSettings(4),
        template="plain",
    )
    assert made.num_visual_tokens == model.num_visual_tokens
    assert torch.isfinite(made(batch_of(made, 1))).all()


def test_a_llava_gives_its_language_model_and_its_projector(tokenizer, tmp_path):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    text = build(tokenizer, lora=None).llama.config
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    llava = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
    llava.save_pretrained(tmp_path / "llava")
    tokenizer.save_pretrained(tmp_path / "llava")
    CLIPVisionModel(vision).save_pretrained(tmp_path / "clip")
    made = VideoLLM.from_parts(
        str(tmp_path / "clip"),
        str(tmp_path / "llava"),
        superpixels=GridSuperpixels(8),
        pooling=MGSPooling(3, 2),
        num_frames=FRAMES,
    )
    torch.testing.assert_close(made.projector.mlp[0].weight, llava.model.multi_modal_projector.linear_1.weight)
    torch.testing.assert_close(made.llama.lm_head.weight, llava.lm_head.weight)
    torch.testing.assert_close(
        made.llama.model.layers[1].mlp.up_proj.weight, llava.model.language_model.layers[1].mlp.up_proj.weight
    )


def test_new_visual_tokens_start_as_the_mean_of_the_others():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="a")))
    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=2, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    before = llama.model.embed_tokens.weight.detach().clone()
    assert grow_vocabulary(llama, plain) == 3
    assert llama.model.embed_tokens.weight.shape == (5, 8)
    torch.testing.assert_close(llama.model.embed_tokens.weight[2:], before.mean(dim=0).expand(3, 8))
    assert grow_vocabulary(llama, plain) == 0


def test_a_tied_head_gets_weights_of_its_own(tokenizer):
    config = build(tokenizer).llama.config
    config.tie_word_embeddings = True
    llama = LlamaForCausalLM(config)
    model = build(tokenizer)
    made = VideoLLM(
        model.visual.encoder,
        llama,
        tokenizer,
        superpixels=GridSuperpixels(8),
        pooling=MGSPooling(3, 2),
        num_frames=FRAMES,
        template="plain",
    )
    assert made.llama.lm_head.weight is not made.llama.get_input_embeddings().weight
    assert not made.llama.get_input_embeddings().weight.requires_grad


def released(model, prefix, adapter, seed=0):
    """A file with the keys of the authors' release; ``adapter`` is what PEFT puts into a LoRA key."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"{prefix}model.mm_projector.{name}": p.shape for name, p in model.projector.mlp.state_dict().items()}
    shapes[f"{prefix}model.embed_tokens.weight"] = model.llama.model.embed_tokens.weight.shape
    shapes[f"{prefix}lm_head.weight"] = model.llama.lm_head.weight.shape
    for layer in range(2):
        for name in ("q_proj", "v_proj"):
            for part, shape in (("lora_A", (4, 32)), ("lora_B", (32, 4))):
                shapes[f"{prefix}model.layers.{layer}.self_attn.{name}.{part}{adapter}.weight"] = shape
    return {key: torch.randn(tuple(shape), generator=generator).bfloat16() for key, shape in shapes.items()}


@pytest.mark.parametrize(("prefix", "adapter"), [("base_model.model.", ".default"), ("", ".default"), ("", "")])
def test_a_released_adapter_is_imported_whatever_its_prefix(tokenizer, tmp_path, prefix, adapter):
    model = build(tokenizer)
    state = released(model, prefix, adapter)
    torch.save(state, tmp_path / "multi_obj_projector.bin")
    import_released(model, tmp_path / "multi_obj_projector.bin")
    torch.testing.assert_close(model.projector.mlp[2].bias, state[f"{prefix}model.mm_projector.2.bias"].float())
    torch.testing.assert_close(model.llama.lm_head.weight, state[f"{prefix}lm_head.weight"].float())
    rows = state[f"{prefix}model.embed_tokens.weight"].float()[model.token_ids]
    torch.testing.assert_close(model.token_rows.detach(), rows)
    lora = model.llama.model.layers[1].self_attn.v_proj.lora_B["default"].weight
    torch.testing.assert_close(lora, state[f"{prefix}model.layers.1.self_attn.v_proj.lora_B{adapter}.weight"].float())


def test_a_released_adapter_may_have_fewer_rows_than_a_padded_vocabulary(tokenizer, tmp_path):
    model = build(tokenizer)
    state = released(model, "", "")
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        state[key] = state[key][:-5].clone()
    torch.save(state, tmp_path / "a.bin")
    import_released(model, tmp_path / "a.bin")
    torch.testing.assert_close(model.llama.lm_head.weight[:-5], state["lm_head.weight"].float())


def test_a_released_adapter_that_does_not_fit_lists_its_keys(tokenizer, tmp_path):
    model = build(tokenizer)
    state = released(model, "", "")
    state.pop("model.mm_projector.0.weight")
    state["model.layers.7.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)
    torch.save(state, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"lacks mm_projector\.0\.weight; .* has the unknown layers\.7\.self_attn"):
        import_released(model, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="made without; set lora"):
        import_released(build(tokenizer, lora=None), tmp_path / "a.bin")
    with pytest.raises(FileNotFoundError, match="there is no released adapter"):
        import_released(model, tmp_path / "b.bin")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_runs_code_is_refused(tokenizer, tmp_path, capsys):
    torch.save({"a": Evil()}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="must be a table of tensors"):
        import_released(build(tokenizer), tmp_path / "a.bin")
    assert "executed" not in capsys.readouterr().out


def test_wrong_inputs_are_refused(model):
    batch = batch_of(model, 1)
    frames = batch.frames
    prompt = model.conversation.prompt("Describe this video.")
    for call, message in [
        (lambda: model.embed(batch.input_ids), "exactly one of frames and grid must be given, got neither"),
        (lambda: model.embed(batch.input_ids[:, 3:], frames=frames), "each row must hold 23 visual slots"),
        (lambda: model.visual(frames=frames[:, :2]), r"frames must be \[B, 4, 3, H, W\], got \[1, 2,"),
        (lambda: model.visual(grid=torch.zeros(1, 4, 4, 4, 9)), r"must be \[4, 4, 4, 16\] .* got \[4, 4, 4, 9\]"),
        (lambda: model.visual(grid=torch.zeros(1, 4, 4, 4, 16), superpixels=frames), "superpixels belong to frames"),
        (lambda: model.generate([prompt] * 2, frames=frames), "got 2 prompts, 1 clips and 0 constraints"),
        (lambda: model.generate([prompt], frames=frames, temperature=-1.0), "temperature >= 0, got 512 and -1.0"),
        (lambda: model.set_trainable("nothing"), "trainable must be 'paper' or 'all', got 'nothing'"),
        (lambda: model.save_pretrained("x", dtype="int8"), "dtype must be one of float32, float16, bfloat16"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("values", [(0, 1.0, 0.0), (4, 1.0, 1.0)])
def test_lora_settings_are_checked(values):
    with pytest.raises(ValueError, match="LoRA needs rank >= 1"):
        LoraSettings(*values)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tokenizer):
    model = build(tokenizer)
    small = LlamaForCausalLM(
        LlamaConfig(vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(ValueError, match=r"must have a row for each of the tokenizer's .* it has 10"):
        VideoLLM(model.visual.encoder, small, tokenizer, superpixels=GridSuperpixels(8), pooling=MGSPooling(3, 2))
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        VideoLLM(
            model.visual.encoder,
            small,
            tokenizer,
            superpixels=GridSuperpixels(8),
            pooling=MGSPooling(3, 2),
            num_frames=0,
        )


class Stranger:
    def segment(self, frames):
        return GridSuperpixels(8).segment(frames)


def test_a_strangers_superpixels_train_but_cannot_be_saved(tokenizer, tmp_path):
    model = build(tokenizer)
    model.visual.superpixels = Stranger()
    assert torch.isfinite(model(batch_of(model, 1))).all()
    with pytest.raises(ValueError, match="only this package's superpixels can be named"):
        model.save_pretrained(tmp_path)
