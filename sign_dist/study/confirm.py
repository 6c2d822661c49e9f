"""A winner one can trust: the best trials and the default settings trained again on seeds that the search never saw.

The best of many trials is too good by construction: it was chosen on val, with its luck. So the settings of the best few are
trained again, beside the default ones, each with the same fresh seeds. The mean of these runs on val chooses the winner among
the few. Then, once, the winner is held against the default settings on test, by the tests of `inference.compare`: of each clip
counts the mean over the seeds. A win must be larger than what chance shows among the clips, and there with every seed.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.errors import RunError
from sign_dist.inference.compare import LEVEL, compare
from sign_dist.inference.evaluated import Evaluated, read_predictions, write_predictions
from sign_dist.inference.sides import Side
from sign_dist.inference.units import value_of
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import name_of, rows_of
from sign_dist.tasks.build import build_task, monitor_of, reference_of, vocab_of
from sign_dist.training.data import Clips
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.start import trained_model

DEFAULT = "default"
SPLITS = ("val", "test")


@dataclasses.dataclass(frozen=True)
class Repeat:
    """One run of a confirmation: settings of a trial, or the default ones, with a seed that the search never saw."""

    name: str
    seed: int
    run: Run
    run_dir: RunDir

    @property
    def is_done(self) -> bool:
        return self.run_dir.done_file.exists() and all(_answers(self.run_dir, split).exists() for split in SPLITS)


def plan(study: StudyDir, *, top: int, seeds: int) -> list[Repeat]:
    """The runs that a confirmation needs, the default settings first; those that are done are among them.

    Raises:
        RunError: there is no study, it has not ended, or no trial of it ended well.
    """
    facts = study.facts()
    if not facts.get("finished"):
        raise RunError(f"the study {str(study.root)!r} has not ended: run its own command again, then confirm its winner")
    ranked = sorted((row for row in rows_of(study) if row.score is not None), key=lambda row: -(row.score or 0.0))
    if not ranked:
        raise RunError(f"no trial of {str(study.root)!r} ended well: there is no winner to confirm")
    base = Run.from_tree(facts["run"])
    candidates: dict[str, Mapping[str, Any]] = {DEFAULT: {}}
    known = {base.digest()}  # a search may try the default settings, too
    for row in ranked:
        digest = base.with_values(row.settings).digest()
        if digest not in known and len(candidates) <= top:
            known.add(digest)
            candidates[name_of(row)] = row.settings
    if len(candidates) < 2:
        raise RunError(f"no trial of {str(study.root)!r} differs from the default settings: there is nothing to confirm")
    found: list[Repeat] = []
    for seed in fresh_seeds(study, seeds):
        for name, settings in candidates.items():
            run = base.with_values({**settings, "train.seed": seed})
            found.append(Repeat(name, seed, run, study.confirmed(name, seed)))
    return sorted(found, key=lambda repeat: (list(candidates).index(repeat.name), repeat.seed))


def fresh_seeds(study: StudyDir, count: int) -> list[int]:
    """Seeds above all that any trial was trained with, the same each time they are asked for."""
    used = [trial.run().train.seed for trial in study.trials() if trial.run_file.exists()]
    first = max([int(study.facts()["run"]["train"]["seed"]), *used]) + 1
    return list(range(first, first + count))


def answer(run_dir: RunDir) -> None:
    """Let an ended run answer val and test; what it answers stands in `answers/` in its directory."""
    run, chosen = run_dir.run(), run_dir.chosen()
    dataset = DatasetDir(Path(run.data.root))
    vocab = vocab_of(run.task, dataset)
    task = build_task(run, vocab)
    for split, name in zip(SPLITS, _names(run), strict=True):
        clips = Clips.of(run, name)
        model = trained_model(run, chosen, clips[0].features.shape[1:])
        predictions = evaluate(model, task, clips, batch_size=run.train.batch_size).predictions
        hypotheses = {sample.id: p.hypothesis for sample, p in zip(clips.samples, predictions, strict=True)}
        reasons = {sample.id: reason for sample, reason in clips.failed}
        rows = [
            Evaluated(
                sample.id,
                reference_of(run.task, sample),
                hypotheses.get(sample.id, ""),
                signer=sample.signer,
                error=reasons.get(sample.id, ""),
            )
            for sample in read_manifest(dataset, name)
        ]
        write_predictions(_answers(run_dir, split), rows)


def confirm(study: StudyDir, repeats: Sequence[Repeat]) -> dict[str, Any]:
    """Hold the runs against each other and write confirm.json; answers its content.

    Raises:
        RunError: a run is not done.
    """
    missing = [f"{repeat.name} with seed {repeat.seed}" for repeat in repeats if not repeat.is_done]
    if missing:
        raise RunError(f"{len(missing)} runs are not done, such as {missing[0]}: run `sign-dist confirm {study.root}` again")
    by_name: dict[str, list[Repeat]] = {}
    for repeat in repeats:
        by_name.setdefault(repeat.name, []).append(repeat)
    run = repeats[0].run
    monitor = monitor_of(run)
    values = {name: [_value(repeat.run_dir, monitor.name) for repeat in mine] for name, mine in by_name.items()}
    means = {name: statistics.fmean(each) for name, each in values.items()}
    better = max if monitor.mode == "max" else min
    winner = better((name for name in by_name if name != DEFAULT), key=means.__getitem__)
    found = {
        split: compare([_side(name, mine, split) for name, mine in by_name.items()], split=named, pairs="first")
        for split, named in zip(SPLITS, _names(run), strict=True)
    }
    rows = {name_of(row): row for row in rows_of(study)}
    (pair,) = [pair for pair in found["test"]["pairs"] if pair["second"] == winner]
    unit = found["test"]["measures"][0]["unit"]
    on_test = {side["name"]: side["scores"][0] for side in found["test"]["sides"]}
    trusted, verdict = judge(
        winner,
        pair["scores"][0],
        first=on_test[DEFAULT],
        second=on_test[winner],
        unit=unit,
        title=found["test"]["measures"][0]["title"],
        beats_on_val=better(means[winner], means[DEFAULT]) == means[winner] and means[winner] != means[DEFAULT],
    )
    content = {
        "metric": monitor.name,
        "mode": monitor.mode,
        "seeds": sorted({repeat.seed for repeat in repeats}),
        "winner": winner,
        "trusted": trusted,
        "verdict": verdict,
        "test": pair["scores"][0],
        "unit": unit,
        "title": found["test"]["measures"][0]["title"],
        "candidates": [
            {
                "name": name,
                "settings": rows[name].settings if name in rows else {},
                "in_study": rows[name].value if name in rows else None,
                "on_val": values[name],
                "val": found["val"]["sides"][i]["scores"][0],
                "test": on_test[name],
            }
            for i, name in enumerate(by_name)
        ],
        "warnings": found["test"]["warnings"],
    }
    write_json(study.confirm_file, content)
    return content


def read_confirmation(study: StudyDir) -> dict[str, Any] | None:
    """The content of confirm.json; None where nothing was confirmed."""
    return json.loads(study.confirm_file.read_text(encoding="utf-8")) if study.confirm_file.exists() else None


def judge(
    winner: str,
    test: Mapping[str, Any],
    *,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    unit: Any,
    title: str,
    beats_on_val: bool,
) -> tuple[bool, str]:
    """(whether the win can be trusted, the sentence that says so).

    `test` is a score of a pair of `inference.compare`, `first` and `second` are its sides: the default settings and the winner.
    p is not corrected for the number of candidates: the winner among them was chosen on val, and test was asked once.
    """
    n = len(second["runs"])
    what = f"{title} {value_of(unit, first['value'])} with the default settings, {value_of(unit, second['value'])} with {winner}"
    told = f"{what}, on test, {n} fresh seed{'s' if n != 1 else ''}, p {test['p']:.3f}"
    if not beats_on_val:
        return False, f"The win is noise: with fresh seeds the default settings are no worse on val than {winner} ({told})."
    if test["better"] != "second" or test["p"] >= LEVEL:
        return False, f"The win may be noise: these clips cannot tell {winner} from the default settings ({told})."
    higher = second["value"] > first["value"]  # is better, since the second is
    ahead = sum((b > a) == higher and a != b for a, b in zip(first["runs"], second["runs"], strict=True))
    if ahead < n or n < 2:
        few = "one seed is no sample of seeds" if n < 2 else f"it is ahead with {ahead} of {n} seeds only"
        return False, f"{winner} looks better than the default settings, but {few}: confirm it with more ({told})."
    return True, f"{winner} is better than the default settings, with each of {n} seeds ({told})."


def _side(name: str, repeats: Sequence[Repeat], split: str) -> Side:
    clips = tuple(tuple(sorted(read_predictions(_answers(r.run_dir, split)), key=lambda clip: clip.id)) for r in repeats)
    dataset = DatasetDir(Path(repeats[0].run.data.root)).facts()
    facts = {"dataset": {"text_language": dataset.get("text_language", "")}, "model": {"kind": repeats[0].run.model.kind}}
    report = {"task": repeats[0].run.task, "failed": sum(bool(clip.error) for clip in clips[0]), "warnings": [], "facts": facts}
    return Side(name, (report,) * len(clips), clips)


def _value(run_dir: RunDir, name: str) -> float:
    """The monitor at the checkpoint that the run stands for."""
    return float(progress_of(run_dir.chosen())["metrics"][name])


def _names(run: Run) -> tuple[str, str]:
    """The splits as the run calls them; the search saw val, and nobody has seen test."""
    return run.data.val_split, "test"


def _answers(run_dir: RunDir, split: str) -> Path:
    return run_dir.root / "answers" / f"{split}.jsonl"
