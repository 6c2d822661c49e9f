"""RunDir: every path inside a run directory."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sign_dist.config.run import Run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError


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

    def eval(self, split: str) -> Path:
        return self.root / "eval" / split

    def checkpoint(self, epoch: int) -> Path:
        return self.root / f"epoch_{epoch:04d}"

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
            names = [n for n in old.keys() | new.keys() if old.get(n) != new.get(n) and not n.startswith("scale.")]
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
        return sorted(found, key=lambda path: (len(path.name), path.name))  # past epoch 9999 names grow longer

    def chosen(self) -> Path:
        """The checkpoint the run stands for: the best by its monitor, or the last, as `train.select` says.

        Raises:
            RunError: there is none yet.
        """
        found = self.checkpoints()
        if not found:
            raise RunError(f"{str(self.root)!r} has no checkpoint yet: run `sign-dist train {self.run_file}` to the end first")
        if self.run().train.select == "last":
            return found[-1]
        return max(found, key=lambda path: progress_of(path)["rank"])

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        if not self.metrics_file.exists():
            return []
        try:
            return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines() if line]
        except ValueError as error:
            raise RunError(f"{str(self.metrics_file)!r} has a line that is no JSON ({error}): remove that line") from None


def progress_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: epoch, step, metrics, and `rank`, larger for better."""
    return _read_json(checkpoint / "progress.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{str(path)!r} is damaged ({error}): remove {path.parent.name!r}, or train again") from None
    if not isinstance(content, dict):
        raise RunError(f"{str(path)!r} is damaged (it holds no mapping): remove {path.parent.name!r}, or train again")
    return content
