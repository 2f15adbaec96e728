"""`OpenAIChat` against `transformers serve`, with models of a few thousand weights that know one answer."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from raccoon.backbones import OpenAIChat
from raccoon.cli.main import main
from raccoon_datamodules.annotate.chat import AnswerCut, ChatError
from raccoon_datamodules.examine.check import check_shards
from raccoon_datamodules.sources import ShardSource

for package in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed")

pytestmark = pytest.mark.slow

SPECIAL = ["<s>", "</s>", "<pad>", "<image>"]
# The one thing the miniatures say; a single token of theirs.
ANSWER = "Video Description: A scene.\n\nObject Descriptions:\n1. Thing: A thing that moves."
TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}{% endfor %}"
)


def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spoken = ANSWER.replace(" ", "\u0120").replace("\n", "\u010a")
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), spoken]
    vocabulary = {token: i for i, token in enumerate(words)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        chat_template=TEMPLATE,
    )


def language_settings(words):
    return {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def teach(model):
    """Let a model say `ANSWER` after anything, then end: no layer adds to the embeddings, which are of two kinds."""
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data.zero_()
    (embeddings,) = (weight for name, weight in weights.items() if name.endswith("embed_tokens.weight"))
    embeddings.data.zero_()
    embeddings.data[:, 0] = 1
    embeddings.data[-1, :2] = embeddings.new_tensor([0, 1])
    weights["lm_head.weight"].data.zero_()
    weights["lm_head.weight"].data[-1, 0] = weights["lm_head.weight"].data[1, 1] = 9
    return model


def save_text_model(folder):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    torch.manual_seed(0)
    teach(LlamaForCausalLM(LlamaConfig(**language_settings(words)))).save_pretrained(folder)
    words.save_pretrained(folder)


def save_image_model(folder):
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**language_settings(words)),
        image_token_index=SPECIAL.index("<image>"),
    )
    torch.manual_seed(0)
    teach(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=["text", "image"])
def served(request, tmp_path_factory):
    """(address, name of the model, whether it sees) of a running server."""
    folder = tmp_path_factory.mktemp("models") / request.param
    {"text": save_text_model, "image": save_image_model}[request.param](folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder.parent / "server.log").open("w")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host=127.0.0.1", f"--port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*command, "--device=cpu"], stdout=log, stderr=log, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log.name)
        yield f"http://127.0.0.1:{port}/v1", str(folder), request.param == "image"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def wait_for(address, process, log):
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.skip(f"transformers serve does not start here: {Path(log).read_text()[-300:]}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise TimeoutError(f"{address} did not come up; see {log}")


def test_a_real_server_answers_and_counts(served):
    address, model, sees = served
    chat = OpenAIChat(model, base_url=address, api_key_env=None, max_tokens=8, input_price=1.0, output_price=1.0)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    assert chat.chat([image] if sees else [], "What is it?") == ANSWER
    # The tokenizer has a token for each byte, the picture four patches; the answer is one token and its end.
    assert chat.usage[:3] == (1, len("What is it?\n") + (4 if sees else 0), 2)


def test_a_real_server_says_when_an_answer_is_cut_off(served):
    chat = OpenAIChat(served[1], base_url=served[0], api_key_env=None, max_tokens=1)
    with pytest.raises(AnswerCut, match=r"max_tokens \(1\)") as caught:
        chat.chat([], "What is it?")
    assert caught.value.partial == ANSWER


def test_a_real_server_knows_no_model_of_another_name(served):
    # This server says no more than that, where others say 404.
    chat = OpenAIChat("nobody/no-such-model", base_url=served[0], api_key_env=None, max_retries=0)
    with pytest.raises(ChatError, match="answered 500: Internal Server Error"):
        chat.chat([], "hi")


@pytest.mark.parametrize("served", ["image"], indirect=True)
def test_a_data_set_is_annotated_by_a_real_server(served, tmp_path, capsys):
    address, model, _ = served
    data, out = tmp_path / "scenes", tmp_path / "out"
    main(["vplm", "synth", "--out", str(data), "--count", "3", "--size", "32x32"])
    flags = {"base_url": address, "model": model, "api_key_env": "null", "max_tokens": 16}
    command = ["vplm", "annotate", str(data), "--out", str(out), "--all"]
    assert main([*command, *(f"--set=chat.{name}={value}" for name, value in flags.items())]) == 0
    assert "3 of 3 videos annotated" in capsys.readouterr().out
    assert check_shards(out).ok
    view = ShardSource(out).view(0, 0)
    assert str(view.paragraphs()[0]) == ANSWER
    # One caption serves one mask.
    assert [view.object(name).name for name in view.meta.objects] == ["Thing"]
