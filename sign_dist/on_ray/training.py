"""Ray Train: TorchTrainer around training.loop.fit. Workers that die are replaced and go on from the last checkpoint.

Checkpoints and metrics are written into the run directory by the first rank, by the same code as without Ray, so a run
directory always looks the same; Ray's own files lie in `ray/` inside it. On several machines it must be on storage that
all of them see.
"""

import contextlib
import gc
import logging
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.execution.context import get_train_context

from sign_dist import errors
from sign_dist.config.model import WEIGHT_FILES
from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.leaks import refuse_leaks
from sign_dist.errors import InterruptedRunError, RunError, ServiceError, SignDistError
from sign_dist.metrics.diagnose import Finding
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.on_ray.prefix import ensure_prefix
from sign_dist.on_ray.teacher import ask_teacher
from sign_dist.tasks.build import build_task, vocab_of
from sign_dist.tasks.cslr import Cslr
from sign_dist.training.adapt import sizes_of
from sign_dist.training.batches import Step
from sign_dist.training.checkpoint import LocalCheckpoints
from sign_dist.training.curves import plot_curves
from sign_dist.training.data import Clips
from sign_dist.training.device import device_of, use_tf32
from sign_dist.training.distillation import begin_distillation
from sign_dist.training.loop import OnStep, fit
from sign_dist.training.meter import measure
from sign_dist.training.prefix import begin_prefix, caches_of
from sign_dist.training.profiling import Profiled
from sign_dist.training.record import Trace, write_environment
from sign_dist.training.run_dir import RunDir
from sign_dist.training.sinks import open_sinks
from sign_dist.training.start import Taken, first_model, with_absolute_files
from sign_dist.training.step import StepResult
from sign_dist.training.strategies import build_strategy
from sign_dist.training.strategy import Strategy
from sign_dist.training.teacher import check_teacher, with_absolute_teacher

OnEpoch = Callable[[dict[str, float]], None]

logger = logging.getLogger(__name__)


def train(
    run: Run, root: Path, *, on_taken: Callable[[Taken], None] | None = None, on_epoch: OnEpoch | None = None
) -> dict[str, Any]:
    """Train a run into its directory, or go on where it stopped; a finished run is left alone. Answers the last metrics.

    A file `stop` in the directory ends it after the step, with a checkpoint; without the file the same call goes on.
    `on_taken` is told what the run takes from pretrained weights, before it starts.

    Raises:
        WeightsError: they are missing, damaged or another model's.
        RunError: the directory holds another run, or workers died more often than `scale.max_failures` allows.
        DataError: the dataset, a split or its features are missing.
        ServiceError: the cluster lacks the CPUs or GPUs asked for.
    """
    taken: list[Taken] = []
    run_dir, run, clips = begin(run, root, on_taken=taken.append)
    if run_dir.done_file.exists():
        return run_dir.metrics()[-1]
    if on_taken is not None:
        for each in taken:
            on_taken(each)
    use_gpu = _wants_gpu(run)
    _check_resources(run, use_gpu)
    ask_teacher(run)
    ensure_prefix(run)
    facts = {**facts_of(run, *clips), "device": "gpu" if use_gpu else "cpu", "weights": [str(each) for each in taken]}
    for finding in facts["findings"]:
        logger.warning("%s: %s", run.data.train_split, finding)
    write_environment(run_dir, facts)
    shutil.rmtree(run_dir.root / "ray", ignore_errors=True)  # of an attempt that died; our checkpoints are what counts
    scale = run.scale
    resources = {"CPU": scale.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"run": run.model_dump(mode="json"), "root": str(run_dir.root)},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=300),
        scaling_config=ScalingConfig(
            num_workers=(scale.min_workers, scale.workers) if scale.min_workers else scale.workers,
            use_gpu=use_gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=scale.resize_s,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run_dir.root),
            failure_config=FailureConfig(max_failures=scale.max_failures),
        ),
    )
    try:
        with following(_Told(run_dir, on_epoch) if on_epoch else None, every_s=0.5):
            answer: Any = trainer.fit().return_value
    except SystemExit:  # how Ray Train ends a process that was told to stop by Ctrl-C
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        raise RunError(
            f"training {str(run_dir.root)!r} was given up after {run.scale.max_failures} new starts ({_first_line(error)}): "
            "the same command goes on from its last checkpoint"
        ) from error
    if isinstance(answer, dict) and "error" in answer:
        raise getattr(errors, answer["kind"])(answer["error"])
    if isinstance(answer, dict) and "stopped" in answer:
        return run_dir.metrics()[-1]
    return finish(run_dir)


def begin(run: Run, root: Path, *, on_taken: Callable[[Taken], None] | None = None) -> tuple[RunDir, Run, tuple[Clips, Clips]]:
    """Claim a run directory and look at the data, and at pretrained weights, before any process is started."""
    run_dir = RunDir(root.absolute())
    run = run.with_values({"data.root": str(Path(run.data.root).absolute())})
    refuse_leaks(DatasetDir(Path(run.data.root)), run.data.train_split, allow=run.data.allow_leaks)
    clips = Clips.of(run, run.data.train_split), Clips.of(run, run.data.val_split)
    run = with_absolute_teacher(with_absolute_files(run))
    check_teacher(run)
    if run.train.cache_prefix or run.train.start_from or any(run.flat().get(name) for name in WEIGHT_FILES):
        model = first_model(run, clips[0][0], on_taken=on_taken)
        if run.train.cache_prefix:
            caches_of(run, model, clips)  # refused here, if at all
    run_dir.claim(run)
    return run_dir, run, clips


def facts_of(run: Run, train_clips: Clips, val_clips: Clips) -> dict[str, Any]:
    """What environment.json says of the data."""
    return {
        "dataset": DatasetDir(Path(run.data.root)).facts()["digest"],
        "train_clips": len(train_clips),
        "val_clips": len(val_clips),
        "clips_without_features": [s.id for clips in (train_clips, val_clips) for s, _ in clips.failed],
        "findings": [str(finding) for finding in findings_of(run, train_clips)],
        "workers": run.scale.workers,
    }


def findings_of(run: Run, clips: Clips) -> list[Finding]:
    """What keeps clips from being learned, of gloss sequences: labels that do not fit into their steps."""
    if run.task != "cslr":
        return []
    task = build_task(run, vocab_of(run.task, DatasetDir(Path(run.data.root))))
    assert isinstance(task, Cslr)
    return task.findings(clips[i] for i in range(len(clips)))


def finish(run_dir: RunDir) -> dict[str, Any]:
    """Draw the curves and mark the run as done."""
    metrics = run_dir.metrics()
    plot_curves(run_dir.metrics_file, run_dir.curves_file)
    chosen = run_dir.chosen()
    sizes = run_dir.sizes() | {"checkpoint_bytes": (chosen / "model.safetensors").stat().st_size}
    write_json(run_dir.done_file, {"checkpoint": chosen.name, "metrics": metrics[-1], "sizes": sizes})
    return metrics[-1]


def fit_run(
    run: Run,
    run_dir: RunDir,
    strategy: Strategy,
    *,
    on_epoch: OnEpoch | None = None,
    notice: Callable[[], bool] | None = None,
) -> None:
    """Build everything that a run's settings name and train it in this process; one of several, if the strategy says so.

    Where memory is short, the step is computed in twice as many parts from the last checkpoint on: the batch stays as it is.
    """
    while True:
        parts = run_dir.parts(run)
        try:
            _fit(run, run_dir, strategy, parts, on_epoch, notice)
            return
        except torch.OutOfMemoryError:
            run_dir.more_parts(run, parts)
            if strategy.world_size > 1:  # the others wait in an exchange: all must start anew
                raise
        gc.collect()
        torch.cuda.empty_cache()


def _fit(
    run: Run,
    run_dir: RunDir,
    strategy: Strategy,
    parts: int,
    on_epoch: OnEpoch | None,
    notice: Callable[[], bool] | None,
) -> None:
    clips = Clips.of(run, run.data.train_split)
    val_clips = Clips.of(run, run.data.val_split)
    vocab = vocab_of(run.task, DatasetDir(Path(run.data.root)))
    task = build_task(run, vocab, clips.samples, in_training=True)
    model = first_model(run, clips[0])
    is_first = strategy.rank == 0
    sinks = open_sinks(run.train.sinks, title=run_dir.root.name, settings=run.flat()) if is_first else []
    checkpoints = LocalCheckpoints(run_dir, task.monitor, keep=run.train.keep_best, sinks=sinks)
    device, precision = strategy.device, run.train.precision
    prefix = None
    if run.train.cache_prefix:
        newest = strategy.gather(checkpoints.latest() if is_first else None)[0]
        prefix = begin_prefix(run, model, clips, val_clips, device=device, newest=newest)
    clips, val_clips = (prefix.train, prefix.val) if prefix else (clips, val_clips)
    meter = measure(model, task, clips[0], device=device, workers=strategy.world_size, precision=precision)
    resumed = strategy.gather(bool(run_dir.checkpoints()))[0]
    taught = begin_distillation(run, run_dir, task, model, clips, val_clips, strategy=strategy, resumed=resumed)
    watched: list[OnStep] = []
    if run.train.trace and is_first:
        watched.append(Trace(run_dir, taught.clips, workers=strategy.world_size))
    if run.train.profile_steps and is_first:
        watched.append(Profiled(run_dir.root / "profile", run.train.profile_steps))

    def on_step(step: int, indices: Step, result: StepResult) -> None:
        for watching in watched:
            watching(step, indices, result)

    fit(
        taught.model,
        taught.task,
        taught.clips,
        val_clips,
        run.train.with_values({"parts": parts}),
        strategy=strategy,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_step=on_step,
        on_stage=prefix.enter if prefix else None,
        notice=notice,
        meter=meter,
    )
    if is_first:
        write_json(run_dir.sizes_file, sizes_of(taught.model).facts())


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """One rank. A fault of the user's making ends the run at once: starting again would not mend it."""
    run, run_dir = Run.from_tree(config["run"]), RunDir(Path(config["root"]))

    def notice() -> bool:
        return _is_to_go() or run_dir.stop_file.exists()

    try:
        use_tf32(allowed=run.train.tf32)
        strategy = build_strategy(run, device_of(run, ray.train.torch.get_device()))
        fit_run(run, run_dir, strategy, on_epoch=lambda metrics: ray.train.report(dict(metrics)), notice=notice)
    except InterruptedRunError:
        if run_dir.stop_file.exists():
            return {"stopped": True}
        raise  # Ray starts the workers again where there is room
    except SignDistError as error:
        return {"error": str(error), "kind": type(error).__name__}
    return {}


def _is_to_go() -> bool:
    """Whether Ray has told this worker that a machine of the run will be taken away.

    `ray.train.get_preemption_info()` would say so too, but waits for all workers each time it is asked: too long for every step.
    Its answer has been sent to this process before.
    """
    try:
        return get_train_context().preemption_context.preemption_info is not None
    except (AttributeError, RuntimeError):  # no worker of Ray Train's, or another version of it
        return False


class _Told:
    """Tells `on_epoch` each line of metrics.jsonl once, wherever it was written."""

    def __init__(self, run_dir: RunDir, on_epoch: OnEpoch) -> None:
        self._run_dir, self._on_epoch, self._step = run_dir, on_epoch, -1

    def __call__(self) -> None:
        for line in self._run_dir.metrics():
            if line["step"] > self._step:
                self._step = int(line["step"])
                self._on_epoch(line)


@contextlib.contextmanager
def following(look: Callable[[], None] | None, *, every_s: float) -> Generator[None]:
    """While inside, `look` is called now and then from a thread, and once more at the end."""
    if look is None:
        yield
        return
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(every_s):
            look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()


def _wants_gpu(run: Run) -> bool:
    return run.scale.device == "gpu" or (run.scale.device == "auto" and num_gpus() >= (run.scale.min_workers or run.scale.workers))


def _check_resources(run: Run, use_gpu: bool) -> None:
    """A worker that can never be placed would wait for ever."""
    workers = run.scale.min_workers or run.scale.workers
    need, have = workers * run.scale.cpus_per_worker, num_cpus()
    if need > have:
        raise ServiceError(
            f"scale.workers = {workers} with {run.scale.cpus_per_worker:g} CPUs each need {need:g} CPUs, "
            f"the cluster has {have}: ask for fewer workers, or connect to a larger cluster with --address"
        )
    if use_gpu and workers > num_gpus():
        raise ServiceError(
            f"scale.workers = {workers} on GPUs need as many GPUs, the cluster has {num_gpus()}: "
            "ask for fewer workers, or set scale.device=cpu"
        )


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(error).__name__
