"""Members that lie about their size: refused before memory is asked for."""

import io
import struct
import tracemalloc
import zipfile
from fractions import Fraction

import av
import numpy as np
import pytest

from raccoon_datamodules.members import MemberError, load_mask
from raccoon_datamodules.sample import encode
from raccoon_datamodules.video import Video, decode_clip, encode_clip
from raccoon_datamodules.view import MemberView


@pytest.fixture
def data(make_sample):
    return encode(make_sample())


@pytest.fixture
def meta(data):
    return MemberView(data).meta


def npz(**arrays):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            archive.writestr(f"{name}.npy", value)
    return out.getvalue()


def npy(header, body=b"", version=b"\x01\x00"):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


SHAPE = npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", struct.pack("<3q", 4, 16, 16))


def bits(count, body=bytes(128), descr="|u1"):
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count},), }}", body)


def test_the_bytes_of_a_mask_are_what_they_look_like(meta):
    mask = load_mask(npz(shape=SHAPE, bits=bits(128, b"\x80" + bytes(127))), "mask-1.npz", meta=meta)
    assert (mask.shape, mask.sum(), mask[0, 0, 0]) == ((4, 16, 16), 1, 1)


@pytest.mark.parametrize("count", [1 << 40, 1 << 62, 1 << 70, -1, 0, 127])
def test_a_mask_that_claims_another_length_than_it_has_is_refused(meta, count):
    with pytest.raises(MemberError, match=r"bits\.npy must hold whole numbers \[N\] and nothing else, it claims uint8"):
        load_mask(npz(shape=SHAPE, bits=bits(count)), "mask-1.npz", meta=meta)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"bits": bits(128)}, "There is no item named 'shape.npy'"),
        ({"shape": SHAPE, "bits": bits(128, descr="|O")}, "must hold whole numbers"),
        ({"shape": SHAPE, "bits": bits(128, descr="<f8")}, "must hold whole numbers"),
        ({"shape": SHAPE, "bits": bits("8, 16")}, r"it claims uint8 \[8, 16\]"),
        ({"shape": SHAPE, "bits": npy("{" * 90)}, "must be a bit-packed npz"),
        ({"shape": SHAPE, "bits": npy("(" * 90)}, "must be a bit-packed npz"),
        ({"shape": SHAPE, "bits": npy("", version=b"\x03\x00")}, "must be of version 1.0 of numpy's format"),
        ({"shape": SHAPE, "bits": b""}, "must be a bit-packed npz"),
    ],
)
def test_a_mask_of_anything_but_numbers_is_refused(meta, arrays, message):
    with pytest.raises(MemberError, match=message):
        load_mask(npz(**arrays), "mask-1.npz", meta=meta)


def test_a_bomb_is_not_unpacked(meta):
    packed = npz(shape=SHAPE, bits=bits(1 << 26, bytes(1 << 26)))
    assert len(packed) < 100_000
    tracemalloc.start()
    with pytest.raises(MemberError, match=r"bits\.npy unpacks to 67108992 bytes, at most 4288 expected"):
        load_mask(packed, "mask-1.npz", meta=meta)
    # The size that the archive states is a claim as well: no more is unpacked than was allowed.
    for lie in (64, 4096):
        with pytest.raises(MemberError, match="must be a bit-packed npz"):
            load_mask(packed.replace(struct.pack("<I", 67_108_992), struct.pack("<I", lie)), "mask-1.npz", meta=meta)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def box(data, kind):
    return data.index(kind) + 4


def test_a_clip_cannot_announce_more_frames_than_it_has_bytes(data):
    clip = bytearray(data["video.mp4"])
    struct.pack_into(">II", clip, box(clip, b"stsz") + 4, 1, 1 << 31)
    struct.pack_into(">I", clip, box(clip, b"stts") + 8, 1 << 31)
    data["video.mp4"] = bytes(clip)
    with pytest.raises(MemberError, match=r"video\.mp4: cannot be decoded: the clip .* cannot hold the \d+ frames"):
        MemberView(data).clip()


def test_a_clip_of_another_size_than_the_record_says_is_refused_before_it_is_decoded(data):
    large = encode_clip(Video.from_frames(np.zeros((2, 1200, 1600, 3), np.uint8), 8.0))
    data["video.mp4"] = large
    tracemalloc.start()
    with pytest.raises(MemberError, match=r"the clip must be \[16, 16\] \(height, width\), it is \[1200, 1600\]"):
        MemberView(data).clip()
    assert tracemalloc.get_traced_memory()[1] < 1200 * 1600
    tracemalloc.stop()


def encoded(side, count):
    """Packets of a clip, each with the decoder's header before it."""
    encoder = av.CodecContext.create("libx264rgb", "w")
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "rgb24", 8, Fraction(1, 8)
    encoder.options = {"preset": "ultrafast", "x264-params": "repeat-headers=1:keyint=1"}
    frames = [av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24") for _ in range(count)]
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, Fraction(1, 8)
    return [packet for frame in [*frames, None] for packet in encoder.encode(frame)]


def test_pictures_that_grow_in_the_middle_of_a_clip_are_refused_by_the_decoder():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb24"
        for number, packet in enumerate([*encoded(64, 2), *encoded(1024, 2)]):
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 8)
            container.mux(packet)
    assert decode_clip(out.getvalue(), frame_indices=[0, 1]).size == (64, 64)
    with pytest.raises(ValueError, match="it cannot be decoded"):
        decode_clip(out.getvalue())
