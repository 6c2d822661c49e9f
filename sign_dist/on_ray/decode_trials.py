"""Trials that train nothing: a finished run's answers are read out anew, from what its model made of the val clips once."""

import dataclasses
import json
from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.on_ray.cluster import num_cpus
from sign_dist.on_ray.training import OnEpoch
from sign_dist.study.decoded import Encoded, encode, read_out, share_checkpoint
from sign_dist.training.run_dir import RunDir, progress_of


@dataclasses.dataclass(frozen=True)
class Decode:
    """One CPU for each trial. `cache` is written before the first one, and read by all.

    A trial's directory holds the checkpoint of the run that it reads out, so it can be evaluated and exported like any other.
    """

    of: str
    cache: str

    def check(self, run: Run) -> None:
        base = RunDir(Path(self.of))
        if not base.done_file.exists():
            raise RunError(f"{self.of!r} is no finished run: train it to the end, or name another with search.of=RUN")
        cache = Path(self.cache)
        if not cache.exists():
            encoded = encode(base)
            cache.parent.mkdir(parents=True, exist_ok=True)
            encoded.save(cache)

    def needs(self, run: Run) -> dict[str, float]:
        return {"cpu": 1.0}

    def at_once(self, run: Run) -> int:
        return max(1, num_cpus())

    def train(self, run: Run, root: Path, on_epoch: OnEpoch) -> bool:
        run_dir, base = RunDir(root), RunDir(Path(self.of))
        if run_dir.done_file.exists():
            return True
        run_dir.claim(run)
        scores = read_out(base, Encoded.load(Path(self.cache)), run)
        checkpoint = share_checkpoint(base, run_dir)
        progress = progress_of(checkpoint)
        line = {**progress["metrics"], **{f"val/{name}": value for name, value in scores.items()}}
        write_json(checkpoint / "progress.json", progress | {"metrics": line})
        run_dir.metrics_file.write_text(json.dumps(line) + "\n", encoding="utf-8")
        write_json(run_dir.done_file, {"checkpoint": checkpoint.name, "metrics": line})
        on_epoch(line)
        return True

    def stop(self, trial: Path) -> bool:
        return False
