"""A trained vision-language model as a folder in transformers' form: a `model.source` to adapt, or to take elsewhere."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from sign_dist.config.model import VlmModel
from sign_dist.errors import RunError
from sign_dist.inference.bundle import Bundle
from sign_dist.models.seq2seq import UNFILLED


def write_folder(bundle: Bundle, out: Path) -> Path:
    """Weights, config, tokenizer and, where the family has one, image processor of a bundle that holds a whole model.

    Raises:
        RunError: the bundle is of another kind or holds adapters alone; there is something at `out` already.
    """
    facts = bundle.facts()
    if not isinstance(facts.model, VlmModel):
        raise RunError(
            f"the model of bundle {str(bundle.root)!r} is a {facts.model.kind}: "
            "only vision-language models have a form of transformers"
        )
    if facts.base:
        raise RunError(f"bundle {str(bundle.root)!r} holds adapters alone: export its run with --merged first")
    if out.exists():
        raise RunError(f"{str(out)!r} is there already: name a folder that is not")
    model: Any = bundle.weights(facts, device=torch.device("cpu"))
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if facts.model.source:  # what a bundle has of a pretrained model beside its weights
        shutil.copytree(facts.model.source, part, ignore=shutil.ignore_patterns(UNFILLED))
    # On the way deepspeed is asked whose model this is; it would look for a card first, and say that there is none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    model.vlm.save_pretrained(part)
    model.tokens.tokenizer.save_pretrained(part)
    part.rename(out)
    return out
