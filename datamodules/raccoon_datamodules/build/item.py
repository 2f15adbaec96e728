"""One piece of a build's work, in a worker process: a source video to its staged samples and its record."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2

from raccoon_datamodules.build.clips import Unusable, samples_of
from raccoon_datamodules.build.findings import Finding
from raccoon_datamodules.build.options import BuildOptions
from raccoon_datamodules.build.sources import SourceVideo
from raccoon_datamodules.build.staging import Items, Record
from raccoon_datamodules.sample import VplmSample, encode
from raccoon_datamodules.video import encode_clip


@dataclass(frozen=True, slots=True)
class ItemJob:
    """A source video to build into a folder; ``identity`` its `SourceVideo.identity`, ``known`` its last record.

    ``known`` is given only while its samples are still to be had: if the content is the same, they are kept.
    """

    video: SourceVideo
    options: BuildOptions
    out: str
    identity: str
    known: Record | None = None


class _Stopped(Exception):
    """The run was interrupted."""


class _SourceError(Exception):
    """A file of the source cannot be opened; kept apart from what goes wrong while writing."""


def make_item(job: ItemJob) -> Record:
    """Build one source video; the record is also staged, unless the video is to be tried again.

    Raises:
        ValueError: if a sample breaks the format, which would be a fault of ours.
        OSError: if the staging folder cannot be written.
    """
    # A worker is one thread: processes already use every core.
    cv2.setNumThreads(1)
    video, items = job.video, Items(Path(job.out))
    findings = list(video.findings)
    try:
        content = _content(video)
        if job.known is not None and job.known.content == content:
            record = replace(job.known, identity=job.identity)
            items.finish(video.id, record)
            return record
        with items.writing(video.id) as writer:
            for sample in _guarded(samples_of(video, job.options, findings), items):
                crf = job.options.crf if job.options.codec == "h264" else None
                data = encode(sample, encode_video=partial(encode_clip, crf=crf))
                writer.add(sample.key, data, frames=sample.video.num_frames, objects=len(sample.objects))
            samples = tuple(writer.samples)
    except Unusable as err:
        return _without(job, content, findings, err.reason, str(err))
    except _Stopped:
        return Record(video.name, job.identity, "", (), (), retry=True)
    except _SourceError as err:
        return _without(job, "", findings, "cannot be opened", str(err), retry=True)
    record = Record(video.name, job.identity, content, samples, _told(findings, video.root))
    items.finish(video.id, record)
    return record


def _content(video: SourceVideo) -> str:
    try:
        return video.content()
    except OSError as err:
        raise _SourceError(str(err)) from err


def _guarded(samples: Iterator[VplmSample], items: Items) -> Iterator[VplmSample]:
    while True:
        if items.is_stopped:
            raise _Stopped
        try:
            sample = next(samples)
        except StopIteration:
            return
        except Unusable:
            raise
        except MemoryError as err:
            raise _SourceError("not enough memory for one clip: use fewer --workers, --clip-length or --size") from err
        except OSError as err:
            raise _SourceError(str(err)) from err
        except (ValueError, RuntimeError) as err:
            raise Unusable("cannot be read", str(err)) from err
        yield sample


def _without(
    job: ItemJob, content: str, findings: list[Finding], reason: str, text: str, *, retry: bool = False
) -> Record:
    """The record of a video of which nothing was made."""
    found = Finding("left out", "video", reason, job.video.name, "", text)
    told = _told([*findings, found], job.video.root)
    record = Record(job.video.name, job.identity, content, (), told, retry=retry)
    items = Items(Path(job.out))
    items.drop(job.video.id)
    if not retry:
        items.finish(job.video.id, record)
    return record


def _told(findings: list[Finding], root: str) -> tuple[Finding, ...]:
    """The findings with paths as the data set has them, so that a moved source tells the same."""
    return tuple(replace(finding, text=finding.text.replace(f"{root}{os.sep}", "")) for finding in findings)
