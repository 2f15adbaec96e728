import lightning.pytorch as pl
import pytest
import torch

from raccoon_datamodules import prompts
from raccoon_datamodules.batch import V2PBatch
from raccoon_datamodules.conversation import VISUAL_TOKENS, Conversation
from raccoon_datamodules.faults import TooManyFaultsError
from raccoon_datamodules.sources import ShardSource
from raccoon_datamodules.v2p import V2PDataModule


class Letters:
    """A tokenizer of single characters and the visual tokens."""

    bos_token_id, eos_token_id, pad_token_id = None, 1, 0

    def get_vocab(self):
        return {**{chr(i): i for i in range(2, 128)}, **{token: 200 + i for i, token in enumerate(VISUAL_TOKENS)}}

    def encode(self, text, *, add_special_tokens):
        ids = []
        while text:
            token = next((t for t in VISUAL_TOKENS if text.startswith(t)), text[0])
            ids.append(self.get_vocab().get(token, 127))
            text = text[len(token) :]
        return ids

    @staticmethod
    def decode(ids):
        return "".join(chr(i) for i in ids if 1 < i < 128)


def conversation(**how):
    return Conversation(Letters(), 3, "plain", **how)


def datamodule(shards, **how):
    how = {"global_batch_size": 2, "num_frames": 4, "size": (16, 16), "conversation": conversation(), **how}
    return V2PDataModule(str(shards), **how)


def take(dm, count=1):
    return [batch for batch, _ in zip(dm.train_dataloader(), range(count), strict=False)]


def test_a_batch_is_what_it_says(shards):
    (batch,) = take(datamodule(shards))
    assert isinstance(batch, V2PBatch)
    assert (batch.frames.shape, batch.frames.dtype) == ((2, 4, 3, 16, 16), torch.uint8)
    assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape
    assert (batch.grid, batch.superpixels) == (None, None)
    assert batch.ordinal.tolist() == [0, 1]


def test_the_answer_is_learned_and_the_instruction_is_not(shards):
    (batch,) = take(datamodule(shards, tasks={"describe": 1.0}))
    source = ShardSource(shards)
    for row in range(2):
        labels = batch.labels[row]
        answers = [str(p) for p in source.view(*source.index.find(batch.key[row])).paragraphs()]
        assert Letters.decode(labels[labels >= 0].tolist()) in answers
        shown = batch.input_ids[row][batch.attention_mask[row] == 1].tolist()
        assert prompts.DESCRIBE_ALL in Letters.decode(shown)
        assert shown.count(200) == 3
    assert (batch.labels[batch.attention_mask == 0] == -100).all()


def test_all_tasks_come_up(shards):
    tasks = {task for batch in take(datamodule(shards), 15) for task in batch.task}
    assert tasks == {"describe", "describe_object", "layout"}


def test_workers_change_nothing(shards):
    for first, second in zip(take(datamodule(shards), 4), take(datamodule(shards, num_workers=2), 4), strict=True):
        assert (first.key, first.task) == (second.key, second.task)
        assert torch.equal(first.input_ids, second.input_ids)
        assert torch.equal(first.frames, second.frames)


def test_a_conversation_may_be_linked_later(shards):
    dm = datamodule(shards, conversation=None)
    dm.conversation = conversation()
    assert len(take(dm)) == 1


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader", "test_dataloader"])
def test_without_a_conversation_nothing_is_read(shards, loader):
    with pytest.raises(RuntimeError, match="V2PDataModule needs a conversation"):
        getattr(datamodule(shards, conversation=None), loader)()


def test_a_limit_that_no_prompt_fits_stops_the_run_and_says_why(shards):
    with pytest.raises(TooManyFaultsError, match="the prompt must be shorter than max_length = 20"):
        take(datamodule(shards, conversation=conversation(max_length=20)))


def test_validation_reads_every_sample_once(shards):
    dm = datamodule(shards, val=str(shards), val_batch_size=4)
    assert [batch.ordinal.tolist() for batch in dm.val_dataloader()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(dm.val_dataloader()) == 3


def test_a_task_of_the_painter_is_refused(shards):
    with pytest.raises(ValueError, match="unknown task 'remove'; the tasks are describe, describe_object, layout"):
        datamodule(shards, tasks={"remove": 1.0})


def test_no_frames_are_refused(shards):
    with pytest.raises(ValueError, match="num_frames and size must be positive, got 0 frames of 16x16"):
        datamodule(shards, num_frames=0)


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.keys = []

    def training_step(self, batch, index):
        self.keys += batch.key
        assert batch.frames.dtype == torch.float32
        return self.layer(batch.frames.mean().view(1, 1)).sum()

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_run_goes_on_where_its_checkpoint_was_taken(shards, tmp_path):
    def fit(steps, path=None, save=None):
        run = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            check_val_every_n_epoch=None,
            val_check_interval=100,
            limit_val_batches=0,
        )
        model = Recorder()
        run.fit(model, datamodule(shards), ckpt_path=path, weights_only=False)
        if save is not None:
            run.save_checkpoint(save)
        return model

    path = tmp_path / "three.ckpt"
    whole, first = fit(6), fit(3, save=path)
    second = fit(6, path=path)
    assert first.keys + second.keys == whole.keys
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True))


def test_exactly_one_of_frames_and_grid_is_needed():
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    for given, word in ((None, "neither"), (torch.zeros(1), "both")):
        with pytest.raises(ValueError, match=f"exactly one of frames and grid, got {word}"):
            V2PBatch(given, given, None, nothing, nothing, nothing, ["describe"], ["k"], nothing[0])


def test_page_locking_takes_every_tensor_and_leaves_the_rest(shards, monkeypatch):
    (batch,) = take(datamodule(shards))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = batch.pin_memory()
    assert torch.equal(pinned.frames, batch.frames + 1)
    assert torch.equal(pinned.ordinal, batch.ordinal + 1)
    assert (pinned.grid, pinned.key) == (None, batch.key)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_a_batch_can_be_page_locked(shards):
    (batch,) = take(datamodule(shards, pin_memory=True))
    assert batch.frames.is_pinned()
    assert batch.input_ids.is_pinned()
