"""Damaged members of samples, for `fuzzing.py`: what a hostile writer would put there, and what a bad disk makes."""

import io
import json
import struct
import zipfile

import numpy as np

Rng = np.random.Generator


def flip(data: bytes, rng: Rng, most: int = 20) -> bytes:
    out = bytearray(data)
    for place in rng.integers(0, len(out), rng.integers(1, most + 1)):
        out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def boxes_at(data: bytes, kind: bytes) -> list[int]:
    """Where the contents of mp4 boxes of a kind begin."""
    return [i + 4 for i in range(4, len(data) - 4) if data[i : i + 4] == kind]


def hostile_clip_flipped(data: bytes, rng: Rng) -> bytes:
    return flip(data, rng, most=int(rng.choice([1, 5, 50, 500])))


def hostile_clip_truncated(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def hostile_clip_sizes(data: bytes, rng: Rng) -> bytes:
    """Absurd sizes and counts in the boxes that hold them."""
    number = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 100_000_000]))
    # Offsets of: width and height in avc1; width and height in tkhd; sample size, count in stsz; entries and count in
    # stts; time scale in mdhd; matrix in tkhd; entries in stsc and stco.
    spots = [
        (b"avc1", 24, ">H"),
        (b"avc1", 26, ">H"),
        (b"tkhd", 76, ">I"),
        (b"tkhd", 80, ">I"),
        (b"tkhd", 40, ">I"),
        (b"stsz", 4, ">I"),
        (b"stsz", 8, ">I"),
        (b"stsz", 12, ">I"),
        (b"stts", 4, ">I"),
        (b"stts", 8, ">I"),
        (b"stts", 12, ">I"),
        (b"mdhd", 12, ">I"),
        (b"mdhd", 16, ">I"),
        (b"stsc", 4, ">I"),
        (b"stsc", 12, ">I"),
        (b"stco", 4, ">I"),
        (b"stco", 8, ">I"),
        (b"elst", 4, ">I"),
        (b"elst", 8, ">I"),
        (b"elst", 12, ">I"),
    ]
    for which in rng.permutation(len(spots))[: rng.integers(1, 4)]:
        kind, place, form = spots[which]
        for start in boxes_at(data, kind)[:1]:
            data = patched(data, start + place, struct.pack(form, number & (0xFFFF if form == ">H" else 0xFFFFFFFF)))
    if rng.random() < 0.3:
        # A uniform size makes the table of sizes unnecessary: any count is then a few bytes long.
        for start in boxes_at(data, b"stsz")[:1]:
            data = patched(data, start + 4, struct.pack(">II", 1, number))
        for start in boxes_at(data, b"stts")[:1]:
            data = patched(data, start + 8, struct.pack(">I", number))
    return data


def hostile_clip_headers(data: bytes, rng: Rng) -> bytes:
    """The decoder's own header (sizes, bit depth, chroma) is overwritten."""
    for start in boxes_at(data, b"avcC")[:1]:
        for place in rng.integers(start, start + 40, rng.integers(1, 6)):
            data = patched(data, int(place), rng.bytes(1))
    return data


def hostile_clip_box_lengths(data: bytes, rng: Rng) -> bytes:
    kinds = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mdat", b"avcC", b"udta", b"stss", b"ctts")
    for which in rng.permutation(len(kinds))[: rng.integers(1, 4)]:
        for start in boxes_at(data, kinds[which])[:1]:
            length = int(rng.choice([0, 1, 7, 8, 0xFFFFFFFF, int(rng.integers(1 << 32))]))
            data = patched(data, start - 8, struct.pack(">I", length))
    return data


def hostile_mask(data: bytes, rng: Rng) -> bytes:
    """Zip bombs, headers that claim too much, objects instead of numbers, too many or other entries, damage."""
    which = int(rng.integers(8))
    out = io.BytesIO()

    def npy(header: str, body: bytes) -> bytes:
        text = header.encode().ljust(118 if len(header) <= 118 else len(header) + 63 & ~63) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body

    shape = npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", struct.pack("<3q", 4, 16, 16))
    if which == 0:
        return flip(data, rng)
    if which == 1:
        return data[: rng.integers(len(data))]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if which == 2:
            archive.writestr("shape.npy", shape)
            with archive.open("bits.npy", "w") as bits:
                bits.write(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,), }", b""))
                for _ in range(100):
                    bits.write(bytes(1_000_000))
        elif which == 3:
            count = int(rng.choice([1 << 40, 1 << 62, (1 << 63) - 1, 1 << 70]))
            archive.writestr("shape.npy", shape)
            archive.writestr(
                "bits.npy", npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},), }}", bytes(99))
            )
        elif which == 4:
            archive.writestr("shape.npy", shape)
            archive.writestr(
                "bits.npy",
                npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'exit 3'\ntR."),
            )
        elif which == 5:
            for number in range(2000):
                archive.writestr(f"{number}.npy", shape)
        elif which == 6:
            sizes = rng.choice([-1, 0, 4, 1 << 31, 1 << 62], 3)
            archive.writestr(
                "shape.npy",
                npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", struct.pack("<3q", *map(int, sizes))),
            )
            archive.writestr("bits.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (128,), }", bytes(128)))
        else:
            archive.writestr("shape.npy", npy("{" * 5000, b""))
            archive.writestr(
                "bits.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (((((" + "(" * 500, b"")
            )
    if which == 2 and rng.random() < 0.5:
        # The sizes that the archive itself states are made small, so that only unpacking shows the truth.
        return out.getvalue().replace(struct.pack("<I", 100_000_128), struct.pack("<I", 64))
    return out.getvalue()


def hostile_json(data: bytes, rng: Rng) -> bytes:
    which = int(rng.integers(9))
    depth = int(rng.choice([900, 5000, 1_000_000]))
    if which == 0:
        return flip(data, rng)
    if which == 1:
        return b"[" * depth + b"]" * depth
    if which == 2:
        return b'{"a":' * depth + b"1" + b"}" * depth
    if which == 3:
        return data.replace(b":4", b":" + b"9" * depth, 1).replace(b"16", b"1e999", 1)
    if which == 4:
        return data.rstrip()[:-1] + b',"num_frames":16777216,"height":65536,"width":65536,"boxes":{},"paragraph":7}'
    if which == 5:
        return rng.choice([b"null", b"[]", b"{}", b"3", b'""', b"NaN", b"", b"\xff\xfe", b'"\\ud800"'])
    if which == 6:
        value = json.loads(data)
        value = value[0] if isinstance(value, list) else value
        key = list(value)[rng.integers(len(value))]
        value[key] = [
            None,
            -1,
            10**400,
            [],
            {},
            "x",
            True,
            1e308,
            [[]] * 3,
            "\ud800",
            {"description": "\ud800", "objects": []},
        ][rng.integers(11)]
        return json.dumps([value] if json.loads(data).__class__ is list else value).encode()
    if which == 7:
        return data[: rng.integers(len(data))]
    return data.replace(b'"Thing 1"', b'"' + b"x" * 10_000_000 + b'"', 1)


def hostile_other_bytes(data: bytes, rng: Rng) -> bytes:
    which = int(rng.integers(5))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("x.txt", "x")
    return [b"", rng.bytes(int(rng.integers(1, 5000))), b"\x80\x04cos\nsystem\n.", zipped.getvalue(), b"\0" * 100_000][
        which
    ]


CLIP_DAMAGES = {
    "hostile clip, flipped": hostile_clip_flipped,
    "hostile clip, truncated": hostile_clip_truncated,
    "hostile clip, sizes": hostile_clip_sizes,
    "hostile clip, decoder header": hostile_clip_headers,
    "hostile clip, box lengths": hostile_clip_box_lengths,
}
MEMBER_DAMAGES = {
    **{name: ((".mp4",), work) for name, work in CLIP_DAMAGES.items()},
    "hostile mask": ((".npz",), hostile_mask),
    "hostile record": ((".json",), hostile_json),
    "hostile member, other bytes": ((".json", ".mp4", ".npz"), hostile_other_bytes),
}
