"""RunDir: every path inside a run directory."""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

from sign_dist.config.run import Run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunDir:
    """One run: its settings, what it measured, its checkpoints, its reports."""

    root: Path

    @property
    def run_file(self) -> Path:
        return self.root / "run.json"

    @property
    def environment_file(self) -> Path:
        return self.root / "environment.json"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def steps_file(self) -> Path:
        """A line for each step, where `train.trace` asks for it."""
        return self.root / "steps.jsonl"

    @property
    def parts_file(self) -> Path:
        """There when a step had to be computed in more parts than the run asks for."""
        return self.root / "parts.json"

    @property
    def curves_file(self) -> Path:
        return self.root / "curves.png"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def done_file(self) -> Path:
        """Written when training came to its end; until then the same command goes on."""
        return self.root / "done.json"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def sizes_file(self) -> Path:
        """How much of the model trained."""
        return self.root / "sizes.json"

    def sizes(self) -> dict[str, Any]:
        """What `sizes_file` says; nothing of a run that was not trained to its end."""
        return _read_json(self.sizes_file) if self.sizes_file.exists() else {}

    @property
    def stop_file(self) -> Path:
        """Whoever puts it there asks the run to end after its step, with a checkpoint."""
        return self.root / "stop"

    def eval(self, split: str) -> Path:
        return self.root / "eval" / split

    def checkpoint(self, epoch: int, done_steps: int = 0) -> Path:
        """The checkpoint after so many epochs, and so many steps of the next one."""
        return self.root / (f"epoch_{epoch:04d}" + (f"_step_{done_steps:06d}" if done_steps else ""))

    def claim(self, run: Run) -> bool:
        """Make this directory the run's own. True if the same run was begun here before and goes on.

        Raises:
            RunError: another run lives here.
        """
        if not self.run_file.exists():
            write_json(self.run_file, run.model_dump(mode="json"))
            return False
        before = self.run()
        if before.digest() != run.digest():
            old, new = before.flat(), run.flat()
            uncounted = ("scale.", "train.cache_")
            names = [n for n in old.keys() | new.keys() if old.get(n) != new.get(n) and not n.startswith(uncounted)]
            # Of another kind most settings differ; the kind says it all, so it comes first.
            names.sort(key=lambda n: (not n.endswith(".kind"), n))
            changed = ", ".join(f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in names[:4])
            raise RunError(
                f"{str(self.root)!r} holds a run with other settings ({changed}): choose another --out, or remove the directory"
            )
        return True

    def run(self) -> Run:
        """The resolved settings.

        Raises:
            RunError: no run lives here.
        """
        if not self.run_file.exists():
            raise RunError(
                f"{str(self.root)!r} is no run directory (it has no run.json): train with `sign-dist train JOB --out {self.root}`"
            )
        return Run.from_tree(_read_json(self.run_file))

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = (p.parent for p in self.root.glob("epoch_*/progress.json"))
        return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])

    def chosen(self) -> Path:
        """The checkpoint the run stands for: the best by its monitor, or the last, as `train.select` says.

        Raises:
            RunError: there is none yet.
        """
        found = self.checkpoints()
        if not found:
            raise RunError(f"{str(self.root)!r} has no checkpoint yet: run `sign-dist train {self.run_file}` to the end first")
        ranks = {path: progress_of(path)["rank"] for path in found}
        evaluated = [path for path in found if ranks[path] is not None]
        if not evaluated or self.run().train.select == "last":
            return (evaluated or found)[-1]
        return max(evaluated, key=lambda path: ranks[path])

    def parts(self, run: Run) -> int:
        """Micro-batches that a step is computed in: as the run says, or more since memory was short."""
        return int(_read_json(self.parts_file)["parts"]) if self.parts_file.exists() else run.parts

    def more_parts(self, run: Run, parts: int) -> None:
        """From now on twice as many micro-batches, of half the clips each.

        Raises:
            RunError: there can be no more of them.
        """
        more = min(parts * 2, run.train.batch_size)
        if more <= parts:
            raise RunError(
                f"memory is too short for one clip at a time (train.parts = {parts} of {run.train.batch_size} clips): "
                "use a smaller model, shorter clips or train.precision=bf16"
            )
        logger.warning("memory was too short: the %d clips of a step are now computed in %d parts", run.train.batch_size, more)
        write_json(self.parts_file, {"parts": more, "before": parts})

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        if not self.metrics_file.exists():
            return []
        try:
            return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines() if line]
        except ValueError as error:
            raise RunError(f"{str(self.metrics_file)!r} has a line that is no JSON ({error}): remove that line") from None


def progress_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: epoch, step, metrics, digests, and `rank`: larger for better, None if not evaluated."""
    return _read_json(checkpoint / "progress.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        raise RunError(f"{str(path)!r} is damaged ({error}): remove {path.parent.name!r}, or train again") from None
    if not isinstance(content, dict):
        raise RunError(f"{str(path)!r} is damaged (it holds no mapping): remove {path.parent.name!r}, or train again")
    return content
