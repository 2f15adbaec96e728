"""Answers kept by what was asked: a request that was answered once is never sent again.

The key is the SHA-256 of everything the answer depends on: the model and its parameters (``identity``), the text, the
pixels of the pictures and the number of the attempt. One JSON file an answer, written atomically, so that a run can be
killed at any moment. Refusals and answers that were cut off are kept as well, for they are paid for too; failures of
the network are not.
"""

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raccoon_datamodules.annotate.chat import AnswerCut, AnswerRefused, ChatError, ChatModel, ChatStopped
from raccoon_datamodules.atomic import replacing
from raccoon_datamodules.faults import attempt as attempt_to

_VERSION = 1


class NotKept(ChatStopped):
    """A question that is not answered in the cache, and is not to be sent; ``purpose`` says what it was asked for."""

    purpose = ""


class _Nobody:
    """A chat model that answers nothing."""

    def chat(self, images: Sequence[NDArray[np.uint8]], text: str, /) -> str:
        raise NotKept("this was not answered before")


class CachedChat:
    """A chat model whose answers are kept in ``folder``; may be used by several threads.

    ``identity`` is plain JSON that names the model and every parameter its answers depend on, and no secret: it is
    written into the files.

    Raises:
        TypeError: if identity is not plain JSON.
        NotADirectoryError: if ``folder`` is, or is in, something else than a folder.
        PermissionError: if it cannot be written to.
    """

    def __init__(self, chat: ChatModel, folder: str | Path, *, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        # Known before an answer is paid for that cannot be kept.
        there = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise NotADirectoryError(f"answers are kept in a folder {folder}, but {there} is a file; name another one")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(f"answers cannot be kept in {folder}: {there} may not be written to")
        self._chat = chat
        self._identity = json.loads(json.dumps(dict(identity), sort_keys=True, allow_nan=False))
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self.num_sent = 0
        self.num_kept = 0

    def ask(self, images: Sequence[NDArray[np.uint8]], text: str, *, attempt: int = 0) -> str:
        """The kept answer, or a new one, which is kept.

        ``images`` uint8 [H, W, 3]; ``attempt`` tells apart requests that ask the same a second time.

        Raises:
            AnswerRefused: if the model declined, now or when it was asked first.
            AnswerCut: if the answer ended at the length limit.
            ChatError: if the request failed otherwise; nothing is kept.
            ChatStopped: if no further request makes sense.
            OSError: if the answer cannot be written.
        """
        request = self._request(images, text, attempt)
        path = self._path(request)
        with self._lock:
            turn = self._turns.setdefault(path.name, threading.Lock())
        # Two threads that ask the same at the same time pay once.
        with turn:
            kept = _read(path)
            status, answer, detail = kept or self._send_and_keep(images, text, request, path)
        with self._lock:
            self.num_sent += kept is None
            self.num_kept += kept is not None
        if status == "refused":
            raise AnswerRefused(detail)
        if status == "cut":
            raise AnswerCut(detail, answer)
        return answer

    def offline(self) -> "CachedChat":
        """The same answers, but nothing is sent: `ask` raises NotKept where nobody was asked before."""
        return CachedChat(_Nobody(), self.folder, identity=self._identity)

    def _send_and_keep(
        self, images: Sequence[NDArray[np.uint8]], text: str, request: Mapping[str, Any], path: Path
    ) -> tuple[str, str, str]:
        status, answer, detail = self._send(images, text)
        record = {"version": _VERSION, "request": request, "status": status, "answer": answer, "detail": detail}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
        return status, answer, detail

    def _send(self, images: Sequence[NDArray[np.uint8]], text: str) -> tuple[str, str, str]:
        """(status, answer, detail) of a new request. Raises ChatError or ChatStopped."""

        def send() -> tuple[str, str, str] | RuntimeError:
            try:
                answer = self._chat.chat(images, text)
            except AnswerRefused as err:
                return "refused", "", str(err)
            except AnswerCut as err:
                return "cut", _writable(err.partial), str(err)
            except (ChatError, ChatStopped) as err:
                return err
            except ImportError as err:
                return ChatStopped(str(err))
            if not isinstance(answer, str):
                raise TypeError(f"chat must return a str, got {type(answer).__name__}")
            return "ok", _writable(answer), ""

        came = attempt_to(send)
        if isinstance(came, RuntimeError):
            raise came
        if len(came) == 2:
            # A stranger's model may raise anything: this request failed, the next one may go well.
            raise ChatError(f"{type(self._chat).__name__}: {came[1]}")
        return came

    def _request(self, images: Sequence[NDArray[np.uint8]], text: str, attempt: int) -> dict[str, Any]:
        pictures = [_hash(image) for image in images]
        return {"identity": self._identity, "text": text, "images": pictures, "attempt": attempt}

    def _path(self, request: Mapping[str, Any]) -> Path:
        told = json.dumps([_VERSION, request], sort_keys=True)
        name = hashlib.sha256(told.encode("utf-8")).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def _hash(image: NDArray[np.uint8]) -> str:
    head = f"{image.dtype}{list(image.shape)}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()


def _writable(text: str) -> str:
    # A lone surrogate, which JSON may carry, cannot be written as UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _read(path: Path) -> tuple[str, str, str] | None:
    """(status, answer, detail) of a file, or None if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
        status, answer, detail = value["status"], value["answer"], value["detail"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # A file that somebody damaged is asked for anew.
        return None
    is_whole = status in ("ok", "refused", "cut") and isinstance(answer, str) and isinstance(detail, str)
    return (status, answer, detail) if is_whole else None
