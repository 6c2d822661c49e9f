"""The part of a report on a model that writes its answer: held to the closed set as isolated signs are, and left free."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from sign_dist.inference.evaluated import Evaluated
from sign_dist.inference.report_islr import islr_part
from sign_dist.metrics.intervals import share_interval
from sign_dist.tasks.answers import Answers

NUM_SAMPLES = 30


def vlm_part(evaluated: Sequence[Evaluated], *, vocabulary: Sequence[str], seed: int, min_signers: int) -> dict[str, Any]:
    """Scores of the closed set, and of the texts where the model wrote some: shares of all clips, failed ones too."""
    part = islr_part(evaluated, vocabulary=vocabulary, seed=seed, min_signers=min_signers)
    part["written"] = None
    if not any(e.written for e in evaluated):
        return part
    answers = Answers(set(vocabulary) | {e.reference for e in evaluated if e.reference})
    first = [answers.label_of(e.written[0]) if e.written else "" for e in evaluated]
    right = [bool(label) and label == e.reference for label, e in zip(first, evaluated, strict=True)]
    unparsable = [bool(e.written) and not label for label, e in zip(first, evaluated, strict=True)]
    beams = max(len(e.written) for e in evaluated)
    among = [e.reference in [answers.label_of(text) for text in e.written[:5]] for e in evaluated]
    agree = [bool(label) and label == e.answer for label, e in zip(first, evaluated, strict=True)]
    rows = {
        "exact_match": (
            "Exact match",
            right,
            True,
            f"{sum(right)} of {len(evaluated)} clips: the text that the model wrote is the gloss.",
        ),
        "unparsable": (
            "Unparsable",
            unparsable,
            False,
            f"{sum(unparsable)} of {len(evaluated)} texts are no gloss of the vocabulary.",
        ),
    }
    if beams > 1:
        most = min(5, beams)
        text = f"{sum(among)} of {len(evaluated)} clips have the right gloss among the first {most} texts of beam search."
        rows["beam_top5"] = (f"Beam top-{most}", among, True, text)
    intervals = {name: dataclasses.asdict(share_interval(values, seed=seed)) for name, (_, values, _, _) in rows.items()}
    part["scores"] += [
        {
            "name": name,
            "title": title,
            "value": sum(values) / len(values),
            "unit": "share",
            "higher_is_better": higher,
            "interval": intervals[name],
            "baseline": None,
            "signature": f"{name}|per instance|beams:{beams}|case:lower|marks:off",
            "text": text,
        }
        for name, (title, values, higher, text) in rows.items()
    ]
    part["intervals"] |= intervals
    texts = collections.Counter((e.reference, e.written[0]) for e, lost in zip(evaluated, unparsable, strict=True) if lost)
    part["written"] = {
        "beams": beams,
        "exact_match": sum(right) / len(right),
        "unparsable": sum(unparsable) / len(unparsable),
        "agrees_with_closed_set": sum(agree) / len(agree),
        "unparsable_texts": [
            {"reference": reference, "text": text, "count": count}
            for (reference, text), count in sorted(texts.items(), key=lambda item: (-item[1], item[0]))
        ],
    }
    return part
