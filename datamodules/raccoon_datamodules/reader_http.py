"""Byte ranges over HTTP: connections are kept, redirects followed, and a server that stumbles is asked again."""

import base64
import http.client
import logging
import os
import random
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from raccoon_datamodules.places import join

# Worth another try: overload, and what proxies say while a server starts anew.
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_MAX_WAIT = 30.0
_MAX_IDLE = 8
_PIECE = 1 << 20
# Bytes a second; slower than this on average, beyond the time limit of a single arrival, is no answer.
_SLOWEST = 1000.0

_log = logging.getLogger(__name__)


class NoRangesError(OSError):
    """The place gives whole files only."""


class PassingError(OSError):
    """A failure that may pass; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass(slots=True)
class _Link:
    """A connection to a server, or to the proxy before it: what comes before a path, and headers besides."""

    origin: str
    connection: http.client.HTTPConnection
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class HttpFiles:
    """The files at an http(s) address.

    Proxies are taken from the environment (``https_proxy``, ``no_proxy``). Connections are kept open between requests;
    forked and spawned processes make their own.
    """

    def __init__(self, base: str, *, timeout: float = 60.0, attempts: int = 5) -> None:
        self.base = base
        self.timeout = timeout
        self.attempts = attempts
        self._idle: list[_Link] = []
        self._owner = os.getpid()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset`` on, fewer where the file ends.

        Raises:
            FileNotFoundError: if the file is not there.
            PermissionError: if the server refuses.
            NoRangesError: if the server sends the whole file instead.
            OSError: if it cannot be reached or does not answer properly, several times.
        """
        place = join(self.base, name)
        return self._patiently(lambda: self._range(place, offset, length)) if length else b""

    def whole(self, name: str) -> bytes:
        """A whole (small) file. Raises as `read`."""
        place = join(self.base, name)

        def get() -> bytes:
            with self._answer(place, {}) as answer:
                return _body(answer, None, place, self.timeout)

        return self._patiently(get)

    @contextmanager
    def open(self, name: str) -> Iterator["_Stream"]:
        """A whole file as a stream. Raises as `read`, at the first failure."""
        place = join(self.base, name)
        with self._answer(place, {}) as answer:
            yield _Stream(answer, place, self.timeout)

    def close(self) -> None:
        """Close the connections."""
        idle, self._idle = self._idle, []
        for link in idle:
            link.connection.close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_idle": []}

    def _range(self, place: str, offset: int, length: int) -> bytes:
        with self._answer(place, {"Range": f"bytes={offset}-{offset + length - 1}"}) as answer:
            if answer.status == 416:
                answer.read(1 << 16)
                return b""
            if answer.status != 206:
                raise NoRangesError(f"{place}: the server sends whole files only (status {answer.status})")
            stated = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.getheader("Content-Range", "").strip())
            if stated is not None:
                first, last = int(stated[1]), int(stated[2])
                expected = length if stated[3] == "*" else min(length, int(stated[3]) - offset)
                if first != offset or last - first + 1 != expected:
                    raise PassingError(
                        f"{place}: asked for bytes {offset} to {offset + length - 1}, the server sent {stated[0]}"
                    )
                length = expected
            return _body(answer, length, place, self.timeout)

    def _patiently(self, work: Callable[[], bytes]) -> bytes:
        for attempt in range(self.attempts - 1):
            try:
                return work()
            except PassingError as err:
                # Spread out, so that many workers do not come back at the same moment.
                wait = min(max(err.wait, 0.5 * 2**attempt * random.uniform(0.5, 1.0)), _MAX_WAIT)
                _log.info("%s; asking again in %.1f s", err, wait)
                time.sleep(wait)
        try:
            return work()
        except PassingError as err:
            raise OSError(f"{err} ({self.attempts} tries)") from err

    @contextmanager
    def _answer(self, place: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """The answer to a GET, redirects followed; what is no success raises."""
        address = place
        for _ in range(_MAX_REDIRECTS + 1):
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise OSError(f"{place}: redirected to {address}, which is no http(s) address")
            link, answer = self._get(parts, headers, place)
            try:
                moved = answer.getheader("Location") if answer.status in _MOVED else None
                if moved is None:
                    _raise_for(answer, place)
                    yield answer
                    return
                address = urljoin(address, moved)
                answer.read(1 << 16)
            finally:
                # What is left of an answer would be taken for the next one.
                if answer.isclosed() and len(self._idle) < _MAX_IDLE:
                    self._idle.append(link)
                else:
                    link.connection.close()
                    answer.close()
        raise OSError(f"{place}: redirected more than {_MAX_REDIRECTS} times, last to {address}")

    def _get(self, parts: SplitResult, headers: dict[str, str], place: str) -> tuple[_Link, http.client.HTTPResponse]:
        if self._owner != os.getpid():
            # A forked process shares its parent's sockets: two readers of one answer.
            self._owner = os.getpid()
            self.close()
        origin = f"{parts.scheme}://{parts.netloc}"
        path = parts._replace(scheme="", netloc="", fragment="", path=parts.path or "/").geturl()
        kept = next((link for link in reversed(self._idle) if link.origin == origin), None)
        if kept is not None:
            self._idle.remove(kept)
        while True:
            link = kept or _connect(parts, origin, self.timeout)
            sent = {"Accept-Encoding": "identity", "User-Agent": "raccoon", **link.headers, **headers}
            try:
                link.connection.request("GET", f"{link.prefix}{path}", headers=sent)
                return link, link.connection.getresponse()
            except (OSError, http.client.HTTPException) as err:
                link.connection.close()
                # The server may close a kept connection at any time, which says nothing about a new one.
                if kept is None:
                    why = getattr(err, "strerror", None) or str(err) or type(err).__name__
                    raise PassingError(f"{place} cannot be reached: {why}") from err
                kept = None


class _Stream:
    def __init__(self, answer: http.client.HTTPResponse, place: str, patience: float) -> None:
        self._answer = answer
        self._place = place
        self._patience = patience

    def read(self, size: int, /) -> bytes:
        return _take(self._answer, size, self._place, self._patience)


def _connect(parts: SplitResult, origin: str, timeout: float) -> _Link:
    host, is_secure = str(parts.hostname), parts.scheme == "https"
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(host):
        if is_secure:
            secure = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout, context=ssl.create_default_context()
            )
            return _Link(origin, secure)
        return _Link(origin, http.client.HTTPConnection(host, parts.port, timeout=timeout))
    by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if by.scheme != "http" or not by.hostname:
        raise ValueError(
            f"the proxy for {parts.scheme} must be http://HOST:PORT, the environment names a {by.scheme} one"
        )
    login = {}
    if by.username:
        words = f"{unquote(by.username)}:{unquote(by.password or '')}"
        login = {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
    if not is_secure:
        return _Link(origin, http.client.HTTPConnection(by.hostname, by.port or 80, timeout=timeout), origin, login)
    tunnel = http.client.HTTPSConnection(
        by.hostname, by.port or 80, timeout=timeout, context=ssl.create_default_context()
    )
    tunnel.set_tunnel(host, parts.port, headers=login)
    return _Link(origin, tunnel)


def _raise_for(answer: http.client.HTTPResponse, place: str) -> None:
    if answer.status in (200, 206, 416):
        return
    if answer.status in (404, 410):
        raise FileNotFoundError(f"{place} is not there (HTTP {answer.status})")
    text = f"{place}: HTTP {answer.status} {answer.reason}"
    if answer.status in (401, 403):
        raise PermissionError(f"{text}: the server does not let it be read")
    if answer.status in _AGAIN:
        asked = answer.getheader("Retry-After", "").strip()
        raise PassingError(text, float(asked) if asked.isdigit() else 0.0)
    raise OSError(text)


def _body(answer: http.client.HTTPResponse, length: int | None, place: str, patience: float) -> bytes:
    data = _take(answer, length, place, patience)
    if length is not None and len(data) != length:
        raise PassingError(f"{place}: the answer broke off after {len(data)} of {length} bytes")
    return data


def _take(answer: http.client.HTTPResponse, length: int | None, place: str, patience: float) -> bytes:
    """Up to ``length`` bytes of an answer, fewer only at its end; None = all."""
    start, got, pieces = time.monotonic(), 0, []
    try:
        while length is None or got < length:
            piece = answer.read1(_PIECE if length is None else min(_PIECE, length - got))
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
            # A time limit on each arrival alone lets a server hold a run with a byte now and then.
            if time.monotonic() - start > patience + got / _SLOWEST:
                raise PassingError(f"{place}: {got} bytes came in {time.monotonic() - start:.0f} s")
        if got == length:
            # Ends the answer where this was all of it, so that its connection can be used again.
            answer.read(0)
    except (OSError, http.client.HTTPException) as err:
        if isinstance(err, PassingError):
            raise
        raise PassingError(f"{place}: the answer broke off: {err!r}") from err
    return b"".join(pieces)
