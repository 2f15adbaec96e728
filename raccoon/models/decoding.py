"""Constrained decoding: whatever the model's scores, the text is canonical and ends within the token limit.

`Vocabulary` knows the bytes each token of a tokenizer stands for; `Constraint` walks an automaton of
`raccoon.models.grammars` along the tokens written so far and says which may come next: those that lead to a state from
which the text can still be completed in the tokens that are left. At the limit only the shortest completion is left, so
the text always ends. Which tokens a state allows is computed once and kept; words inside free text, nearly the whole
vocabulary, are not walked byte by byte.

Scores come in and go out as a LogitsProcessor of transformers has them, [B, V] for the ids [B, n] written so far.
Generation from ``inputs_embeds`` hands a processor the new tokens only, and so must any other caller.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raccoon.models.grammars import NAME_EXCLUDED, Fillers, Grammar, Loop, State

_NEVER = 1 << 30
_KEPT_STATES = 4096
_LONGEST = 64
_ALPHANUMERIC = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """The bytes that each id of a tokenizer of transformers adds to a text; None for special tokens.

    Byte-level BPE, SentencePiece (word marks, byte tokens) and tokenizers whose tokens are pieces of the text are read
    from their decoder; where it puts a space between tokens, each token but a suffix begins with it.

    Raises:
        TypeError: if the tokenizer has no fast backend.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TypeError(f"a fast tokenizer is needed to know the bytes of a token, got {type(tokenizer).__name__}")
    decoder = json.dumps(json.loads(backend.to_str()).get("decoder"), ensure_ascii=False)
    special = {int(i) for i in tokenizer.all_special_ids}
    special |= {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    alphabet = {character: byte for byte, character in _byte_alphabet().items()} if "ByteLevel" in decoder else None
    added = backend.get_added_tokens_decoder()
    found: list[bytes | None] = [None] * (max(tokenizer.get_vocab().values(), default=-1) + 1)
    for token, index in tokenizer.get_vocab().items():
        if index in special:
            continue
        if index in added:
            found[index] = token.encode()
        elif alphabet is not None:
            found[index] = bytes(alphabet[c] for c in token) if all(c in alphabet for c in token) else None
        elif "ByteFallback" in decoder and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            found[index] = bytes([int(token[3:5], 16)])
        elif "Metaspace" in decoder or "▁" in decoder:
            found[index] = token.replace("▁", " ").encode()
        elif "Fuse" in decoder:
            found[index] = token.encode()
        elif "WordPiece" in decoder:
            found[index] = token[2:].encode() if token.startswith("##") else f" {token}".encode()
        else:
            found[index] = f" {token}".encode()
    return found


def _byte_alphabet() -> dict[int, str]:
    """The character that stands for each byte in byte-level BPE (GPT-2): itself if printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(0x100 + i) for i, b in enumerate(others)}}


@dataclass(frozen=True, slots=True, eq=False)
class _Words:
    """Tokens that are plain words of a loop: ids [n], whether they begin, and end, with a space; a trie of the rest."""

    ids: NDArray[np.int64]
    begins: NDArray[np.bool_]
    ends: NDArray[np.bool_]
    rest: dict[int, Any]


class Vocabulary:
    """The tokens of a tokenizer as bytes, with the fewest tokens that spell a text.

    Args:
        tokens: bytes of each id, None for ids that never occur in a text (special tokens).
        eos_id: the id that ends a text.
    """

    def __init__(self, tokens: Sequence[bytes | None], eos_id: int) -> None:
        self.tokens = [None if i == eos_id or not token else bytes(token) for i, token in enumerate(tokens)]
        self.eos_id = eos_id
        self.size = max(len(self.tokens), eos_id + 1)
        # The lowest id where several spell the same.
        self.ids: dict[bytes, int] = {}
        for index, token in enumerate(self.tokens):
            if token is not None:
                self.ids.setdefault(token, index)
        self._longest = min(_LONGEST, max((len(token) for token in self.ids), default=0))
        self._costs: dict[bytes, int] = {b"": 0}
        self._tries: dict[str, dict[int, Any]] = {}
        self._words: dict[Loop, _Words] = {}

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """The vocabulary of a tokenizer of transformers. Raises as `token_bytes`."""
        return cls(token_bytes(tokenizer), int(tokenizer.eos_token_id))

    def cost(self, text: bytes) -> int:
        """The fewest tokens that spell ``text``; at least 2**30 if none do."""
        known = next(place for place in range(len(text) + 1) if text[place:] in self._costs)
        for place in range(known - 1, -1, -1):
            best = _NEVER
            for length in range(1, min(self._longest, len(text) - place) + 1):
                if text[place : place + length] in self.ids:
                    best = min(best, self._costs[text[place + length :]] + 1)
            self._costs[text[place:]] = best
        return self._costs[text]

    def first(self, text: bytes) -> int:
        """The id that begins the spelling of ``text`` with the fewest tokens."""
        lengths = [n for n in range(1, min(self._longest, len(text)) + 1) if text[:n] in self.ids]
        return self.ids[text[: min(lengths, key=lambda n: (self.cost(text[n:]), -n))]]

    def trie(self) -> dict[int, Any]:
        """All tokens as nested tables of their bytes; the ids that end at a node stand under -1."""
        if "all" not in self._tries:
            self._tries["all"] = _trie([(token, i) for i, token in enumerate(self.tokens) if token is not None])
        return self._tries["all"]

    def words(self, loop: Loop) -> _Words:
        """The plain words of a loop (ASCII, no two spaces in a row), and a trie of all other tokens."""
        if loop not in self._words:
            allowed = frozenset(range(0x20, 0x7F)) - (frozenset(NAME_EXCLUDED) if loop == "name" else frozenset())
            tokens = [(token, i) for i, token in enumerate(self.tokens) if token is not None]
            plain = [(t, i) for t, i in tokens if allowed.issuperset(t) and b"  " not in t]
            others = {i for _, i in plain}
            self._words[loop] = _Words(
                ids=np.array([i for _, i in plain], dtype=np.int64),
                begins=np.array([t[0] == 0x20 for t, _ in plain], dtype=bool),
                ends=np.array([t[-1] == 0x20 for t, _ in plain], dtype=bool),
                rest=_trie([(t, i) for t, i in tokens if i not in others]),
            )
        return self._words[loop]

    def fillers(self, count: int) -> Fillers:
        """Pieces for text, and at least ``count`` + 1 for names; raises ValueError if the vocabulary lacks them."""
        pieces = [bytes([byte]) for byte in _ALPHANUMERIC]
        pieces = [piece for piece in pieces if self.cost(piece) < _NEVER]
        if len(pieces) <= count:
            pieces = sorted((t for t in self.ids if t.isalnum() and t.isascii()), key=lambda t: (len(t), t))
        names = {piece.lower(): piece for piece in reversed(pieces)}
        texts = [piece for piece in (b".", *pieces[:1]) if self.cost(piece) < _NEVER]
        if len(names) <= count or not texts:
            raise ValueError(
                f"the tokenizer must be able to write {count + 1} different names and one word of text, it has "
                f"{len(names)} alphanumeric tokens"
            )
        return Fillers(min(texts, key=self.cost), tuple(sorted(names.values(), key=lambda t: (self.cost(t), t))))


def _trie(tokens: list[tuple[bytes, int]]) -> dict[int, Any]:
    root: dict[int, Any] = {}
    for token, index in tokens:
        node = root
        for byte in token:
            node = node.setdefault(byte, {})
        node.setdefault(-1, []).append(index)
    return root


@dataclass(frozen=True, slots=True, eq=False)
class _Options:
    """What may follow a state: ids [n], tokens needed from each on [n] (itself and the end token included)."""

    ids: NDArray[np.int64]
    needed: NDArray[np.int64]
    most: int
    guarded: NDArray[np.int64]
    mask: Tensor


class Constraint:
    """Which tokens may come next.

    Args:
        vocabulary: see `Vocabulary.of`; it may be shared, it keeps what it has computed.
        grammar: what the text must be.
        max_new_tokens: the limit, the end token included.

    Raises:
        ValueError: if the tokenizer cannot write such a text, or not within the limit.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: Grammar, max_new_tokens: int) -> None:
        self.vocabulary = vocabulary
        self.grammar = grammar
        self.max_new_tokens = max_new_tokens
        self._fillers = vocabulary.fillers(grammar.num_names)
        self._options: OrderedDict[State, _Options] = OrderedDict()
        self._bounds: dict[State, int] = {}
        self._states: OrderedDict[bytes, State] = OrderedDict()
        least = self.least
        if least >= _NEVER:
            text = grammar.closing(grammar.start, b"", self._fillers)
            raise ValueError(
                f"the tokenizer must be able to write {text.decode()!r:.120}, and no sequence of its tokens does; use "
                "one with a token for each byte or character"
            )
        if max_new_tokens < least:
            raise ValueError(
                f"max_new_tokens must be at least {least}, the tokens of the shortest text, got {max_new_tokens}"
            )

    @property
    def least(self) -> int:
        """Tokens of the shortest text, the end token included."""
        return self.vocabulary.cost(self.grammar.closing(self.grammar.start, b"", self._fillers)) + 1

    def text(self, ids: Sequence[int]) -> str:
        """The text of generated ids, up to the end token, without a space before it."""
        return self._bytes(ids).decode("utf-8", errors="replace").removeprefix(" ")

    def allowed(self, ids: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Which tokens may follow the generated ids; bool [vocabulary] on ``device``, never all False.

        After the end token, or at the limit, only the end token is.

        Raises:
            ValueError: if the ids are no beginning of such a text.
        """
        eos = self.vocabulary.eos_id
        remaining = self.max_new_tokens - len(ids)
        if remaining <= 0 or eos in ids:
            return self._only(eos, device)
        text = self._bytes(ids)
        state = self._walk(text, len(self._piece(ids[-1])) if ids else 0)
        options = self._options_of(state, is_first=not text)
        keep = options.needed <= remaining
        vetoed = [
            i for i in options.guarded if not self.grammar.is_allowed(_lead(text + (self.vocabulary.tokens[i] or b"")))
        ]
        if options.most <= remaining and not vetoed:
            return options.mask.to(device)
        if vetoed:
            keep &= ~np.isin(options.ids, vetoed)
        if not keep.any():
            rest = self.grammar.closing(state, _lead(text), self._fillers)
            return self._only(self.vocabulary.first(rest) if rest else eos, device)
        return self._mask(options.ids[keep]).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] with -inf where a token may not come; ``input_ids`` [B, n] holds the generated ids only."""
        out = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(input_ids.tolist()):
            mask = self.allowed(ids, scores.device)
            size = min(len(mask), scores.shape[1])
            out[row, :size] = scores[row, :size].masked_fill(~mask[:size], -torch.inf)
        return out

    def _bytes(self, ids: Sequence[int]) -> bytes:
        eos = self.vocabulary.eos_id
        written = list(ids)[: list(ids).index(eos)] if eos in ids else ids
        return b"".join(map(self._piece, written))

    def _piece(self, index: int) -> bytes:
        return self.vocabulary.tokens[index] or b""

    def _walk(self, text: bytes, last: int) -> State:
        """The state after ``text``, from where it stood ``last`` bytes ago if that is known."""
        before = text[: len(text) - last]
        state: State | None = self._states.get(before) if last else None
        rest = _lead(text) if state is None else text[len(before) :] if before else _lead(text)
        state = self.grammar.start if state is None else state
        for byte in rest:
            state = self.grammar.step(state, byte) if state is not None else None
        if state is None:
            raise ValueError(f"the text written so far is no beginning of what was asked for: {text[-80:]!r}")
        self._states[text] = state
        if len(self._states) > _KEPT_STATES:
            self._states.popitem(last=False)
        return state

    def _bound(self, state: State) -> int:
        """At most so many tokens end the text from a state, the end token included, whatever the text was."""
        if state not in self._bounds:
            pieces = self.grammar.bound(state, self._fillers)
            self._bounds[state] = min(_NEVER, sum(self.vocabulary.cost(piece) for piece in pieces) + 1)
        return self._bounds[state]

    def _options_of(self, state: State, *, is_first: bool) -> _Options:
        key = (*state, "first") if is_first else state
        found = self._options.get(key)
        if found is not None:
            self._options.move_to_end(key)
            return found
        needed: dict[int, int] = {}
        guarded: list[int] = []
        loop = self.grammar.loop(state)
        ids, costs = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if loop is None:
            trie = self.vocabulary.trie()
            self._descend(trie, state, False, needed, guarded)
            if is_first and 0x20 in trie:
                self._descend(trie[0x20], state, False, needed, guarded)
                needed.update(dict.fromkeys(trie[0x20].get(-1, ()), 1 + self._bound(state)))
        else:
            words = self.vocabulary.words(loop)
            self._descend(words.rest, state, False, needed, guarded)
            spaced, closed = (1 + self._bound(self.grammar.plain(state, ends)) for ends in (True, False))
            fits = ~words.begins if self.grammar.needs_visible(state) else np.ones(len(words.ids), dtype=bool)
            ids, costs = words.ids[fits], np.where(words.ends, spaced, closed)[fits]
        if self.grammar.is_end(state):
            needed[self.vocabulary.eos_id] = 1
        ids = np.concatenate((ids, np.fromiter(needed, dtype=np.int64, count=len(needed))))
        costs = np.concatenate((costs, np.fromiter(needed.values(), dtype=np.int64, count=len(needed))))
        kept = costs < _NEVER
        options = _Options(
            ids=ids[kept],
            needed=costs[kept],
            most=int(costs[kept].max(initial=0)) if kept.any() else _NEVER,
            guarded=np.array(guarded, dtype=np.int64),
            mask=self._mask(ids[kept]),
        )
        self._options[key] = options
        if len(self._options) > _KEPT_STATES:
            self._options.popitem(last=False)
        return options

    def _descend(
        self, node: dict[int, Any], state: State, is_guarded: bool, needed: dict[int, int], guarded: list[int]
    ) -> None:
        for byte, child in node.items():
            if byte < 0:
                continue
            after = self.grammar.step(state, byte)
            if after is None:
                continue
            checked = is_guarded or self.grammar.is_guarded(state, byte)
            for index in child.get(-1, ()):
                needed[index] = 1 + self._bound(after)
                if checked:
                    guarded.append(index)
            self._descend(child, after, checked, needed, guarded)

    def _mask(self, ids: NDArray[np.int64]) -> Tensor:
        mask = torch.zeros(self.vocabulary.size, dtype=torch.bool)
        mask[torch.from_numpy(ids)] = True
        return mask

    def _only(self, index: int, device: torch.device | str) -> Tensor:
        return self._mask(np.array([index], dtype=np.int64)).to(device)


def _lead(text: bytes) -> bytes:
    """The text without the one space that SentencePiece, and the template's joint, put before the first word."""
    return text[1:] if text.startswith(b" ") else text
