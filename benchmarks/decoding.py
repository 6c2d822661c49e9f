"""CTC beam search: ours against every pip-installable decoder that is here, and against pure Python, on the same outputs.

As many sentences, steps and classes as the test set of RWTH-PHOENIX-Weather 2014 has after a network that keeps every fourth frame.
The outputs are drawn: each step prefers the blank or a gloss of a sentence, more or less clearly, so that the best path and the
best labelling differ in many sentences. Width 10, no language model, one thread. Decoders take turns, and each one's best time
counts. Only those that are installed are timed: `pip install fast-ctc-decode flashlight-text ctc-beam-decoder pyctcdecode`.

    python benchmarks/decoding.py [--sentences N] [--classes V] [--repeat N]

`same` is the share of sentences in which a decoder gives the labelling that ours gives: decoders prune in different ways. Of the
others, `ours better` counts those in which ours is the more probable one, by the exact sum over all paths.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sign_dist.tasks import ctc

Labels = tuple[int, ...]
Decoder = Callable[[Sequence[np.ndarray]], list[Labels]]
"""(T, V) log-probabilities of each sentence -> labellings."""

WIDTH = ctc.WIDTH
SENTENCES, CLASSES = 629, 1296
"""Of the test set of RWTH-PHOENIX-Weather 2014, and of its glosses with the blank."""
FEW, VERY_FEW = 60, 3
"""What decodes one sentence after the other is timed on the first of them, what tries every class on fewer still."""
CUT = 7e-4


def draw_outputs(num: int, classes: int, seed: int = 0) -> list[np.ndarray]:
    """Log-probabilities (T, V) like those of a trained network that is often unsure between a few glosses."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        steps = int(np.clip(rng.normal(35, 12), 8, 75))
        scores = rng.standard_normal((steps, classes)).astype(np.float32)
        scores[:, 0] += rng.uniform(4, 9, steps)
        for start in range(1, steps - 1, 3):
            for gloss in rng.integers(1, classes, 3):
                scores[start : start + 2, gloss] += rng.uniform(3, 9)
        found.append(np.asarray(torch.from_numpy(scores).log_softmax(dim=-1)))
    return found


def ours(outputs: Sequence[np.ndarray]) -> list[Labels]:
    lengths = torch.tensor([len(x) for x in outputs])
    padded = torch.zeros((len(outputs), int(lengths.max()), outputs[0].shape[1]))
    for row, x in zip(padded, outputs, strict=True):
        row[: len(x)] = torch.from_numpy(x)
    return [found[0].labels for found in ctc.beam_search(padded, lengths, width=WIDTH)]


def ours_one_by_one(outputs: Sequence[np.ndarray]) -> list[Labels]:
    return [ours([x])[0] for x in outputs]


def letters(classes: int) -> list[str]:
    """One character per class, far from blanks and marks that text decoders treat in a way of their own."""
    return ["", *(chr(0x4E00 + k) for k in range(1, classes))]


def of_text(text: str) -> Labels:
    return tuple(ord(character) - 0x4E00 for character in text)


def fast_ctc_decode(outputs: Sequence[np.ndarray], cut: float = 0.0) -> list[Labels]:
    """Of each step it tries the classes more probable than `cut`, which has to be below one in their number."""
    search = importlib.import_module("fast_ctc_decode").beam_search
    names = ["_", *letters(outputs[0].shape[1])[1:]]
    return [of_text(search(np.exp(x), names, beam_size=WIDTH, beam_cut_threshold=cut)[0]) for x in outputs]


def flashlight(outputs: Sequence[np.ndarray]) -> list[Labels]:
    lib = importlib.import_module("flashlight.lib.text.decoder")
    classes = outputs[0].shape[1]
    options = lib.LexiconFreeDecoderOptions(
        beam_size=WIDTH, beam_size_token=WIDTH + 2, beam_threshold=1e9, lm_weight=0.0, sil_score=0.0, log_add=True,
        criterion_type=lib.CriterionType.CTC,
    )  # fmt: skip
    decoder = lib.LexiconFreeDecoder(options, lib.ZeroLM(), -1, 0, [])
    found = []
    for x in outputs:
        best = decoder.decode(x.ctypes.data, len(x), classes)[0]
        tokens = [token for token in best.tokens if token >= 0]
        found.append(tuple(c for i, c in enumerate(tokens) if c != 0 and (i == 0 or tokens[i - 1] != c)))
    return found


def ctc_beam_decoder(outputs: Sequence[np.ndarray]) -> list[Labels]:
    decoder = importlib.import_module("ctc_beam_decoder").BeamSearchDecoder(letters(outputs[0].shape[1]))
    return [of_text(decoder.decode(x, beam_width=WIDTH)) for x in outputs]


def pyctcdecode(outputs: Sequence[np.ndarray]) -> list[Labels]:
    decoder = importlib.import_module("pyctcdecode").build_ctcdecoder(letters(outputs[0].shape[1]))
    return [of_text(decoder.decode(x, beam_width=WIDTH)) for x in outputs]


def pure_python(outputs: Sequence[np.ndarray], classes_a_step: int = 0) -> list[Labels]:
    """Prefix beam search with dictionaries, over all classes or the most probable ones of each step."""
    from math import exp, inf, log1p

    def add(a: float, b: float) -> float:
        low, high = (a, b) if a < b else (b, a)
        return high if low == -inf else high + log1p(exp(low - high))

    found = []
    for x in outputs:
        beam: dict[Labels, tuple[float, float]] = {(): (0.0, -inf)}
        for frame in x.tolist():
            tried = (
                sorted(range(1, len(frame)), key=frame.__getitem__)[-classes_a_step:] if classes_a_step else range(1, len(frame))
            )
            new: dict[Labels, tuple[float, float]] = {}
            for prefix, (blank, label) in beam.items():
                total = add(blank, label)
                old = new.get(prefix, (-inf, -inf))
                again = label + frame[prefix[-1]] if prefix else -inf
                new[prefix] = (add(old[0], total + frame[0]), add(old[1], again))
                for c in tried:
                    longer = (*prefix, c)
                    old = new.get(longer, (-inf, -inf))
                    grown = (blank if prefix and prefix[-1] == c else total) + frame[c]
                    new[longer] = (old[0], add(old[1], grown))
            beam = dict(sorted(new.items(), key=lambda item: -add(*item[1]))[:WIDTH])
        found.append(next(iter(beam)))
    return found


def exact(output: np.ndarray, labels: Labels) -> float:
    """Log-probability of a labelling, of all its paths."""
    return ctc.log_prob_of(torch.from_numpy(output)[None], torch.tensor([len(output)]), [labels])[0]


def compare(*, sentences: int = SENTENCES, classes: int = CLASSES, repeat: int = 3) -> None:
    """Print what each decoder takes, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    outputs = draw_outputs(sentences, classes)
    decoders: dict[str, tuple[Decoder, int]] = {
        "ours, all at once": (ours, sentences),
        "ours, one by one": (ours_one_by_one, FEW),
        "fast-ctc-decode": (fast_ctc_decode, VERY_FEW),
        f"fast-ctc-decode, above {CUT:g}": (lambda x: fast_ctc_decode(x, CUT), VERY_FEW),
        "flashlight-text": (flashlight, sentences),
        "ctc-beam-decoder": (ctc_beam_decoder, FEW),
        "pyctcdecode": (pyctcdecode, FEW),
        "pure Python, 12 best classes": (lambda x: pure_python(x, WIDTH + 2), FEW),
        "pure Python, all classes": (pure_python, VERY_FEW),
    }
    seconds: dict[str, float] = {}
    answers: dict[str, list[Labels]] = {}
    for _ in range(repeat):
        for name, (decoder, num) in decoders.items():
            some = outputs[:num]
            try:
                began = time.process_time()
                answers[name] = decoder(some)
                took = (time.process_time() - began) / len(some)
            except ImportError:
                continue
            seconds[name] = min(seconds.get(name, took), took)
            print(f"  {name}: {1000 * took:.3f} ms", file=sys.stderr, flush=True)
    torch.set_num_threads(threads)
    base = seconds["ours, all at once"]
    truth = answers["ours, all at once"]
    unlike = sum(
        ctc.greedy(torch.from_numpy(x)[None], torch.tensor([len(x)]))[0].labels != t for x, t in zip(outputs, truth, strict=True)
    )
    print(f"{sentences} sentences, {classes} classes, {sum(map(len, outputs)) / len(outputs):.0f} steps each on average;")
    print(f"the best labelling is not the best path's in {unlike}; width {WIDTH}, one thread, best of {repeat}")
    print(f"{'decoder':<30} {'ms a sentence':>13} {'times ours':>10} {'same':>6} {'ours better':>14}")
    for name, took in seconds.items():
        unlike_ours = [(x, t, a) for x, t, a in zip(outputs, truth, answers[name], strict=False) if a != t]
        same = 1 - len(unlike_ours) / len(answers[name])
        better = sum(exact(x, t) > exact(x, a) for x, t, a in unlike_ours)
        told = f"{better} of {len(unlike_ours)}" if unlike_ours else "-"
        print(f"{name:<30} {1000 * took:>13.3f} {took / base:>10.1f} {same:>6.1%} {told:>14}")
    missing = [name for name in decoders if name not in seconds]
    if missing:
        print(f"not installed: {', '.join(missing)}")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sentences", type=int, default=SENTENCES)
    words.add_argument("--classes", type=int, default=CLASSES)
    words.add_argument("--repeat", type=int, default=3)
    asked = words.parse_args()
    compare(sentences=asked.sentences, classes=asked.classes, repeat=asked.repeat)


if __name__ == "__main__":
    main()
