"""Beam search with the scores of the reference: every finished hypothesis of every input, best first.

Each step keeps the `beam_size` best continuations by the sum of log-probabilities. Of the best 2 * beam_size, a sentence that
ends counts if it is among the first beam_size; an input is done when it has beam_size of them. The sum includes the log
probability of the language's token, and is divided by (length - 1) ** len_penalty, where the length counts prompt and end.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sign_dist.models.sonar.text_decoder import DecoderState, TextDecoder


@dataclasses.dataclass(frozen=True)
class BeamOptions:
    """How to search; the defaults are the reference's.

    At most max_gen_len[0] * (width of the embedding) + max_gen_len[1] tokens are said: the reference takes the width for the
    length of its source. At least min_gen_len are said, the end counted; `max_seq_len` bounds prompt and sentence together. With
    `echo_prompt` the sentences begin with the prompt.
    The vocabulary's numbers: `end`, `unknown`, which costs `unk_penalty` more, and what is never said. The published model card
    gives the padding the number 1, which is the unknown token's: that one is never said, and the padding, 0, may be.
    """

    beam_size: int = 5
    min_gen_len: int = 1
    max_gen_len: tuple[float, float] = (1, 128)
    max_seq_len: int | None = None
    echo_prompt: bool = False
    len_penalty: float = 1.0
    unk_penalty: float = 0.0
    temperature: float = 1.0
    normalize_scores: bool = True
    end: int = 3
    unknown: int = 1
    forbidden: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.beam_size < 1 or self.min_gen_len < 1:
            raise ValueError(f"need beam_size >= 1 and min_gen_len >= 1, got {self.beam_size} and {self.min_gen_len}")
        if not self.temperature > 0:
            raise ValueError(f"need temperature > 0, got {self.temperature}")
        if min(self.max_gen_len) < 0 or (self.max_seq_len is not None and self.max_seq_len < 1):
            raise ValueError(f"need max_gen_len >= (0, 0) and max_seq_len >= 1, got {self.max_gen_len} and {self.max_seq_len}")
        if self.end in self.forbidden:
            raise ValueError(f"need an end that may be said, got end={self.end} among forbidden={self.forbidden}")


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One sentence: its tokens with the end, its score, what each token added to the sum; the first also what the prompt did."""

    tokens: tuple[int, ...]
    score: float
    step_scores: tuple[float, ...]


@torch.inference_mode()
def beam_search(
    decoder: TextDecoder, embeddings: Tensor, prompt: Sequence[int], options: BeamOptions | None = None
) -> list[list[Hypothesis]]:
    """Sentences of embeddings (B, E), each begun with the prompt: [end, language]. Dropout is for the caller to switch off.

    Raises:
        ValueError: no prompt, or one that leaves no room for a token, or has a token that the decoder does not know;
            embeddings that are no finite numbers.
    """
    options = options or BeamOptions()
    limit = _limit(decoder, embeddings, prompt, options)
    device, beam, vocab = embeddings.device, options.beam_size, decoder.shape.vocab_size
    num_inputs = len(embeddings)
    found: list[list[Hypothesis]] = [[] for _ in range(num_inputs)]
    state = decoder.start(embeddings)
    begun = torch.tensor(prompt, device=device).expand(num_inputs, -1)
    told = torch.zeros(num_inputs, len(prompt), device=device)
    if len(prompt) > 1:
        scores = _scores(decoder, begun[:, :-1], state, options)
        told[:, 1:] = scores.gather(-1, begun[:, 1:, None])[..., 0].cumsum(1)
    # Per input, `width` sequences side by side: one at first, then beam_size. Both hold what a sentence will hold.
    shown = None if options.echo_prompt else 0
    said, path, sums = begun[:, None, :shown], told[:, None, :shown], told[:, -1:]
    active = list(range(num_inputs))
    last = torch.full((num_inputs, 1), prompt[-1], device=device)
    for length in range(len(prompt), limit):
        scores = _scores(decoder, last, state, options)[:, -1]
        _forbid(scores, options, num_said=length - len(prompt), is_last=length == limit - 1)
        width = sums.shape[1]
        totals = (sums[:, :, None] + scores.view(len(active), width, vocab)).flatten(1)
        best, places = totals.topk(min(2 * beam, vocab), dim=1)
        origin, token = places // vocab, places % vocab
        ends = token == options.end
        keep = _finish(found, active, said, path, best, origin, ends, options, length + 1)
        if not keep or length == limit - 1:
            break
        # The first beam_size that go on, in their order.
        order = ends.long().argsort(dim=1, stable=True)[keep, :beam]
        rows = torch.tensor(keep, device=device)
        # With few words there may be fewer: what has ended fills up, and never counts again.
        best = best.masked_fill(ends, -math.inf)
        best, origin, token = (x[rows].gather(1, order) for x in (best, origin, token))
        said, path = (x[rows].gather(1, origin[..., None].expand(-1, -1, x.shape[2])) for x in (said, path))
        said, path = torch.cat([said, token[..., None]], 2), torch.cat([path, best[..., None]], 2)
        state = state.take((rows[:, None] * width + origin).flatten())
        sums, last, active = best, token.reshape(-1, 1), [active[row] for row in keep]
    return [sorted(hypotheses, key=lambda h: h.score, reverse=True) for hypotheses in found]


def _scores(decoder: TextDecoder, tokens: Tensor, state: DecoderState, options: BeamOptions) -> Tensor:
    """Log-probabilities (R, L, V) of what follows each token."""
    logits = decoder.logits(decoder.read(tokens, state))
    return (logits / options.temperature).log_softmax(-1, dtype=torch.float32)


def _limit(decoder: TextDecoder, embeddings: Tensor, prompt: Sequence[int], options: BeamOptions) -> int:
    """Tokens at most, with the prompt."""
    per_source, more = options.max_gen_len
    limits = [decoder.shape.max_len, len(prompt) + int(per_source * embeddings.shape[-1] + more)]
    limit = min(limits if options.max_seq_len is None else [*limits, options.max_seq_len])
    if not 1 <= len(prompt) < limit:
        raise ValueError(f"need a prompt of 1 to {limit - 1} tokens, got {len(prompt)}")
    vocab = decoder.shape.vocab_size
    if not all(0 <= token < vocab for token in (*prompt, options.end, options.unknown, *options.forbidden)):
        raise ValueError(f"need tokens from 0 to {vocab - 1}, got the prompt {list(prompt)} and {options}")
    if not bool(embeddings.isfinite().all()):
        raise ValueError("need finite embeddings, got some that are infinite or no numbers")
    return limit


def _forbid(scores: Tensor, options: BeamOptions, *, num_said: int, is_last: bool) -> None:
    """What may not be said next gets -inf, in place."""
    if is_last:
        end = scores[:, options.end].clone()
        scores.fill_(-math.inf)
        scores[:, options.end] = end
        return
    if num_said + 1 < options.min_gen_len:
        scores[:, options.end] = -math.inf
    scores[:, options.unknown] -= options.unk_penalty
    scores[:, list(options.forbidden)] = -math.inf


def _finish(
    found: list[list[Hypothesis]],
    active: list[int],
    said: Tensor,
    path: Tensor,
    best: Tensor,
    origin: Tensor,
    ends: Tensor,
    options: BeamOptions,
    length: int,
) -> list[int]:
    """Store the sentences that end here; the rows of inputs that go on."""
    keep: list[int] = []
    candidates = zip(active, best.tolist(), origin.tolist(), ends.tolist(), strict=True)
    for row, (number, totals, sources, are_ends) in enumerate(candidates):
        for total, source, is_end in list(zip(totals, sources, are_ends, strict=True))[: options.beam_size]:
            if not is_end or total == -math.inf or len(found[number]) == options.beam_size:
                continue
            sums = [*path[row, source].tolist(), total]
            score = total / (length - 1) ** options.len_penalty if options.normalize_scores else total
            steps = tuple(after - before for before, after in zip([0.0, *sums], sums, strict=False))
            found[number].append(Hypothesis((*said[row, source].tolist(), options.end), score, steps))
        if len(found[number]) < options.beam_size:
            keep.append(row)
    return keep
