"""How large what a file claims may be, before it is taken for damage: checked before memory is asked for.

Generous for clips of minutes; whoever reads data of others is asked for no more than this by a few hostile bytes. What
is written is held to the same bounds, so that nothing is stored that no reader takes.
"""

# Frames of a clip: 2.4 hours at 30 a second.
MAX_FRAMES = 1 << 18
# Pixels of a side, and of a frame: twice 8K.
MAX_SIDE = 1 << 14
MAX_PIXELS = 1 << 26
# Of one clip (RGB) or mask in memory at once: 690 frames of 1920x1080, 3500 of 854x480.
MAX_DECODED_BYTES = 4 << 30
# Of one member as it is stored.
MAX_MEMBER_BYTES = 4 << 30
# Of one JSON record. Parsed it may take twenty times as much.
MAX_RECORD_BYTES = 16 << 20
MAX_OBJECTS = 1 << 12
# Of one line of a JSONL, and of one file of run-length encodings, that is imported.
MAX_LINE_BYTES = 64 << 20
# Characters of a reason; longer ones quote what a file holds, which may be anything.
MAX_REASON = 1000


def readable(size: int) -> str:
    """A number of bytes as people say it: ``12 bytes``, ``3.4 MB``."""
    if size < 10_000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def sane_size(num_frames: int, height: int, width: int) -> str | None:
    """What is wrong with the claimed size of a clip; None if nothing is."""
    claim = f"got {_short(num_frames)} frames of {_short(width)}x{_short(height)}"
    if min(num_frames, height, width) < 1:
        return f"num_frames, height and width must be positive, {claim}"
    if num_frames > MAX_FRAMES or max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        return f"a clip has at most {MAX_FRAMES} frames, {MAX_SIDE} pixels a side and {MAX_PIXELS} a frame, {claim}"
    return None


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**15 else "10^15 or more"
