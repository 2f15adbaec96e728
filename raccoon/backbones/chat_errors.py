"""What a chat server's failures mean: whether to try again, when, and what to tell the person.

The key is taken out of every sentence: servers quote it, whole or in part.
"""

import email.utils
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from raccoon_datamodules.annotate.chat import ChatStopped

# Trying again may help; 409 is a lock, 425 "too early".
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_MAX_QUOTED = 300
# What looks like a key, also a masked one (sk-ab***yz).
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|api)[-_][A-Za-z0-9_*.-]{6,}|(?<=[Bb]earer )\S+")


class Server(Protocol):
    """What a sentence says of the server."""

    model: str
    base_url: str | None
    api_key_env: str | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request came to nothing.

    ``pause`` seconds the server asked to wait; ``is_fatal`` no request would go better; ``is_unreachable`` nothing
    answered; ``may_be_charged`` the server may have worked on it.
    """

    sentence: str
    may_retry: bool = False
    pause: float | None = None
    is_fatal: bool = False
    is_unreachable: bool = False
    is_about_rate: bool = False
    may_be_charged: bool = False


def key_from(variable: str | None) -> str:
    """The key in an environment variable; None gives a placeholder for servers that ask for none.

    Raises:
        ChatStopped: if the variable is not set or holds what no header can.
    """
    if variable is None:
        return "none"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ChatStopped(
            f"the key of the chat server is read from the environment variable {variable}, which is not set; set it, "
            "or set chat.api_key_env=null for a server that asks for none"
        )
    if not (key.isascii() and key.isprintable()):
        raise ChatStopped(
            f"the key in the environment variable {variable} must be plain ASCII without breaks; set it anew"
        )
    return key


def address_of(server: Server) -> str:
    """Where requests go: the setting, else what openai itself reads from the environment, else OpenAI."""
    return server.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"


def failure_of(send: Callable[[], Any], server: Server) -> Any:
    """The server's answer, or a `Failure` that says what went wrong."""
    import openai

    # The causes are not chained: their text and their request may hold the key.
    where = address_of(server)
    try:
        return send()
    except openai.APITimeoutError:
        return Failure(
            f"{where} did not answer within {server.timeout:g} s (chat.timeout)", may_retry=True, may_be_charged=True
        )
    except openai.APIStatusError as err:
        return _of_status(err, where, server)
    except openai.APIConnectionError as err:
        return Failure(
            f"no server answers at {where}: {_clean(_innermost(err), server)}; start it, or correct chat.base_url",
            may_retry=True,
            is_fatal=True,
            is_unreachable=True,
        )
    except (openai.OpenAIError, json.JSONDecodeError, UnicodeDecodeError) as err:
        return Failure(
            f"{where} answered with something else than a completion: {_clean(str(err), server)}",
            may_retry=True,
            may_be_charged=True,
        )


def _of_status(err: Any, where: str, server: Server) -> Failure:
    status, said = int(err.status_code), _clean(_message(err), server)
    if status == 401:
        which = f"the key in {server.api_key_env}" if server.api_key_env else "a request without a key"
        return Failure(f"{where} does not accept {which} (401): {said}", is_fatal=True)
    if status == 403:
        return Failure(f"{where} forbids this (403): {said}", is_fatal=True)
    if status == 404:
        sentence = f"{where} has no model {server.model!r} or no chat completions there (404): {said}"
        return Failure(f"{sentence}; correct chat.model or chat.base_url", is_fatal=True)
    if status == 402 or "insufficient_quota" in (getattr(err, "code", None), getattr(err, "type", None)):
        return Failure(f"the account at {where} has no credit left ({status}): {said}", is_fatal=True)
    pause = _retry_after(err.response.headers)
    if status in _PASSING or status >= 500:
        is_rate = status in (429, 503, 529)
        return Failure(f"{where} answered {status}: {said}", may_retry=True, pause=pause, is_about_rate=is_rate)
    return Failure(f"{where} turned the request down ({status}): {said}")


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from Retry-After (seconds or a date) or Retry-After-Ms; at most an hour."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date is None:
                continue
            seconds = email.utils.mktime_tz(date) - time.time()
        if 0 <= seconds < float("inf"):
            return min(seconds, 3600.0)
    return None


def _message(err: Any) -> str:
    body = err.body
    if isinstance(body, dict):
        for value in (body.get("message"), body.get("detail"), body.get("error")):
            if isinstance(value, str):
                return value
    return str(getattr(err.response, "text", "")).strip() or str(getattr(err, "message", "") or err)


def _innermost(err: BaseException) -> str:
    while (inner := err.__cause__ or err.__context__) is not None:
        err = inner
    return str(err) or type(err).__name__


def _clean(text: str, server: Server) -> str:
    """One line without the key or anything like one."""
    key = os.environ.get(server.api_key_env or "", "").strip()
    if key:
        text = text.replace(key, "***")
    return " ".join(_KEY_LIKE.sub("***", text).split())[:_MAX_QUOTED]
