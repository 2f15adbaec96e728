"""`OpenAIChat`: any server that speaks OpenAI's chat completions, as a `Chat`.

That is OpenAI itself and vLLM, SGLang, Ollama, LM Studio, llama.cpp, `transformers serve`, ... by their ``base_url``.
The key is read from the environment when the first request is sent; it is in no attribute, message or file of ours.
"""

import base64
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raccoon.backbones.chat_errors import Failure, address_of, failure_of, key_from
from raccoon.backbones.chat_limits import RateLimit, Spending
from raccoon_datamodules.annotate.chat import AnswerCut, AnswerRefused, ChatError, ChatStopped

# OpenAI's count of a picture: it is shrunk to fit 2048 x 2048, then to a short side of 768, and cut in tiles of 512.
_TILE, _PER_TILE, _PER_IMAGE = 512, 170, 85


class Usage(NamedTuple):
    """What was sent so far: requests, tokens as the server counted them, money (None if a price is unknown)."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None


class OpenAIChat:
    """A conversational model behind an OpenAI-compatible server; may be used by several threads.

    Args:
        model: its name on the server.
        base_url: the server's address up to ``/v1``; None is OpenAI's own.
        api_key_env: the environment variable that holds the key; None for a server that asks for none.
        max_tokens: the longest answer.
        token_parameter: what the server calls ``max_tokens``; OpenAI's newer models want ``max_completion_tokens``.
        temperature: 0 for the likeliest answer; None leaves it to the server, as some models demand.
        seed: makes answers repeatable where the server supports it; None sends none.
        image_format: how pictures are sent; png loses nothing, jpeg takes about a quarter of the bytes.
        jpeg_quality: 1 to 100.
        image_detail: OpenAI's ``detail`` of a picture (low, high, auto); None sends none.
        timeout: seconds for one request.
        max_retries: further tries after 429, 5xx, a timeout or a broken connection.
        first_pause: seconds before the first retry; doubled each time, up to ``longest_pause``, with a random part. A
            longer pause that the server asks for (Retry-After) is kept.
        longest_pause: seconds.
        requests_per_minute: sent at most; None for no limit of ours.
        tokens_per_minute: of prompts and answers, estimated; None for no limit of ours.
        concurrency: requests under way at the same time.
        input_price: money per million tokens of prompts; None if unknown.
        output_price: money per million tokens of answers; None if unknown.
        spending_limit: money this object may spend, in the prices' currency; it stops before it would spend more.

    Raises:
        ValueError: if a number is out of range, or a spending limit is set without prices.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        max_tokens: int = 1024,
        token_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        temperature: float | None = 0.0,
        seed: int | None = None,
        image_format: Literal["png", "jpeg"] = "png",
        jpeg_quality: int = 95,
        image_detail: Literal["low", "high", "auto"] | None = None,
        timeout: float = 120.0,
        max_retries: int = 6,
        first_pause: float = 1.0,
        longest_pause: float = 60.0,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrency: int = 4,
        input_price: float | None = None,
        output_price: float | None = None,
        spending_limit: float | None = None,
    ) -> None:
        if not model.strip():
            raise ValueError("model must name a model of the server, got an empty string")
        for name, value, least in (("max_tokens", max_tokens, 1), ("max_retries", max_retries, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if concurrency < 1 or timeout <= 0 or first_pause < 0 or longest_pause < first_pause:
            raise ValueError(
                "concurrency must be at least 1, timeout positive, and 0 <= first_pause <= longest_pause, got "
                f"{concurrency}, {timeout}, {first_pause}, {longest_pause}"
            )
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"base_url must begin with http:// or https:// and usually ends in /v1, got {base_url!r}; null is "
                "OpenAI's own"
            )
        if not 1 <= jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be in [1, 100], got {jpeg_quality}")
        self.model = model
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.max_tokens = max_tokens
        self.token_parameter = token_parameter
        self.temperature = temperature
        self.seed = seed
        self.image_format = image_format
        self.jpeg_quality = jpeg_quality
        self.image_detail = image_detail
        self.timeout = timeout
        self.max_retries = max_retries
        self.first_pause = first_pause
        self.longest_pause = longest_pause
        self.concurrency = concurrency
        self.spending = Spending(input_price=input_price, output_price=output_price, limit=spending_limit)
        self._stopped = threading.Event()
        self._rate = RateLimit(requests=requests_per_minute, tokens=tokens_per_minute, wait=self._pause)
        self._slots = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._client: Any = None
        self._was_reached = False
        # Of no consequence for answers: it spreads the retries of several machines.
        self._random = random.Random()

    def __repr__(self) -> str:
        return f"OpenAIChat({self.model!r}, base_url={self.base_url!r})"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What answers depend on: the model and its parameters, not the address, which may change between runs."""
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "image_format": self.image_format if self.image_format == "png" else f"jpeg {self.jpeg_quality}",
            "image_detail": self.image_detail,
        }

    @property
    def usage(self) -> Usage:
        """What was sent and spent so far."""
        counted = self.spending
        return Usage(counted.num_requests, counted.input_tokens, counted.output_tokens, counted.spent)

    def estimate_tokens(self, image_sizes: Sequence[tuple[int, int]], text: str) -> int:
        """About how many tokens a prompt has: text by its length, pictures (height, width) by OpenAI's tiles."""
        total = len(text.encode()) // 4 + 16
        for height, width in image_sizes:
            total += _PER_IMAGE if self.image_detail == "low" else _image_tokens(height, width)
        return total

    def price(self, input_tokens: float, output_tokens: float) -> float | None:
        """The price of so many tokens, None if a price is not set."""
        return self.spending.price(input_tokens, output_tokens)

    def stop(self) -> None:
        """Send no further request and end all waiting; requests under way are left to finish."""
        self._stopped.set()

    def chat(self, images: Sequence[NDArray[np.uint8]], text: str, /) -> str:
        """Answer ``text`` about the images (uint8 [H, W, 3] RGB).

        Raises:
            AnswerRefused: if the model declined, by its own refusal or the provider's filter.
            AnswerCut: if the answer reached ``max_tokens``.
            ChatError: if the server's last answer after all retries was an error or held no text.
            ChatStopped: if the key is missing or wrong, the model is not there, no server answers, or the spending
                limit is reached.
            ImportError: if the package openai is not installed.
            ValueError: if an image is not uint8 [H, W, 3].
        """
        content = [_text_part(text), *(self._image_part(image) for image in images)]
        parameters: dict[str, Any] = {
            "model": self.model,
            # A plain string for a plain question: servers of text models know nothing else.
            "messages": [{"role": "user", "content": content if images else text}],
            self.token_parameter: self.max_tokens,
        }
        if self.temperature is not None:
            parameters["temperature"] = self.temperature
        if self.seed is not None:
            parameters["seed"] = self.seed
        tokens = self.estimate_tokens([(image.shape[0], image.shape[1]) for image in images], text)
        failure: Failure | None = None
        for attempt in range(self.max_retries + 1):
            if failure is not None:
                self._back_off(attempt - 1, failure)
            with self._slots:
                found = self._send(parameters, tokens)
            if not isinstance(found, Failure):
                return found
            failure = found
            if not failure.may_retry or (failure.is_unreachable and not self._was_reached):
                break
        assert failure is not None
        times = f" after {attempt + 1} tries" if attempt else ""
        raise (ChatStopped if failure.is_fatal else ChatError)(f"{failure.sentence}{times}")

    def _send(self, parameters: dict[str, Any], tokens: int) -> "str | Failure":
        client = self._connect()
        self._rate.enter(tokens + self.max_tokens // 2)
        if self._stopped.is_set():
            raise ChatStopped("the run was stopped")
        amount = self.spending.set_aside(tokens, self.max_tokens)
        counted: tuple[int, int] | None = None
        is_sent = True
        try:
            answer = failure_of(lambda: client.chat.completions.create(**parameters), self)
            if isinstance(answer, Failure):
                # What timed out may have been worked on, and charged for.
                is_sent = answer.may_be_charged
                if answer.pause is not None and answer.is_about_rate:
                    self._rate.hold(answer.pause)
                return answer
            self._was_reached = True
            counted = _usage_of(answer)
        finally:
            found = counted or (None, None)
            self.spending.settle(
                amount, estimated=tokens, input_tokens=found[0], output_tokens=found[1], is_sent=is_sent
            )
        return self._read(answer)

    def _read(self, answer: Any) -> "str | Failure":
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices or (message := getattr(choices[0], "message", None)) is None:
            return Failure(
                f"{self._where} answered with something else than a completion: there is no choice in it; see whether "
                "chat.base_url is the server's address up to /v1",
                may_retry=True,
            )
        text, reason = getattr(message, "content", None), getattr(choices[0], "finish_reason", None)
        if refusal := getattr(message, "refusal", None):
            raise AnswerRefused(f"the model refused: {' '.join(str(refusal).split())[:300]}")
        if reason == "content_filter":
            raise AnswerRefused("the provider's content filter withheld the answer")
        if reason == "length":
            raise AnswerCut(f"the answer reached max_tokens ({self.max_tokens})", text or "")
        if not isinstance(text, str) or not text.strip():
            return Failure(f"{self._where} answered with an empty text", may_retry=True)
        return text

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                try:
                    import openai
                except ImportError as err:
                    raise ImportError(
                        'OpenAIChat needs the package openai: pip install "raccoon-video[annotate]"'
                    ) from err
                self._client = openai.OpenAI(
                    api_key=key_from(self.api_key_env), base_url=self.base_url, timeout=self.timeout, max_retries=0
                )
            return self._client

    def _back_off(self, attempt: int, failure: "Failure") -> None:
        pause = min(self.longest_pause, self.first_pause * 2**attempt) * self._random.uniform(0.5, 1.0)
        self._pause(max(pause, failure.pause or 0.0))

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise ChatStopped("the run was stopped")

    @property
    def _where(self) -> str:
        return address_of(self)

    def _image_part(self, image: NDArray[np.uint8]) -> dict[str, Any]:
        import cv2

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        settings = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality] if self.image_format == "jpeg" else []
        suffix = ".jpg" if self.image_format == "jpeg" else ".png"
        _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
        url = f"data:image/{self.image_format};base64,{base64.b64encode(data.tobytes()).decode()}"
        detail = {} if self.image_detail is None else {"detail": self.image_detail}
        return {"type": "image_url", "image_url": {"url": url, **detail}}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_tokens(height: int, width: int) -> int:
    scale = min(1.0, 2048 / max(height, width))
    scale *= min(1.0, 768 / (min(height, width) * scale))
    tiles = -(-int(height * scale) // _TILE) * -(-int(width * scale) // _TILE)
    return _PER_IMAGE + _PER_TILE * max(tiles, 1)


def _usage_of(answer: Any) -> tuple[int, int] | None:
    usage = getattr(answer, "usage", None)
    found = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return found if all(isinstance(n, int) and n >= 0 for n in found) else None  # type: ignore[return-value]
