"""Layers that stand still are computed once: the same losses and weights as without, whatever stands still; and what is refused."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import I3dModel, LandmarkModel, SignHieraModel, VideoCnnModel
from sign_dist.config.prefix import CHANGES_FRAMES
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import write_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError, RunError, SettingsError
from sign_dist.features import prefix as stores
from sign_dist.features.claims import claim
from sign_dist.features.encode import NO_FILES, spec_for
from sign_dist.features.prefix import PrefixStore
from sign_dist.features.store import FeatureStore, pack
from sign_dist.features.upkeep import verify
from sign_dist.models.cut import Cuttable
from sign_dist.tasks.task import Example
from sign_dist.training import prefix as prefixes
from sign_dist.training.checkpoint import read_state
from sign_dist.training.data import Clips
from sign_dist.training.prefix import Prefix, begin_prefix, caches_of, cuts_of, fill, spec_of
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import first_model
from sign_dist.transfer.still import digest_of, still_names

GLOSSES = ("A", "B", "C")
STILL = Augment(**dict.fromkeys(CHANGES_FRAMES, 0.0))
TRAIN = Train(epochs=3, batch_size=4, augment=STILL, optim=Optim(lr=1e-3), keep_best=9, cache_prefix=True)
MODELS: dict[str, Any] = {"i3d": I3dModel(dropout=0.3), "signhiera": SignHieraModel(), "video_cnn": VideoCnnModel(width=8)}
CLOCK = ("seconds", "clips_per_s", "step_ms", "data_wait_share", "tflops_per_s")


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "_tensorboard", lambda *_: None)


def world(root: Path, *, size_px: int = 32, num_frames: int = 9) -> tuple[DatasetDir, FrameFeatures]:
    """Ten clips to train on and five to validate, whose gloss shows in their colours; frames extracted."""
    dataset, features = DatasetDir(root), FrameFeatures(num_frames=num_frames, size_px=size_px)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for split, count in (("train", 10), ("val", 5), ("test", 0)):
        samples: list[Sample] = []
        for i in range(count):
            name = f"{split}{i}"
            signer = f"signer of {split}"
            sample = Sample(name, name, GLOSSES[i % 3], signer, n_frames=num_frames, fps=25.0, sha256=name, split=split)
            frames = rng.integers(0, 256, (num_frames, size_px, size_px, 3))
            frames[..., i % 3] //= 2
            rows.append({"key": sample.key, "id": name, "fps": 25.0, "error": "", **pack(frames.astype(np.uint8))})
            samples.append(sample)
        write_manifest(dataset.manifest_file(split), samples)
    dataset.vocab_file.parent.mkdir()
    dataset.vocab_file.write_text("\n".join(GLOSSES) + "\n", encoding="utf-8")
    write_json(dataset.facts_file, {"digest": "world", "videos_root": ".", "counts": {}})
    FeatureStore.create(dataset, spec_for(features, NO_FILES)).commit("all-0", rows)
    return dataset, features


def run_of(root: Path, kind: str = "video_cnn", **settings: Any) -> Run:
    """A run that caches the lowest layers of a model, unless settings say otherwise."""
    if not DatasetDir(root).facts_file.exists():
        world(root, size_px=64 if kind == "signhiera" else 32)
    features = FrameFeatures(num_frames=9, size_px=64 if kind == "signhiera" else 32)
    run = Run(data=Data(root=str(root), features=features), model=MODELS[kind], train=TRAIN)
    return run.with_values(settings)


def clips_of(run: Run) -> tuple[Clips, Clips]:
    return Clips.of(run, "train"), Clips.of(run, "val")


def model_of(run: Run) -> nn.Module:
    return first_model(run, clips_of(run)[0][0])


def train_here(run: Run, root: Path, on_epoch: Any = None) -> None:
    """`sign-dist train` in this process, but for the picture of its curves."""
    from sign_dist.on_ray.training import begin, fit_run
    from sign_dist.training.strategy import OneProcess

    run_dir, run, _ = begin(run, root)
    fit_run(run, run_dir, OneProcess(), on_epoch=on_epoch)


def watch(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    """Note each clip whose activations are computed."""
    compute = prefixes.activations_of

    def noted(model: nn.Module, cut: str, clips: list[Example]) -> list[np.ndarray]:
        seen.extend(clip.sample.id for clip in clips)
        return compute(model, cut, clips)

    monkeypatch.setattr(prefixes, "activations_of", noted)


def lines(root: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in RunDir(root).metrics()]


def assert_close(one: Path, two: Path, *, losses: float = 1e-5) -> None:
    """Two runs measured the same, and end with the same weights and moments."""
    a, b = lines(one), lines(two)
    assert [line.keys() for line in a] == [line.keys() for line in b]
    for mine, theirs in zip(a, b, strict=True):
        for name in mine:
            assert mine[name] == pytest.approx(theirs[name], abs=losses, rel=1e-4 if "norm" in name else 0), name
    ends = [RunDir(root).checkpoints()[-1] for root in (one, two)]
    assert ends[0].name == ends[1].name
    (_, mine), (_, theirs) = map(read_state, ends)
    assert mine.weights.keys() == theirs.weights.keys()
    assert mine.moments.keys() == theirs.moments.keys()
    for name, tensor in mine.weights.items():
        assert torch.allclose(tensor.float(), theirs.weights[name].float(), atol=2e-4), name


# --- the same losses ----------------------------------------------------------------------------------------------------

PLANS: list[tuple[str, dict[str, Any]]] = [
    ("video_cnn", {"train.freeze.until": "stage_2"}),
    ("video_cnn", {"train.unfreeze.stages": 3, "train.ema": 0.9, "train.parts": 2, "train.optim.layer_decay": 0.5}),
    ("video_cnn", {"train.freeze.groups": "stage_0 conv* input", "train.evaluate_steps": 2}),
    ("i3d", {"train.freeze.fraction": 1, "train.epochs": 1}),
    ("i3d", {"train.freeze.until": "Mixed_5b", "model.over_time": "mean", "train.epochs": 2}),
    ("i3d", {"train.unfreeze.plan": "logits; Mixed_5*; Mixed_4e Mixed_4f", "model.checkpointing": True}),
    ("i3d", {"train.lora.targets": "Mixed_5b.b1b.conv3d", "train.lora.rank": 2, "train.epochs": 2}),
    ("signhiera", {"train.freeze.fraction": 1}),
    ("signhiera", {"train.freeze.until": "block_3"}),
    ("signhiera", {"train.freeze.until": "block_1"}),
    ("signhiera", {"train.unfreeze.stages": 3}),
]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "plan"), PLANS, ids=lambda value: str(value))
def test_with_the_cache_a_run_measures_and_ends_the_same(tmp_path: Path, kind: str, plan: dict[str, Any]) -> None:
    cached = run_of(tmp_path / "data", kind, **plan)
    train_here(cached.with_values({"train.cache_prefix": False}), tmp_path / "without")
    train_here(cached, tmp_path / "with")
    assert_close(tmp_path / "with", tmp_path / "without")


@pytest.mark.parametrize(("kind", "shape"), [("i3d", (13, 32)), ("i3d", (3, 32)), ("signhiera", (11, 64)), ("video_cnn", (5, 32))])
def test_a_clip_cut_anywhere_gives_the_logits_of_the_whole(kind: str, shape: tuple[int, int]) -> None:
    from sign_dist.models.build import build_model

    torch.manual_seed(0)
    steps, size = shape
    model = build_model(MODELS[kind], num_classes=3, feature_shape=(size, size, 3)).eval()
    assert isinstance(model, Cuttable)
    frames = torch.randint(0, 256, (2, steps, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        whole = model(frames, torch.tensor([steps, steps]))
        for cut in model.cuts():
            parts = torch.cat([model.activations(frames[:1], cut), model.activations(frames[1:], cut)])
            model.starts_behind = cut
            assert torch.allclose(model(parts, torch.tensor([parts.shape[1]] * 2)), whole, atol=1e-5), cut
            model.starts_behind = ""


class StoppedError(Exception):
    pass


@pytest.mark.long
@pytest.mark.parametrize("order", ["with without", "without with", "with with"])
def test_a_run_goes_on_with_or_without_the_cache(tmp_path: Path, order: str) -> None:
    run = run_of(tmp_path / "data", **{"train.unfreeze.plan": "head; conv* input stage_2; stage_1"})
    bare = run.with_values({"train.cache_prefix": False})
    train_here(bare, tmp_path / "undisturbed")
    first, second = ({"with": run, "without": bare}[word] for word in order.split())

    def stop(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_here(first, tmp_path / "stopped", stop)
    train_here(second, tmp_path / "stopped")
    assert_close(tmp_path / "stopped", tmp_path / "undisturbed")


@pytest.mark.long
def test_layers_that_are_computed_once_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    watch(monkeypatch, seen)
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2"})
    train_here(run, tmp_path / "one")
    probes = 3  # the size of a clip's activations is looked at where a run begins
    assert set(seen) == {s.id for clips in clips_of(run) for s in clips.samples}
    assert len(seen) <= len(set(seen)) + probes
    seen.clear()
    frames: list[str] = []
    reads = FeatureStore.load
    monkeypatch.setattr(FeatureStore, "load", lambda self, shard: frames.append(self.uri) or reads(self, shard))
    train_here(run.with_values({"train.optim.lr": 5e-4, "model.dropout": 0.1, "train.seed": 0}), tmp_path / "two")
    assert len(seen) <= probes, "another trial of the same layers computes nothing"
    own = [place for place in frames if "/prefix/" not in place]
    assert len(own) <= 4, "frames are looked at to build the model, and not trained on"


# --- which layers stand still -------------------------------------------------------------------------------------------


def test_each_stage_has_the_deepest_cut_before_which_nothing_has_trained(tmp_path: Path) -> None:
    def cuts(**settings: Any) -> tuple[str, ...]:
        run = run_of(tmp_path / "data", "i3d", **settings)
        return cuts_of(run, model_of(run))

    assert cuts(**{"train.freeze.until": "Mixed_5b"}) == ("Mixed_4f",)
    assert cuts(**{"train.freeze.fraction": 1}) == ("Mixed_5c",)
    assert cuts(**{"train.unfreeze.plan": "logits; Mixed_5c; Mixed_4*"}) == ("Mixed_5c", "Mixed_5b", "Mixed_3c")
    # One frozen layer above a trained one is no prefix; the groups below the trained one are.
    assert cuts(**{"train.freeze.groups": "Conv3d_1a* Mixed_4b"}) == ("Conv3d_1a_7x7",)
    assert cuts(**{"train.unfreeze.stages": 3})[-1] == "", "in the last stage everything trains"
    lora = {"train.lora.targets": "Mixed_4f.b0.conv3d Mixed_5c.b0.conv3d"}
    assert cuts(**lora) == ("Mixed_4e",)
    assert cuts(**lora, **{"train.unfreeze.plan": "logits Mixed_5*; *"}) == ("Mixed_5b", "Mixed_4e")


def test_names_before_a_cut_are_those_of_its_layers_with_their_statistics(tmp_path: Path) -> None:
    run = run_of(tmp_path / "data", "video_cnn")
    names = still_names(model_of(run), "stage_1")
    assert {name.rpartition(".")[0] for name in names} == {"stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1"}
    assert "stages.1.1.running_var" in names
    hiera = still_names(model_of(run_of(tmp_path / "hiera", "signhiera")), "block_0")
    assert {"pos_embed_spatial", "pos_embed_temporal", "patch_embed.proj.weight", "blocks.0.norm1.weight"} <= set(hiera)
    assert not any(name.startswith(("blocks.1", "norm", "head")) for name in hiera)


# --- what names a cache -------------------------------------------------------------------------------------------------


def test_the_name_follows_from_all_that_activations_depend_on_and_from_nothing_else(tmp_path: Path) -> None:
    base = {"train.freeze.until": "Mixed_5b"}
    run = run_of(tmp_path / "data", "i3d", **base)
    model = model_of(run)

    def name(run: Run = run, model: nn.Module = model, cut: str = "Mixed_4f") -> str:
        return spec_of(run, model, cut).name

    same = [
        {"train.optim.lr": 1e-2},
        {"train.batch_size": 2},
        {"train.epochs": 9},
        {"train.freeze.until": "Mixed_5c"},
        {"scale.workers": 2},
    ]
    assert {name(run.with_values(values)) for values in same} == {name()}
    trained = model_of(run.with_values({"model.dropout": 0.1, "model.over_time": "mean", "model.norm_momentum": 0.1}))
    with torch.no_grad():
        trained.get_submodule("Mixed_5b").get_parameter("b0.conv3d.weight").add_(1)
        trained.get_submodule("logits").get_parameter("conv3d.weight").add_(1)
    assert name(model=trained) == name()
    others = [
        name(model=model_of(run.with_values({values: other}))) for values, other in (("train.seed", 1), ("model.colours", "bgr"))
    ]
    for touched in ("Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b0.bn.running_mean"):
        other = model_of(run)
        with torch.no_grad():
            other.state_dict()[touched].view(-1)[0].add_(1e-3)
        others.append(name(model=other))
    others.append(name(cut="Mixed_4e"))
    others.append(name(run.with_values({"train.tf32": True})))
    world(tmp_path / "other", num_frames=4)
    features = run.with_values({"data.root": str(tmp_path / "other"), "data.features.num_frames": 4})
    others.append(name(features))
    assert len({name(), *others}) == len(others) + 1


def test_settings_of_the_cache_are_no_part_of_the_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "data")
    assert run.digest() == run.with_values({"train.cache_prefix": False, "train.cache_gb": 3}).digest()


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.augment.mirror": 0.5, "train.augment.colour": 0.1}, r"augment\.mirror = 0\.5 changes them: set mirror, colour"),
        ({"train.mixup": 0.2}, r"train\.mixup = 0\.2 mixes them"),
        ({"train.precision": "bf16"}, "'bf16' would round them elsewhere: use fp32"),
        ({"train.distill.teacher": "runs/teacher"}, r"no frames, which train\.distill\.teacher asks for"),
        ({"model": LandmarkModel(), "data.features.kind": "landmarks"}, r"needs a model that can be cut.* got 'landmark'"),
    ],
    ids=str,
)
def test_what_changes_from_epoch_to_epoch_is_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    run = run_of(tmp_path / "data")
    with pytest.raises(SettingsError, match=said):
        run.with_values(settings)
    run.with_values({**settings, "train.cache_prefix": False})


def test_augmentation_of_landmarks_alone_does_not_matter(tmp_path: Path) -> None:
    run_of(tmp_path / "data", **{"train.augment.rotate_deg": 12, "train.augment.drop_hand": 0.3})


def test_nothing_that_stands_still_is_refused_before_a_directory_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'stage_0', the lowest, trains from the start: freeze layers by train\.freeze"):
        train_here(run_of(tmp_path / "data"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    lora = {"train.lora.targets": "stages.*.0"}  # convolutions of every stage
    with pytest.raises(SettingsError, match="trains from the start"):
        train_here(run_of(tmp_path / "data", **lora), tmp_path / "run")


def test_more_disk_than_allowed_or_free_is_refused_with_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_1", "train.cache_gb": 1e-4})
    # Fifteen clips of 9 frames, 8 channels, 8 x 8 numbers of 4 bytes.
    with pytest.raises(SettingsError, match=r"0\.00028 GB \(15 clips behind 'stage_0', 0\.018 MB each\).*cache_gb allows 0\.0001"):
        train_here(run, tmp_path / "run")
    usage = stores.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SettingsError, match="and 1e-06 GB are free"):
        train_here(run.with_values({"train.cache_gb": 1}), tmp_path / "run")


@pytest.mark.long
def test_a_file_of_weights_that_changed_since_the_run_began_is_noticed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2", "train.epochs": 1})
    train_here(run, tmp_path / "run")
    model, clips = model_of(run.with_values({"train.seed": 1})), clips_of(run)
    newest = RunDir(tmp_path / "run").checkpoints()[-1]
    with pytest.raises(RunError, match=r"other weights before 'stage_1' than the run would begin with now.*cache_prefix=false"):
        begin_prefix(run, model, *clips, device=torch.device("cpu"), newest=newest)
    begin_prefix(run, model_of(run), *clips, device=torch.device("cpu"), newest=newest)


# --- the store ----------------------------------------------------------------------------------------------------------


def begun(run: Run) -> Prefix:
    return begin_prefix(run, model_of(run), *clips_of(run), device=torch.device("cpu"), newest=None)


def test_activations_are_those_of_the_frames_in_float32(tmp_path: Path) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2"})
    prefix, model, (clips, _) = begun(run), model_of(run).eval(), clips_of(run)
    assert isinstance(model, Cuttable)
    for i in range(len(clips)):
        with torch.no_grad():
            wanted = model.activations(torch.from_numpy(np.stack([clips[i].features] * 3)), "stage_1")[0].numpy()
        got = prefix.train[i]
        assert got.sample == clips[i].sample
        assert got.features.dtype == np.float32
        assert np.array_equal(got.features, wanted)
    assert prefix.train.lengths == clips.lengths, "steps are made of the same clips"
    prefix.enter(0, model)
    assert model.starts_behind == "stage_1"


def test_two_that_compute_at_once_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2"})
    seen: list[str] = []
    watch(monkeypatch, seen)
    models, clips = [model_of(run), model_of(run)], clips_of(run)
    caches = [caches_of(run, model, clips)["stage_1"] for model in models]
    seen.clear()
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda c=cache, m=model: done.append(fill(c, m, clips)))
        for cache, model in zip(caches, models, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 15, "each clip is committed once, by one of the two"
    assert len(set(seen)) == 15
    assert len(seen) <= 15 + 4, "what one has, the other leaves to it, but where both look in the same moment"
    assert caches_of(run, models[0], clips)["stage_1"].blocks == []
    assert not caches[0].store.place.names("claims")


def test_what_another_holds_is_waited_for_and_taken_over_from_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2"})
    model, clips = model_of(run), clips_of(run)
    cache = caches_of(run, model, clips)["stage_1"]
    held = claim(cache.store.place, cache.blocks[0].name)
    assert held is not None
    waits: list[float] = []

    def end(seconds: float) -> None:
        waits.append(seconds)
        held.release()

    monkeypatch.setattr(prefixes.time, "sleep", end)
    assert fill(cache, model, clips) == 15
    assert len(waits) == 1


def test_a_damaged_shard_is_found_withdrawn_and_computed_again(tmp_path: Path) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2"})
    prefix = begun(run)
    (store,) = PrefixStore.all_of(DatasetDir(Path(run.data.root)))
    shard = store.commits()[0].shard
    path = Path(store.uri) / "shards" / shard
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"cannot be read.*store verify DATASET --repair`, then train again"):
        [prefix.train[i] for i in range(10)] + [prefix.val[i] for i in range(5)]
    assert len(verify(store).problems) == 1
    verify(store, repair=True)
    again = begun(run)
    assert path.read_bytes() == good
    assert verify(store).problems == []
    assert [again.train[i].features.shape for i in range(10)]


def test_features_are_still_found_beside_a_cache_whose_record_tells_what_it_is(tmp_path: Path) -> None:
    run = run_of(tmp_path / "data", **{"train.freeze.until": "stage_2"})
    begun(run)
    dataset = DatasetDir(Path(run.data.root))
    assert [store.name for store in FeatureStore.all_of(dataset)] == [FeatureStore.find(dataset, run.data.features).name]
    (store,) = PrefixStore.all_of(dataset)
    record = json.loads(store.place.read("prefix.json"))
    assert record["kind"] == "video_cnn"
    assert record["cut"] == "stage_1"
    assert record["precision"] == "fp32"
    assert record["weights"] == digest_of(model_of(run).state_dict(), still_names(model_of(run), "stage_1"))


def test_shards_are_small_and_few_of_them_are_kept_in_memory(tmp_path: Path) -> None:
    assert stores.rows_per_shard(100 * 2**20) == 2
    assert stores.rows_per_shard(2**18) == 4
    assert stores.rows_per_shard(1) == 16
    reader = PrefixStore(tmp_path).reader(10 * 2**20)
    assert reader._load.cache_info().maxsize * 20 * 2**20 <= stores.MEMORY_BYTES


def test_models_that_are_drawn_by_two_threads_at_once_have_the_weights_of_their_seed(tmp_path: Path) -> None:
    run = run_of(tmp_path)

    def digest() -> str:
        state = model_of(run).state_dict()
        return digest_of(state, list(state))

    wanted = digest()
    drawn: list[str] = []
    threads = [threading.Thread(target=lambda: drawn.append(digest())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [wanted] * len(threads)
