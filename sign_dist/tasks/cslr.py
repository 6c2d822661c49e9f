"""CSLR: a sequence of glosses per clip. CTC losses, greedy or prefix beam search, word error rate."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sign_dist.data.vocab import Vocab
from sign_dist.metrics.diagnose import Finding, frames_needed, too_short
from sign_dist.metrics.wer import corpus_errors
from sign_dist.models.cslr import CslrOutputs, alignment_loss
from sign_dist.tasks import ctc
from sign_dist.tasks.islr import Augmentation, pad
from sign_dist.tasks.task import Batch, Example, Monitor, Prediction

logger = logging.getLogger(__name__)

PADDING = -1
"""Fills the targets of a batch behind a label's end."""
TRIES = 4
"""Times that a clip is augmented anew where its label would not fit any more."""

Outputs = CslrOutputs | tuple[Tensor, Tensor]
"""What the models give: logits (B, T', V) and lengths (B,), or those of two classifiers."""


class Cslr:
    """Continuous recognition over a closed vocabulary: class 0 is the CTC blank, gloss i of the vocabulary is class i + 1.

    A clip trains only if its label can be spelled: all its glosses are in the vocabulary, and its steps are as many as the label
    needs (`frames_needed`). Others have weight 0 and loss 0, are named in a warning, and are scored like the rest.

    Args:
        time_stride: steps of a clip that become one of the model's.
        beam: labellings that the prefix beam search keeps; 1 decodes greedily.
        merge: equal neighbours of an answer become one gloss.
        alignment: of a model with two classifiers, draw the one to the other as well (VAC, arXiv 2104.02330).
    """

    monitor = Monitor("val/wer", "min")

    def __init__(
        self,
        vocab: Vocab,
        *,
        time_stride: int,
        beam: int = ctc.WIDTH,
        merge: bool = False,
        alignment: bool = True,
        augment: Augmentation | None = None,
    ) -> None:
        self.vocab, self.time_stride = vocab, time_stride
        self._class = {gloss: i + 1 for i, gloss in enumerate(vocab.glosses)}
        self._beam, self._merge, self._alignment, self._augment = beam, merge, alignment, augment
        self._warned: set[str] = set()

    def collate(self, examples: Sequence[Example], rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        """Pad clips to a batch; `targets` (B, L) are classes, -1 behind a label's end. A gloss that has no class is left out."""
        arrays = [example.features for example in examples]
        if rngs is not None:
            arrays = [self._augmented(example, rng) for example, rng in zip(examples, rngs, strict=True)]
        features, lengths = pad(arrays)
        labels = [[c for gloss in _glosses(e) if (c := self._class.get(gloss))] for e in examples]
        targets = torch.full((len(labels), max(1, *map(len, labels))), PADDING)
        for row, label in zip(targets, labels, strict=True):
            row[: len(label)] = torch.tensor(label, dtype=torch.long)
        trains = [self._trains(example, len(array)) for example, array in zip(examples, arrays, strict=True)]
        return Batch(
            ids=tuple(example.sample.id for example in examples),
            references=tuple(" ".join(_glosses(example)) for example in examples),
            features=features,
            lengths=lengths,
            targets=targets,
            weights=torch.tensor(trains).float(),
        )

    def losses(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Outputs]:
        """CTC in nats per clip, of each classifier; 0 for a clip that cannot train."""
        outputs: Outputs = model(batch.features, batch.lengths)
        named = {"ctc": outputs.logits if isinstance(outputs, CslrOutputs) else outputs[0]}
        if isinstance(outputs, CslrOutputs):
            named["conv_ctc"] = outputs.conv_logits
        trains = batch.weights > 0
        losses = {name: self._ctc(logits, _lengths(outputs), batch.targets) * trains for name, logits in named.items()}
        if self._alignment and isinstance(outputs, CslrOutputs):
            losses["alignment"] = alignment_loss(outputs) * trains
        return losses, outputs

    def decode(self, outputs: Outputs, batch: Batch, k: int = 5) -> list[Prediction]:
        """The `k` most probable labellings of each clip, glosses with blanks between them; see `Prediction.measures`.

        Measures: `steps`, the share of them whose best class is the `blank`, and `fits`: 0 where the label needs more steps.
        """
        logits, lengths = outputs.logits if isinstance(outputs, CslrOutputs) else outputs[0], _lengths(outputs).cpu()
        log_probs = logits.detach().float().log_softmax(dim=-1).cpu()
        if self._beam == 1:
            found = [[best] for best in ctc.greedy(log_probs, lengths, merge_after=self._merge)]
        else:
            found = ctc.beam_search(log_probs, lengths, width=self._beam, num_best=min(k, self._beam), merge_after=self._merge)
        blank = (log_probs.argmax(dim=-1) == ctc.BLANK).int().cumsum(dim=1)
        predictions: list[Prediction] = []
        for row, (answers, steps, reference) in enumerate(zip(found, lengths.tolist(), batch.references, strict=True)):
            scores = tuple((self._text(answer.labels), float(np.exp(answer.log_prob))) for answer in answers)
            measures = {
                "steps": float(steps),
                "blank": float(blank[row, steps - 1]) / steps,
                "fits": float(frames_needed(reference.split()) <= steps),
            }
            predictions.append(Prediction(scores[0][0] if scores else "", scores, measures))
        return predictions

    def score(self, references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Word error rate and its parts, in percent of the references' words; percent of steps that are blank, and of clips that
        are answered with nothing; and the number of clips whose label does not fit into their steps."""
        errors = corpus_errors(references, [p.hypothesis for p in predictions])
        words = max(errors.num_words, 1)  # of clips that all show nothing, each gloss answered counts as one error of one word
        steps = [(p.measures.get("steps", 0.0), p.measures.get("blank", 0.0)) for p in predictions]
        num_steps = sum(n for n, _ in steps)
        empty = sum(bool(r.strip()) and not p.hypothesis for r, p in zip(references, predictions, strict=True))
        return {
            "wer": 100.0 * errors.errors / words,
            "substitutions": 100.0 * errors.substitutions / words,
            "deletions": 100.0 * errors.deletions / words,
            "insertions": 100.0 * errors.insertions / words,
            "blank": 100.0 * sum(n * share for n, share in steps) / num_steps if num_steps else 0.0,
            "empty": 100.0 * empty / max(len(references), 1),
            "too_short": float(sum(not p.measures.get("fits", 1.0) for p in predictions)),
        }

    def findings(self, examples: Iterable[Example]) -> list[Finding]:
        """Which clips are too short for their label, before anything is trained; nothing where all fit."""
        clips = [(e.sample.id, self._steps(len(e.features)), _glosses(e)) for e in examples]
        return too_short([c[0] for c in clips], [c[1] for c in clips], [c[2] for c in clips])

    def _augmented(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """A variant whose label still fits, or the clip as it is: faster signing must not make a label impossible."""
        if self._augment is not None:
            for _ in range(TRIES):
                changed = self._augment(example.features, rng)
                if self._steps(len(changed)) >= frames_needed(_glosses(example)):
                    return changed
        return example.features

    def _trains(self, example: Example, num_frames: int) -> bool:
        glosses = _glosses(example)
        unknown = [gloss for gloss in glosses if gloss not in self._class]
        steps, need = self._steps(num_frames), frames_needed(glosses)
        if steps < need and example.sample.id not in self._warned:
            self._warned.add(example.sample.id)
            logger.warning(
                "clip %s does not train: its label needs %d steps and it has %d; sample more frames a second or lower "
                "model.time_stride",
                example.sample.id,
                need,
                steps,
            )
        return steps >= need and not unknown

    def _steps(self, num_frames: int) -> int:
        return -(-num_frames // self.time_stride)

    def _ctc(self, logits: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        known = targets != PADDING
        log_probs = logits.float().log_softmax(dim=-1)
        # A label that does not fit would cost infinitely much, and its gradient is no number.
        return ctc.ctc_losses(log_probs, lengths, targets.masked_fill(~known, 0), known.sum(dim=1), zero_infinity=True)

    def _text(self, labels: Sequence[int]) -> str:
        return " ".join(self.vocab.glosses[label - 1] for label in labels)


def _glosses(example: Example) -> list[str]:
    return example.sample.gloss.split()


def _lengths(outputs: Outputs) -> Tensor:
    return outputs.lengths if isinstance(outputs, CslrOutputs) else outputs[1]
