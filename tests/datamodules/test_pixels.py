import numpy as np
import pytest
import torch

from raccoon_datamodules.members import MemberError
from raccoon_datamodules.pixels import planes_of, resize, resize_frame, stack_planes
from raccoon_datamodules.sample import encode
from raccoon_datamodules.video import Video, encode_clip
from raccoon_datamodules.video_bytes import decode_bytes
from raccoon_datamodules.view import MemberView, MemoryView


def clip(num_frames=6, height=12, width=20):
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, height, width, 3), dtype=np.uint8)
    return Video.from_frames(frames, 8.0)


@pytest.mark.parametrize("size", [(6, 10), (5, 7), (24, 40), (12, 20)], ids=str)
def test_a_clip_resized_while_it_is_decoded_equals_one_resized_afterwards(size):
    video = clip()
    data = encode_clip(video)
    assert np.array_equal(decode_bytes(data, None, 1, size=size).frames, resize(video.frames, size))
    part = decode_bytes(data, [1, 4], 1, size=size)
    assert np.array_equal(part.frames, resize(video.frames[[1, 4]], size))
    assert part.timestamps.tolist() == video.timestamps[[1, 4]].tolist()


def test_planes_resized_alone_equal_the_picture_resized():
    frame = clip().frames[0]
    planes = [resize_frame(np.ascontiguousarray(frame[..., c]), (5, 7)) for c in range(3)]
    assert np.array_equal(np.stack(planes, axis=-1), resize_frame(frame, (5, 7)))


def test_views_of_bytes_and_of_memory_resize_alike(make_sample):
    sample = make_sample()
    stored, rendered = MemberView(encode(sample)), MemoryView(sample)
    for frames in (None, [0, 2]):
        assert np.array_equal(stored.clip(frames, (7, 9)), rendered.clip(frames, (7, 9)))
        assert np.array_equal(stored.inpainted("1", frames, (7, 9)), rendered.inpainted("1", frames, (7, 9)))


def test_a_clip_of_another_size_than_the_record_says_is_refused_also_where_it_is_resized(make_sample):
    members = {**encode(make_sample()), "video.mp4": encode(make_sample(size=20))["video.mp4"]}
    with pytest.raises(MemberError, match=r"video.mp4: cannot be decoded: the clip must be \[16, 16\]"):
        MemberView(members).clip(None, (8, 8))


def test_stacked_planes_are_the_permuted_frames():
    clips = [clip().frames, clip().frames[::-1].copy()]
    planes = stack_planes(clips)
    assert planes.dtype == torch.uint8
    assert torch.equal(planes, torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3))
    assert planes.is_contiguous()


def test_frames_that_are_not_there_are_refused_by_number():
    data = encode_clip(clip())
    for wrong in ([], [-1], [2, 2], [6]):
        with pytest.raises(ValueError, match="frame_indices must increase within"):
            decode_bytes(data, wrong, 1)


@pytest.mark.parametrize("size", [16, 5], ids=["bytes end with a frame", "they do not"])
def test_masks_of_some_frames_are_some_of_all(make_sample, size):
    view = MemberView(encode(make_sample(size=size, num_frames=6)))
    whole = view.mask("1")
    for frames in ([0], [1, 3, 4], [5], list(range(6))):
        assert np.array_equal(view.mask("1", frames), whole[frames])


def test_planes_of_a_batch_are_a_view_of_its_stacked_pixels():
    clips = [clip().frames, clip().frames[::-1].copy()]
    planes = planes_of(clips)
    assert torch.equal(planes, stack_planes(clips))
    assert planes.permute(0, 1, 3, 4, 2).is_contiguous()
