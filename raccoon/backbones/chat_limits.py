"""How fast requests may be sent and how much they may cost; both are kept by the client, for all of its threads."""

import threading
import time
from collections import deque
from collections.abc import Callable

from raccoon_datamodules.annotate.chat import ChatStopped

_WINDOW = 60.0  # seconds; providers count per minute


class RateLimit:
    """Requests and tokens within any 60 seconds; None means no limit.

    ``clock`` gives seconds, ``wait(seconds)`` waits and raises if the waiting is to end.

    Raises:
        ValueError: if a limit is not positive.
    """

    def __init__(
        self,
        *,
        requests: int | None,
        tokens: int | None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        for name, value in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null for no limit, got {value}")
        self._requests = requests
        self._tokens = tokens
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, int]] = deque()
        self._not_before = 0.0

    def enter(self, tokens: int) -> None:
        """Wait until a request of about ``tokens`` tokens may be sent, and count it.

        A request larger than the limit is let through alone.
        """
        while (pause := self._try(tokens)) > 0:
            self._wait(pause)

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: the server asked for it."""
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)

    def _try(self, tokens: int) -> float:
        with self._lock:
            now = self._clock()
            while self._sent and now - self._sent[0][0] >= _WINDOW:
                self._sent.popleft()
            if now < self._not_before:
                return self._not_before - now
            used = sum(count for _, count in self._sent)
            is_full = self._requests is not None and len(self._sent) >= self._requests
            is_full |= self._tokens is not None and bool(self._sent) and used + tokens > self._tokens
            if is_full:
                return max(0.001, _WINDOW - (now - self._sent[0][0]))
            self._sent.append((now, tokens))
            return 0.0


class Spending:
    """Counts tokens and money, and stops before a limit is passed.

    Prices in units of money per million tokens, None if unknown; ``limit`` in the same money, None for none. Before a
    request its greatest possible cost is set aside, so that requests under way at the same time stay within the limit.
    Estimates of prompts are corrected upwards by what the server counted so far.

    Raises:
        ValueError: if a limit is set and a price is missing, or a number is negative.
    """

    def __init__(self, *, input_price: float | None, output_price: float | None, limit: float | None) -> None:
        for name, value in (("input_price", input_price), ("output_price", output_price), ("spending_limit", limit)):
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a number of at least 0 or null, got {value}")
        if limit is not None and (input_price is None or output_price is None):
            missing = "input_price" if input_price is None else "output_price"
            raise ValueError(
                f"a spending_limit ({limit}) needs input_price and output_price (money per million tokens), "
                f"{missing} is not set; set it in the recipe, 0 for a server of your own"
            )
        self.input_price = input_price
        self.output_price = output_price
        self.limit = limit
        self.input_tokens = 0
        self.output_tokens = 0
        self.num_requests = 0
        self._spent = 0.0
        self._set_aside = 0.0
        self._ratio = 1.0
        self._change = threading.Condition()

    @property
    def spent(self) -> float | None:
        """Money spent so far, None if a price is unknown."""
        return None if self.price(0, 0) is None else self._spent

    def price(self, input_tokens: float, output_tokens: float) -> float | None:
        """The price of so many tokens, None if a price is unknown."""
        if self.input_price is None or self.output_price is None:
            return None
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6

    def set_aside(self, input_tokens: int, output_tokens: int) -> float:
        """Set aside what a request may cost at most; returns the amount for `settle`.

        Raises:
            ChatStopped: if the limit would be passed.
        """
        with self._change:
            while True:
                amount = self.price(input_tokens * self._ratio, output_tokens) or 0.0
                if self.limit is None or self._spent + self._set_aside + amount <= self.limit + 1e-12:
                    self._set_aside += amount
                    return amount
                if not self._set_aside:
                    raise ChatStopped(
                        f"the spending limit of {self.limit:g} is reached: {self._spent:.4f} spent, the next request "
                        f"may cost {amount:.4f}; raise chat.spending_limit and run again, what is answered is kept"
                    )
                # What is under way mostly costs less than was set aside for it.
                self._change.wait(timeout=1.0)

    def settle(
        self,
        amount: float,
        *,
        estimated: int,
        input_tokens: int | None,
        output_tokens: int | None,
        is_sent: bool = True,
    ) -> None:
        """Count a request's tokens in the place of the amount set aside for it.

        ``estimated`` is the estimate of its prompt; tokens are None where the server did not count them: then the
        amount itself is counted, for the server may have charged it. A request that the server turned down is not sent.
        """
        with self._change:
            self._set_aside = max(0.0, self._set_aside - amount)
            if is_sent:
                self.num_requests += 1
                if input_tokens is None or output_tokens is None:
                    self._spent += amount
                else:
                    self.input_tokens += input_tokens
                    self.output_tokens += output_tokens
                    self._spent += self.price(input_tokens, output_tokens) or 0.0
                    self._ratio = max(self._ratio, input_tokens / max(estimated, 1))
            if self._set_aside < 1e-12:
                self._set_aside = 0.0
            self._change.notify_all()
