"""Ray Data: the answers of a teacher to the clips of a run, asked once and kept in `train.distill.cache`."""

from typing import Any

from ray.data import ActorPoolStrategy

from sign_dist.config.run import Run
from sign_dist.errors import RunError
from sign_dist.features.store import block_name
from sign_dist.on_ray.clips import from_rows
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.tasks.task import Example
from sign_dist.training.data import Clips, ClipSource
from sign_dist.training.distillation import with_unlabelled
from sign_dist.training.teacher import check_teacher, read_teacher
from sign_dist.training.teacher_cache import What, answer_rows, answer_store, kept_kinds, samples_of, unasked

CLIPS_PER_BATCH = 32


def ask_teacher(run: Run) -> int:
    """Fill the cache of a run's teacher; answers how many answers were missing. Nothing to do without a teacher or a cache.

    Raises:
        SettingsError: the teacher does not fit the run.
        RunError: some clips were asked twice and have no answer.
    """
    facts = check_teacher(run) if run.train.distill.cache else None
    if facts is None:
        return 0
    samples = samples_of(_clips_of(run))
    gpus, asked = num_gpus(), 0
    for what in kept_kinds(run.train.distill):
        store = answer_store(run.train.distill.cache, facts, what)
        for _ in range(2):  # what a dying process held is asked once more
            missing = set(unasked(store, (sample.key for sample in samples)))
            rows = [{"index": i} for i, sample in enumerate(samples) if sample.key in missing]
            if not rows:
                break
            asked += len(missing)
            answers = from_rows(rows, CLIPS_PER_BATCH).map_batches(
                _AskRows,
                fn_constructor_kwargs={"run": run, "what": what, "device": "cuda" if gpus else "cpu"},
                batch_size=CLIPS_PER_BATCH,
                compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(gpus or num_cpus(), -(-len(rows) // CLIPS_PER_BATCH)))),
                num_cpus=1 if gpus else 0.7,
                num_gpus=1 if gpus else 0,
            )
            for _ in answers.iter_rows():
                pass
        if left := unasked(store, (sample.key for sample in samples)):
            raise RunError(
                f"teacher {str(facts.where)!r} gave no answer to {len(left)} clips: the process that asked died twice; "
                "look at its log, give it more memory, or leave train.distill.cache empty"
            )
    return asked


def _clips_of(run: Run) -> ClipSource:
    """All that the teacher is asked about in training."""
    return with_unlabelled(Clips.of(run, run.data.train_split), run)


class _AskRows:
    """An actor with the teacher in memory; it commits what it asked itself."""

    def __init__(self, run: Run, what: What, device: str) -> None:
        self._clips = _clips_of(run)
        self._what: What = what
        facts = check_teacher(run)
        assert facts is not None
        self._store = answer_store(run.train.distill.cache, facts, what)
        self._teacher = read_teacher(facts, run, self._clips[0])
        self._teacher.model.to(device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        examples: list[Example] = [self._clips[int(i)] for i in batch["index"]]
        rows = {row["key"]: row for row in answer_rows(self._teacher, examples, self._what)}
        self._store.commit(block_name(rows), list(rows.values()))
        return {"index": batch["index"]}
