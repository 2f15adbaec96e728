"""In-memory clips to frames: only the frames asked for become pictures, and each shrinks as soon as it is decoded."""

import io
import math
from collections.abc import Sequence
from itertools import pairwise

import av
import numpy as np

from raccoon_datamodules.limits import MAX_DECODED_BYTES, readable
from raccoon_datamodules.pixels import resize_frame
from raccoon_datamodules.video_claims import check_counts, check_picture
from raccoon_datamodules.video_read import DecodedFrames, to_rgb
from raccoon_datamodules.video_source import seconds_of


def decode_bytes(
    data: bytes,
    frame_indices: Sequence[int] | None,
    num_threads: int,
    *,
    size: tuple[int, int] | None = None,
    stored_size: tuple[int, int] | None = None,
    stored_frames: int | None = None,
) -> DecodedFrames:
    """Decode an in-memory clip; see `video.decode_clip`.

    With ``size`` the frames are resized one by one to that (height, width), as `pixels.resize` would, so that a clip
    is never in memory at its stored size. ``stored_size`` and ``stored_frames`` are the (height, width) and the number
    of frames that the clip is known to have.

    Raises:
        ValueError: if data is no such clip, is cut off or of another stored size, if an index is not one of its frames,
            or if the frames would take more memory than `limits` allows.
    """
    try:
        check_counts(data)
    except ValueError as err:
        raise ValueError(f"the clip is damaged: {err}") from err
    try:
        with av.open(io.BytesIO(data), format="mp4") as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise ValueError(f"the clip ({len(data)} bytes) is of a codec that nothing here decodes")
            context.thread_count = num_threads
            time_base, rate, announced = stream.time_base, float(stream.average_rate or 0), stream.frames
            stored = (context.height, context.width)
            if stored_size is not None and stored != stored_size:
                raise ValueError(f"the clip must be {list(stored_size)} (height, width), it is {list(stored)}")
            check_picture(*stored, "the clip")
            if stored_frames is not None and announced != stored_frames:
                raise ValueError(f"the clip must have {stored_frames} frames, it announces {announced}")
            # The frames themselves may state another size than the header; up to 128 lines are for alignment.
            context.options = {"max_pixels": str((stored[0] + 128) * (stored[1] + 128))}
            wanted = list(range(announced)) if frame_indices is None else [int(n) for n in frame_indices]
            if not wanted or wanted[0] < 0 or wanted[-1] >= announced or not _rises(wanted):
                raise ValueError(f"frame_indices must increase within [0, {announced}), got {wanted}")
            needed = len(wanted) * math.prod(size or stored) * 3
            if needed > MAX_DECODED_BYTES:
                raise ValueError(
                    f"{len(wanted)} frames of the clip would take {readable(needed)} in memory, more than "
                    f"{readable(MAX_DECODED_BYTES)}; ask for fewer"
                )
            frames = np.empty((len(wanted), *(size or stored), 3), dtype=np.uint8)
            pts = np.empty(len(wanted), dtype=np.int64)
            slot = 0
            for number, frame in enumerate(container.decode(stream)):
                if number == wanted[slot]:
                    if (frame.height, frame.width) != stored:
                        raise ValueError(f"the pictures of the clip must have one size, frame {number} has another")
                    frames[slot] = to_rgb(frame) if size is None else resize_frame(to_rgb(frame), size)
                    pts[slot] = frame.pts
                    slot += 1
                    if slot == len(wanted):
                        break
    except (av.error.FFmpegError, IndexError) as err:
        raise ValueError(f"the clip ({len(data)} bytes) must be an mp4 from encode_clip, it cannot be decoded") from err
    if slot < len(wanted):
        raise ValueError(f"the clip ({len(data)} bytes) is cut off: {slot} of {len(wanted)} frames can be decoded")
    seconds = seconds_of(pts, time_base)
    return DecodedFrames(frames, rate, seconds, np.asarray(wanted, dtype=np.int64), "pyav")


def _rises(numbers: Sequence[int]) -> bool:
    return all(low < high for low, high in pairwise(numbers))
