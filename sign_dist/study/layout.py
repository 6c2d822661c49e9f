"""StudyDir: every path inside a study directory, and who it belongs to."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.training.run_dir import RunDir


@dataclasses.dataclass(frozen=True)
class StudyDir:
    """A study: `study.json`, `best.json`, `optuna.db`, `study.png`, `tune/` (Ray's files) and a run directory per trial."""

    root: Path

    @property
    def study_file(self) -> Path:
        return self.root / "study.json"

    @property
    def best_file(self) -> Path:
        return self.root / "best.json"

    @property
    def picture_file(self) -> Path:
        return self.root / "study.png"

    @property
    def page_file(self) -> Path:
        return self.root / "study.html"

    @property
    def confirm_file(self) -> Path:
        """What training the best trials again on other seeds has shown."""
        return self.root / "confirm.json"

    @property
    def storage(self) -> str:
        """Address for `optuna-dashboard`."""
        return f"sqlite:///{(self.root / 'optuna.db').absolute()}"

    @property
    def tune(self) -> Path:
        return self.root / "tune"

    def trial(self, trial_id: str) -> RunDir:
        return RunDir(self.root / f"trial_{trial_id}")

    def trials(self) -> list[RunDir]:
        """Those that have begun, and those of which at least is noted why they could not."""
        return [
            RunDir(path)
            for path in sorted({file.parent for name in ("run", "trial") for file in self.root.glob(f"trial_*/{name}.json")})
        ]

    def confirmed(self, name: str, seed: int) -> RunDir:
        """A run that stands beside the search: the settings of a trial, or the default ones, with another seed."""
        return RunDir(self.root / "confirm" / f"{name}_seed_{seed}")

    def bundle(self, number: int) -> Path:
        """Where a trial is exported to."""
        return self.root / "bundles" / f"trial_{number:04d}"

    def facts(self) -> dict[str, Any]:
        """What study.json says.

        Raises:
            RunError: no study lives here, or its record is damaged.
        """
        if not self.study_file.exists():
            raise RunError(
                f"{str(self.root)!r} is no study (it has no study.json): make one with `sign-dist tune JOB SPACE --out {self.root}`"
            )
        try:
            facts = json.loads(self.study_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{str(self.study_file)!r} is damaged ({error}): run the study's own command again") from None
        if not isinstance(facts, dict):
            raise RunError(f"{str(self.study_file)!r} is damaged (it holds no mapping): run the study's own command again")
        return facts

    def claim(self, facts: Mapping[str, Any], same: Sequence[str]) -> bool:
        """Make this directory the study's own; True if this very study, equal in all of `same`, is finished.

        Raises:
            RunError: another study lives here.
        """
        if self.study_file.exists():
            before = self.facts()
            changed = [name for name in same if before.get(name) != facts[name]]
            if changed:
                raise RunError(
                    f"{str(self.root)!r} holds a study with another {' and '.join(changed)}: choose another --out, or remove it"
                )
            if before["finished"]:
                return True
        write_json(self.study_file, dict(facts))
        return False


def domain_text(domain: Any) -> str:
    """A distribution as text that is the same in every process."""
    if hasattr(domain, "categories"):
        return f"choice of {list(domain.categories)}"
    if hasattr(domain, "lower"):
        return f"{type(domain).__name__} {domain.lower} to {domain.upper}, {type(domain.get_sampler()).__name__.strip('_')}"
    return str(domain)
