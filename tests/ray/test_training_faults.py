"""Training that survives: whatever is killed, taken away or added on the way, the run ends as the undisturbed one.

The undisturbed run trains in this process, without Ray. What is compared are the losses of all steps and evaluations; steps.jsonl
tells which clips each step held, and which steps were trained twice.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sign_dist.config.data import Data, Glosses, LandmarkFeatures, Sampling
from sign_dist.config.model import CtcStudentModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Train
from sign_dist.data.layout import write_json
from sign_dist.data.prepare import prepare
from sign_dist.synthetic.like import Order, write_order
from sign_dist.training.run_dir import RunDir
from tests.ray.faults import kill_driver, name_of, start, wait_for
from tests.worlds import extract_here

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

EVERY = 4
"""Steps from one checkpoint to the next: all that may be lost at once."""
FEATURES = LandmarkFeatures(sampling=Sampling(fps=30, image_fps=20), every=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Gloss sequences of 40 clips by a small network with dropout; steps in twelve parts, for any number of workers."""
    corpus = tmp_path_factory.mktemp("corpus")
    write_order(corpus, Order(signers=6, sentences=60, landmarks=True))
    sampling = FEATURES.sampling
    prepared = prepare("table", corpus, tmp_path_factory.mktemp("d"), glosses=Glosses(labels="sequence"), sampling=sampling)
    extract_here(prepared.dataset, FEATURES)
    return Run(
        task="cslr",
        data=Data(root=str(prepared.dataset.root), features=FEATURES),
        model=CtcStudentModel(width=64, time_stride=2),
        train=Train(
            epochs=24,
            batch_size=12,
            parts=12,
            evaluate_every=6,
            checkpoint_steps=EVERY,
            augment=Augment(speed=0.3),
            trace=True,
            ema=0.9,
            keep_best=1,
        ),
    ).with_values({"scale.workers": 2, "scale.max_failures": 40, "scale.device": "cpu"})


@pytest.fixture(scope="module")
def calm(run: Run, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The undisturbed run, by one process."""
    from sign_dist.on_ray.training import begin, fit_run
    from sign_dist.training.strategy import OneProcess

    run_dir, alone, _ = begin(run.with_values({"scale.workers": 1}), tmp_path_factory.mktemp("calm"))
    fit_run(alone, run_dir, OneProcess())
    return run_dir


def steps_of(run_dir: RunDir) -> list[dict[str, Any]]:
    """Lines of steps.jsonl; the last one may be torn by a kill."""
    found: list[dict[str, Any]] = []
    if run_dir.steps_file.exists():
        for line in run_dir.steps_file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def last_step(run_dir: RunDir) -> int:
    return max((line["step"] for line in steps_of(run_dir)), default=0)


def trained_again(run_dir: RunDir) -> int:
    counts = Counter(line["step"] for line in steps_of(run_dir))
    return sum(counts.values()) - len(counts)


def assert_equal(disturbed: RunDir, calm: RunDir) -> dict[str, float]:
    """Every step's loss, every evaluation, the clips of every epoch; answers the largest differences."""
    mine, theirs = ({line["step"]: line for line in steps_of(run_dir)} for run_dir in (disturbed, calm))
    assert mine.keys() == theirs.keys()
    for step, line in theirs.items():
        assert mine[step]["clips"] == line["clips"], step
    per_epoch = len(theirs) // 24
    every = Counter(clip for step in range(1, per_epoch + 1) for clip in theirs[step]["clips"])
    assert set(every.values()) == {1}
    for epoch in range(24):
        seen = Counter(clip for step in range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1) for clip in mine[step]["clips"])
        assert seen == every, "no clip twice or missing in an epoch"
    step_gap = max(abs(mine[s]["loss"] - theirs[s]["loss"]) / max(abs(theirs[s]["loss"]), 1) for s in theirs)
    gaps = [
        abs(a[name] - b[name])
        for a, b in zip(disturbed.metrics(), calm.metrics(), strict=True)
        for name in ("train/loss", "val/loss")
    ]
    assert [m["step"] for m in disturbed.metrics()] == [m["step"] for m in calm.metrics()]
    final = abs(disturbed.metrics()[-1]["val/loss"] - calm.metrics()[-1]["val/loss"])
    # metrics.jsonl keeps six digits; steps.jsonl keeps them all.
    assert step_gap <= 1e-6, step_gap
    assert final <= 1e-6, final
    assert max(gaps) <= 1e-4, gaps
    return {"steps": step_gap, "evaluations": max(gaps), "final": final}


def told(name: str, **figures: Any) -> None:
    print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))


def words(run: Run, folder: Path, *extra: str) -> tuple[str, ...]:
    job = folder / "run.json"
    write_json(job, run.model_dump(mode="json"))
    return ("train", str(job), "--out", str(folder / "run"), *extra)


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [c for c in psutil.Process(process.pid).children(recursive=True) if "TrainWorker" in name_of(c)]


def moments(count: int, total: int, seed: int) -> list[int]:
    """Steps after which something happens, in order and apart from each other."""
    return sorted(random.Random(seed).sample(range(2, total - 6, 3), count))


def test_workers_killed_at_ten_moments(run: Run, calm: RunDir, tmp_path: Path) -> None:
    log, disturbed = tmp_path / "log", RunDir(tmp_path / "run")
    process = start(*words(run, tmp_path), log=log)
    chosen = random.Random(1)
    for moment in moments(10, last_step(calm), seed=1):
        before = trained_again(disturbed)
        wait_for(lambda moment=moment: last_step(disturbed) >= moment, process, log)
        chosen.choice(workers_of(process)).kill()
        gone = last_step(disturbed)
        wait_for(lambda gone=gone: last_step(disturbed) > gone, process, log)
        assert trained_again(disturbed) - before <= EVERY
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    told("10 workers killed", **assert_equal(disturbed, calm), trained_again=trained_again(disturbed))


def test_drivers_killed_at_five_moments(run: Run, calm: RunDir, tmp_path: Path) -> None:
    log, disturbed = tmp_path / "log", RunDir(tmp_path / "run")
    for moment in moments(5, last_step(calm), seed=2):
        before = trained_again(disturbed)
        process = start(*words(run, tmp_path), log=log)
        wait_for(lambda moment=moment: last_step(disturbed) >= moment, process, log)
        kill_driver(process)
        assert trained_again(disturbed) - before <= EVERY
    process = start(*words(run, tmp_path), log=log)
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    told("5 drivers killed", **assert_equal(disturbed, calm), trained_again=trained_again(disturbed))


class Nodes:
    """A cluster of several nodes on this machine; the head has no CPUs, so that workers live on the others."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "_system_config": quick, "object_store_memory": 80 * 2**20, "include_dashboard": False},
        )
        self.nodes = [self.add() for _ in range(count)]
        self.cluster.wait_for_nodes()

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)

    def kill(self, index: int) -> None:
        """SIGKILL of a node's raylet and all its workers, as when a machine loses power."""
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    nodes = Nodes(request.param)
    yield nodes
    nodes.cluster.shutdown()


@pytest.mark.parametrize("nodes", [3], indirect=True)
def test_nodes_killed_at_three_moments(run: Run, calm: RunDir, nodes: Nodes, tmp_path: Path) -> None:
    log, disturbed = tmp_path / "log", RunDir(tmp_path / "run")
    process = start(*words(run.with_values({"scale.workers": 3}), tmp_path, "--address", nodes.cluster.address), log=log)
    chosen = random.Random(3)
    for moment in moments(3, last_step(calm), seed=3):
        before = trained_again(disturbed)
        wait_for(lambda moment=moment: last_step(disturbed) >= moment, process, log)
        nodes.kill(chosen.randrange(3))
        nodes.nodes.append(nodes.add())
        gone = last_step(disturbed)
        wait_for(lambda gone=gone: last_step(disturbed) > gone, process, log)
        assert trained_again(disturbed) - before <= EVERY
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    told("3 nodes killed", **assert_equal(disturbed, calm), trained_again=trained_again(disturbed))


@pytest.mark.parametrize("nodes", [4], indirect=True)
def test_from_four_workers_to_two_to_three(run: Run, calm: RunDir, nodes: Nodes, tmp_path: Path) -> None:
    log, disturbed = tmp_path / "log", RunDir(tmp_path / "run")
    elastic = run.with_values({"scale.workers": 4, "scale.min_workers": 2, "scale.resize_s": 3})
    process = start(*words(elastic, tmp_path, "--address", nodes.cluster.address), log=log)
    first, second = moments(2, last_step(calm) // 2, seed=4)

    def workers_now() -> int:
        lines = steps_of(disturbed)
        return lines[-1]["workers"] if lines else 0

    wait_for(lambda: last_step(disturbed) >= first and workers_now() == 4, process, log)
    nodes.kill(0)
    nodes.kill(0)
    wait_for(lambda: last_step(disturbed) >= second and workers_now() == 2, process, log)
    nodes.nodes.append(nodes.add())
    wait_for(lambda: workers_now() == 3, process, log)
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    seen = [line["workers"] for line in steps_of(disturbed)]
    assert [n for i, n in enumerate(seen) if i == 0 or seen[i - 1] != n] == [4, 2, 3]
    told("4 -> 2 -> 3 workers", **assert_equal(disturbed, calm), trained_again=trained_again(disturbed))


@pytest.mark.parametrize("nodes", [3], indirect=True)
def test_a_notice_saves_the_step_under_way(run: Run, calm: RunDir, nodes: Nodes, tmp_path: Path) -> None:
    """With checkpoints at evaluations only, a machine that is taken away after a notice costs one step at most."""
    log, disturbed = tmp_path / "log", RunDir(tmp_path / "run")
    rare = run.with_values({"train.checkpoint_steps": 0, "scale.workers": 2})
    process = start(*words(rare, tmp_path, "--address", nodes.cluster.address), log=log)
    moment = moments(1, last_step(calm) // 2, seed=5)[0]
    wait_for(lambda: last_step(disturbed) >= moment, process, log)
    drained = nodes.nodes[0]
    drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", nodes.cluster.address]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken away", "--deadline-remaining-seconds", "60"]
    subprocess.run([*drain, "--node-id", drained.node_id, *why], check=True, capture_output=True)
    time.sleep(15)
    nodes.kill(0)
    assert process.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert trained_again(disturbed) <= 1
    told("a notice", **assert_equal(disturbed, calm), trained_again=trained_again(disturbed))


def test_ctrl_c_and_the_same_command(run: Run, calm: RunDir, tmp_path: Path) -> None:
    log, disturbed = tmp_path / "log", RunDir(tmp_path / "run")
    process = start(*words(run, tmp_path), log=log)
    wait_for(lambda: last_step(disturbed) >= 9, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    process = start(*words(run, tmp_path), log=log)
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    assert trained_again(disturbed) <= EVERY
    told("Ctrl-C", **assert_equal(disturbed, calm), trained_again=trained_again(disturbed))
