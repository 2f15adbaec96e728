"""One source video to its samples: choose frames, read them and their masks, drop small objects, bring in the words.

Nothing is left out without a finding. Memory holds one clip at a time.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.build.companions import Companion, matched
from raccoon_datamodules.build.findings import Finding, Notes
from raccoon_datamodules.build.frames import Frames, of_file, of_pictures, picture_size, read_picture
from raccoon_datamodules.build.keys import clip_key, printable
from raccoon_datamodules.build.label_images import LabelImage, objects_in, read_label_image, shrink
from raccoon_datamodules.build.mask_stacks import MaskStack, open_stack
from raccoon_datamodules.build.matching import Match
from raccoon_datamodules.build.options import BUILDER_VERSION, BuildOptions
from raccoon_datamodules.build.sources import SourceVideo, is_one_file
from raccoon_datamodules.build.texts import ClipTexts, attributes, clip_texts
from raccoon_datamodules.masks import boxes_of
from raccoon_datamodules.pixels import resize
from raccoon_datamodules.sample import ObjectRecord, VplmSample
from raccoon_datamodules.video import Video

# A clip of more than this is a mistake in the sampling, not a sample.
_MOST_BYTES = 4 << 30
# Sides may be rounded; beyond this a picture shows another section of the scene.
_SAME_ASPECT = 0.02


class Unusable(ValueError):
    """Nothing can be made of a video or a clip; ``reason`` in a few words."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def samples_of(video: SourceVideo, options: BuildOptions, findings: list[Finding]) -> Iterator[VplmSample]:
    """The samples of a source video in the order of time; what is left out or changed is added to ``findings``.

    Raises:
        Unusable: if no sample can be made of it.
        ValueError, RuntimeError: if its file is damaged, as `video.Video.read`.
        OSError: if something cannot be opened.
    """
    notes, root = Notes(video.name, findings), Path(video.root)
    frames = of_file(root / video.video) if video.video is not None else _of_folder(root, video, options)
    maker = _Maker(video.with_plain_ids(), options, notes, root, frames)
    clips = options.sampling.clips(len(maker.candidates))
    made = 0
    for places in clips:
        chosen = [maker.candidates[place] for place in places]
        first = chosen[0] if options.sampling.clip_length is not None else None
        item = "" if first is None else f"clip at frame {first}"
        try:
            sample = maker.sample(chosen, clip_key(video.key, first))
        except Unusable as err:
            notes.add("left out", "clip", err.reason, item, str(err))
            continue
        except (ValueError, RuntimeError) as err:
            notes.add("left out", "clip", "cannot be read", item, str(err))
            continue
        made += 1
        yield sample
    maker.report_unused()
    if not made and not clips:
        raise Unusable("no usable frames", "none of its frames has the annotation that was asked for")


def _of_folder(root: Path, video: SourceVideo, options: BuildOptions) -> Frames:
    try:
        return of_pictures([root / file for file in video.frames], options.fps)
    except ValueError as err:
        raise Unusable("no readable frames", str(err)) from err


def _stack(path: Path) -> MaskStack:
    try:
        return open_stack(path)
    except ValueError as err:
        raise Unusable("damaged mask file", str(err)) from err


class _Maker:
    """Makes the clips of one video; ``candidates`` are the frames that can be used, rising."""

    def __init__(self, video: SourceVideo, options: BuildOptions, notes: Notes, root: Path, frames: Frames) -> None:
        self._video, self._options, self._notes, self._root, self._frames = video, options, notes, root, frames
        self._size = options.target_size(*frames.size)
        self._stacks = {g: _stack(root / files[0]) for g, files in video.masks.items() if is_one_file(files)}
        self._masks = {group: self._match(group, files, "annotation") for group, files in video.masks.items()}
        every = range(len(frames))
        annotated = {n for found in self._masks.values() for n in found.places}
        self.candidates = sorted(annotated) if video.masks else list(every)
        if video.masks and not self.candidates:
            raise Unusable(
                "annotation does not fit the frames",
                f"its {len(frames)} frames and {sum(len(m.unmatched) for m in self._masks.values())} label images have "
                "neither names, numbers nor a count in common",
            )
        for group in sorted(group for group, found in self._masks.items() if not found.places):
            text = f"its {len(self._masks[group].unmatched)} label images do not fit the {len(frames)} frames"
            notes.add("left out", "object", "annotation does not fit the frames", f"object {group}", text)
        self._clips = self._inpainted_files()
        self._inpainted = {
            i: self._match(i, files, "inpainted")
            for i, files in video.inpainted.items()
            if i in self._clips or not is_one_file(files)
        }
        if len(self.candidates) < len(frames):
            count = f"{len(frames) - len(self.candidates)} of its {len(frames)} frames"
            notes.add("left out", "frame", "no annotation", "", f"{count} have no annotation: they are not used")
        if options.frames_with == "inpainted":
            kept = [n for n in self.candidates if all(n in found.places for found in self._inpainted.values())]
            if len(kept) < len(self.candidates):
                text = (
                    f"{len(self.candidates) - len(kept)} annotated frames have no inpainted picture: they are not used"
                )
                notes.add("left out", "frame", "no inpainted picture", "", text)
            self.candidates = kept
        self._seen: set[str] = set()
        self._placed: set[str] = set()

    def _match(self, group: str, files: tuple[str, ...], what: Companion) -> Match:
        count = None
        if is_one_file(files):
            count = self._stacks[group].count if what == "annotation" else len(self._clips[group])
        return matched(
            self._frames.names,
            files,
            count,
            what=what,
            group=group,
            notes=self._notes,
            annotated=self.candidates if what == "inpainted" else (),
        )

    def sample(self, chosen: list[int], key: str) -> VplmSample:
        """The sample of the chosen frames. Raises Unusable if it would have no frames or objects."""
        self._check_amount(chosen)
        labels, chosen = self._labels(chosen)
        self._check_count(len(chosen))
        pictures, damaged = self._frames.read(chosen, self._size)
        for place, reason in damaged.items():
            self._notes.add("left out", "frame", "damaged frame", self._frames.names[place], reason)
        kept = [n for n, place in enumerate(chosen) if place not in damaged]
        chosen = [chosen[n] for n in kept]
        self._check_count(len(chosen))
        masks = self._objects({group: [found[n] for n in kept] for group, found in labels.items()}, key)
        if self._video.masks and not masks and not self._options.keep_empty:
            raise Unusable("no object left", "no object of it is large enough to be kept")
        timing = self._frames.timing(chosen)
        video = Video.from_frames(pictures, timing.fps, timestamps=timing.times)
        texts = clip_texts(self._video, list(masks))
        self._placed |= set(masks)
        records = tuple(self._record(i, mask, texts, chosen, video) for i, mask in masks.items())
        return VplmSample(
            key=key,
            video=video,
            paragraph=texts.paragraph,
            objects=records,
            edits=texts.edits,
            phrasings=texts.phrasings,
            meta=self._meta(chosen, texts.annotation),
        )

    def _check_count(self, count: int) -> None:
        if count < self._options.sampling.min_frames:
            least = self._options.sampling.min_frames
            raise Unusable("too few frames", f"{count} frames can be used, {least} are needed")

    def _check_amount(self, chosen: list[int]) -> None:
        size = len(chosen) * self._size[0] * self._size[1] * 3
        if size > _MOST_BYTES:
            text = (
                f"a clip of {len(chosen)} frames of {self._size[1]}x{self._size[0]} takes {size / 1e9:.1f} GB in "
                f"memory, more than {_MOST_BYTES / 1e9:.1f}: ask for clips (--clip-length), fewer (--frames) or a "
                "smaller --size"
            )
            raise Unusable("clip too large", text)

    def _labels(self, chosen: list[int]) -> tuple[dict[str, list[LabelImage]], list[int]]:
        """The label images of the frames, by group, and the frames of which all of them can be read."""
        read: dict[str, dict[int, LabelImage]] = {}
        for group, found in self._masks.items():
            there = [place for place in chosen if place in found.places]
            blank = LabelImage(np.zeros(self._size, dtype=np.int32), "mask")
            read[group] = {place: blank for place in chosen if place not in found.places}
            for place, name, image in self._group(group, there):
                self._check_size(image.values.shape, "label image", name)
                read[group][place] = shrink(image, *self._size)
        kept = [place for place in chosen if all(place in images for images in read.values())]
        return {group: [images[place] for place in kept] for group, images in read.items()}, kept

    def _group(self, group: str, places: list[int]) -> Iterator[tuple[int, str, LabelImage]]:
        """(frame, file name, label image) of a group at some frames, but for images that are damaged."""
        numbers = [self._masks[group].places[place] for place in places]
        files = self._video.masks[group]
        if group in self._stacks:
            for place, image in zip(places, self._stacks[group].read(numbers), strict=True):
                yield place, Path(files[0]).name, image
            return
        for place, number in zip(places, numbers, strict=True):
            path = self._root / files[number]
            try:
                yield place, path.name, read_label_image(path)
            except ValueError as err:
                self._notes.add("left out", "frame", "damaged label image", path.name, str(err))

    def _check_size(self, found: tuple[int, ...], what: str, name: str) -> None:
        (height, width), (h, w) = self._frames.size, (found[0], found[1])
        if abs(h * width / (w * height) - 1) > _SAME_ASPECT:
            text = f"{name} is {w}x{h}, the frames are {width}x{height}: they do not show the same section"
            raise Unusable(f"{what} of another shape", text)
        if (h, w) != (height, width):
            text = f"the {what}s are {w}x{h}, the frames {width}x{height}: they are resized"
            self._notes.add("changed", "file", f"{what} of another size", "", text)

    def _objects(self, labels: Mapping[str, list[LabelImage]], key: str) -> dict[str, NDArray[np.uint8]]:
        """The masks that are large enough, by id."""
        masks: dict[str, NDArray[np.uint8]] = {}
        for group, images in labels.items():
            found, remarks = objects_in(images)
            for remark in remarks:
                self._notes.add("note", "file", remark.partition(":")[0].lstrip("0123456789 "), "annotation", remark)
            if not group:
                masks |= found
            elif found:
                # A folder of its own is one object, whatever its pictures call it.
                masks[group] = np.maximum.reduce(list(found.values()))
        kept: dict[str, NDArray[np.uint8]] = {}
        for object_id, mask in masks.items():
            self._seen.add(object_id)
            areas = mask.mean(axis=(1, 2), dtype=np.float64)
            over = areas[areas > 0] if self._options.area_over == "seen" else areas
            if not mask.any() or over.mean() < self._options.min_area:
                share = float(over.mean()) if over.size else 0.0
                text = (
                    f"it takes {100 * share:.3f} % of the frame on average (least: "
                    f"{100 * self._options.min_area:g} %), over the frames "
                    f"{'where it is seen' if self._options.area_over == 'seen' else 'of the clip'}"
                )
                self._notes.add("left out", "object", "small mask", f"{key} object {object_id}", text)
            else:
                kept[object_id] = mask
        return kept

    def _record(
        self, object_id: str, mask: NDArray[np.uint8], texts: ClipTexts, chosen: list[int], video: Video
    ) -> ObjectRecord:
        areas = mask.mean(axis=(1, 2), dtype=np.float64)
        extra = {"mean_area": round(float(areas[areas > 0].mean()), 6), **attributes(self._video, object_id)}
        said = texts.objects[object_id]
        frames = self._inpainted_frames(object_id, chosen)
        return ObjectRecord(
            id=object_id,
            name=said.name,
            category=self._video.categories.get(object_id, ""),
            description=said.description,
            mask=mask,
            boxes=boxes_of(mask),
            inpainted=None if frames is None else video.with_frames(frames),
            attributes=extra,
        )

    def _inpainted_frames(self, object_id: str, chosen: list[int]) -> NDArray[np.uint8] | None:
        """The clip without an object, or None, with a finding, where it is not whole."""
        found, files = self._inpainted.get(object_id), self._video.inpainted.get(object_id)
        if found is None or files is None:
            if self._video.inpainted:
                text = f"there are no inpainted pictures of object {object_id}"
                self._notes.add("note", "inpainted clip", "object without inpainted pictures", object_id, text)
            return None
        missing = [self._frames.names[place] for place in chosen if place not in found.places]
        if missing:
            text = f"no inpainted picture for {len(missing)} of {len(chosen)} frames: {', '.join(missing[:5])}"
            self._notes.add("left out", "inpainted clip", "inpainted pictures missing", object_id, text)
            return None
        pictures = []
        try:
            if object_id in self._clips:
                self._check_size(self._clips[object_id].size, "inpainted picture", Path(files[0]).name)
                return self._clips[object_id].read([found.places[place] for place in chosen], self._size)[0]
            for place in chosen:
                path = self._root / files[found.places[place]]
                size = picture_size(path)
                if size is not None:
                    self._check_size(size, "inpainted picture", path.name)
                pictures.append(resize(read_picture(path)[None], self._size)[0])
        except ValueError as err:
            reason = err.reason if isinstance(err, Unusable) else "damaged inpainted picture"
            self._notes.add("left out", "inpainted clip", reason, object_id, str(err))
            return None
        return np.stack(pictures)

    def _inpainted_files(self) -> dict[str, Frames]:
        """The inpainted clips that are video files, opened, by object; a finding for each that cannot be."""
        opened = {}
        for object_id, files in self._video.inpainted.items():
            if is_one_file(files):
                try:
                    opened[object_id] = of_file(self._root / files[0])
                except ValueError as err:
                    self._notes.add("left out", "inpainted clip", "damaged inpainted video", object_id, str(err))
        return opened

    def _meta(self, chosen: list[int], annotation: str) -> dict[str, object]:
        meta: dict[str, object] = {
            "annotation": annotation,
            "builder": {"name": "raccoon vplm build", "version": BUILDER_VERSION},
            "source": {
                "layout": self._video.layout,
                "video": self._video.name,
                "path": printable(self._video.path),
                "frames": chosen,
                "num_frames": len(self._frames),
                "start": round(float(self._frames.times[chosen[0]]), 6),
            },
        }
        if self._options.licence is not None:
            meta["licence"] = self._options.licence
        return meta

    def report_unused(self) -> None:
        """Say which inpainted pictures and which records of the lists found no object."""
        for object_id in sorted(set(self._inpainted) - self._seen):
            text = f"there are inpainted pictures of object {object_id}, but no mask"
            self._notes.add("left out", "inpainted clip", "inpainted pictures without a mask", object_id, text)
        for object_id in sorted(set(self._video.texts) - self._placed):
            reason = "its mask was dropped" if object_id in self._seen else "no such mask"
            self._notes.add(
                "left out", "record", reason, f"object {object_id}", f"the lists speak of object {object_id}: {reason}"
            )
