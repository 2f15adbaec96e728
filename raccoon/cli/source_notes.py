"""What a verb says of a video that it can work on, and cannot do justice to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raccoon_datamodules.video import Video

# The shipped weights, and what they were trained on.
_MINIATURE, _MINIATURE_SIZE = "tiny/", (64, 64)


def notes_of_source(video: "Video", config: Mapping[str, Any], parts: tuple[str, ...]) -> list[str]:
    """Return a sentence for each thing; ``parts`` of the recipe ``config`` are those that will look at the video."""
    notes = []
    if video.path is not None and (bits := bits_of(str(video.path))) > 8:
        notes.append(
            f"the source has {bits} bits a color; frames are read, edited and written with 8, which can show bands"
        )
    used = [part for part in parts if _weights(config.get(part)).startswith(_MINIATURE)]
    if used and video.size != _MINIATURE_SIZE:
        notes.append(
            f"the recipe's {' and '.join(used)} {'is' if len(used) == 1 else 'are'} a miniature that knows drawn "
            f"clips of 64x64 pixels and nothing of the real world; what becomes of a video of "
            f"{video.width}x{video.height} is a guess: choose other weights (--config, --set)"
        )
    return notes


def bits_of(path: str) -> int:
    """Return how many bits the file keeps of each color."""
    import av

    from raccoon_datamodules.video import probe

    return max(component.bits for component in av.VideoFormat(probe(path).pix_fmt).components)


def _weights(part: Any) -> str:
    arguments = part.get("init_args") if isinstance(part, Mapping) else None
    return str(arguments.get("weights", "")) if isinstance(arguments, Mapping) else ""
