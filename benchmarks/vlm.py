"""Training of a vision-language model with random weights of a given size: tokens per second and peak memory, beside the plan.

    python -m benchmarks.vlm --size 2b                   # on a card: LoRA over bf16, and over 4 bits
    python -m benchmarks.vlm --size tiny --steps 5       # on a processor

Random weights cost what trained ones do, so nothing is downloaded. Each way runs in a process of its own, or the first one's
peak would hide the second's.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

from sign_dist.models.internvl import InternVlPictures, tiny_config, tiny_tokenizer
from sign_dist.models.seq2seq import recompute_layers
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_tokens import VlmTokens
from sign_dist.tasks.closed_set import ClosedSet, rank
from sign_dist.training.vlm_memory import Asked, internvl_config, plan
from sign_dist.transfer.lora import add_adapters, quantise

PROJECTIONS = "language_model.*.q_proj language_model.*.v_proj"
GLOSSES = [f"{first}{second}" for first in ("BOOK", "MILK", "THANK", "RIVER") for second in ("", "-YOU", "CASE", "MAN", "S")]
WAYS = {"bf16-LoRA": "none", "nf4-LoRA": "nf4"}


def measure(size: str, quantize: str, *, steps: int, clips: int, frames: int, width: int) -> dict[str, Any]:
    """One way: mean of the steps after the first two."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    tokenizer = tiny_tokenizer(GLOSSES)
    if size == "tiny":
        config: Any = tiny_config(tokenizer, size_px=64, width=width, depth=4)
    else:
        config = internvl_config(size)
        config.image_token_id = tokenizer.context_image_token_id  # its tokens are among the first of a much larger vocabulary
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    vlm = AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(torch.float32)
    model = SignVlm(vlm, VlmTokens(tokenizer, InternVlPictures(config, tokenizer), "Which sign?"))
    recompute_layers(model.vlm)
    if quantize != "none":
        quantise(model, "nf4", torch.bfloat16)
    add_adapters(model, PROJECTIONS, rank=16, alpha=32.0, dropout=0.1)
    model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    pixels = model.tokens.pictures.size_px  # pyright: ignore[reportAttributeAccessIssue]
    shown = torch.randint(0, 256, (clips, frames, pixels, pixels, 3), dtype=torch.uint8, device=device)
    prompt, answer = model.tokens.prompt_ids(frames), model.tokens.answer(GLOSSES[-1])
    ids = torch.tensor([[*prompt, *answer]] * clips, device=device)
    lengths = torch.full((clips,), frames, device=device)
    times: list[float] = []
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(steps + 2):
        begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(shown, lengths, ids, len(answer) + 1)[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, -len(answer) :].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model.eval()
    labels = ClosedSet({gloss: model.tokens.answer(gloss) for gloss in GLOSSES}, end=model.tokens.end)
    begun = time.perf_counter()
    with torch.inference_mode():
        rank(model, shown, labels)
    scoring_s = (time.perf_counter() - begun) / clips
    step_s = sum(times[2:]) / steps
    asked = Asked(
        quantize=quantize,
        targets=PROJECTIONS,
        frames=frames,
        clips=clips,
        answer=len(answer),
        prompt=len(prompt) - _seen(model, frames),
    )
    planned = plan(config, asked)
    return {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "parameters": planned.parameters,
        "trained": planned.trained,
        "tokens_per_clip": ids.shape[1],
        "step_s": round(step_s, 4),
        "tokens_per_s": round(clips * ids.shape[1] / step_s),
        "scoring_s_per_clip": round(scoring_s, 4),
        "peak_bytes": peak,
        "peak_is": "allocated on the card" if gpu else "resident set of the whole process, Python and libraries included",
        "planned_bytes": planned.training,
        "planned_weights_bytes": planned.weights,
    }


def _seen(model: SignVlm, frames: int) -> int:
    return frames * model.tokens.pictures.per_frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny", help="tiny, 1b, 2b, 4b or 8b")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--width", type=int, default=256, help="of the tiny model")
    parser.add_argument("--way", choices=list(WAYS), default=None, help="only this one, in this process")
    given = parser.parse_args()
    if given.way:
        found = measure(given.size, WAYS[given.way], steps=given.steps, clips=given.clips, frames=given.frames, width=given.width)
        print(json.dumps({"way": given.way, **found}))
        return
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.vlm", *sys.argv[1:], "--way", way], check=True, capture_output=True, text=True
        )
        print(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
