"""The served model as one folder: all that a replica needs, and where it came from."""

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import safe_open
from torch import nn

from sign_dist.config.base import Settings
from sign_dist.config.data import Data
from sign_dist.config.model import Model, VlmModel
from sign_dist.config.run import Decode, Run, TaskName
from sign_dist.config.train import Lora, Train
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError, SettingsError
from sign_dist.features.encode import NO_FILES, EncoderFiles, find_files
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore
from sign_dist.inference.bases import Bases, base_of
from sign_dist.inference.model_card import model_card, search_section
from sign_dist.inference.text_files import pack_text_files, unpack_text_files
from sign_dist.tasks.build import num_classes_of, vocab_of
from sign_dist.training.checkpoint import load_weights_file, read_weights, save_weights_file
from sign_dist.training.record import environment
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.start import with_weights
from sign_dist.transfer.lora import merged_state
from sign_dist.transfer.weights_file import file_digest

FORMAT = 2


class BundleFacts(Settings):
    """`bundle.json`."""

    format: int = Field(default=FORMAT, ge=1)
    name: str
    task: TaskName
    model: Model
    decode: Decode = Decode()
    lora: Lora = Lora()
    """Adapters that the weights are; without targets the weights are the whole model's."""
    base: str = ""
    """Digest of the model below adapters, which is not in the bundle but at `model.source`."""
    feature_shape: tuple[int, ...]
    spec: FeatureSpec
    weights_sha256: str
    vocab_size: int = 0
    """Glosses that it can answer; 0 for a model that writes text."""
    metrics: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    def over(self, base: str) -> "BundleFacts":
        """The same with the model below its adapters at another place; of other bundles they do not change."""
        if not (base and self.base and isinstance(self.model, VlmModel) and self.model.source):
            return self
        return self.model_copy(update={"model": self.model.model_copy(update={"source": base})})

    def run(self) -> Run:
        """As much of the run as answering needs: what was only for training has its defaults."""
        data = Data(root=self.name, features=self.spec.features)
        return Run(task=self.task, data=data, model=self.model, decode=self.decode, train=Train(lora=self.lora))


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle folder: `bundle.json`, `weights.safetensors`, `MODEL_CARD.md`, `vocab.txt` where the task has classes, the encoder's
    model files in `encoder/`, and in `text/` the tokenizer and the shape of a text model that came from elsewhere."""

    root: Path

    @property
    def facts_file(self) -> Path:
        return self.root / "bundle.json"

    @property
    def weights_file(self) -> Path:
        return self.root / "weights.safetensors"

    @property
    def vocab_file(self) -> Path:
        return self.root / "vocab.txt"

    @property
    def card_file(self) -> Path:
        return self.root / "MODEL_CARD.md"

    @property
    def vocab(self) -> Vocab | None:
        """The glosses it can answer; None for a model that writes text."""
        return Vocab.read(self.vocab_file) if self.vocab_file.exists() else None

    @property
    def text(self) -> Path:
        return self.root / "text"

    @property
    def encoder(self) -> Path:
        return self.root / "encoder"

    def facts(self) -> BundleFacts:
        """What the bundle is.

        Raises:
            RunError: this is no bundle, or one of a newer version, or its weights are not those it was made with.
        """
        if not self.facts_file.exists():
            raise RunError(f"{str(self.root)!r} is no bundle (it has no bundle.json): make one with `sign-dist export RUN`")
        try:
            tree = json.loads(self.facts_file.read_text(encoding="utf-8"))
            facts = BundleFacts.from_tree(tree)
        except (ValueError, SettingsError) as error:
            raise RunError(f"{str(self.facts_file)!r} cannot be read ({error}): export the run again") from None
        if facts.format > FORMAT:
            raise RunError(
                f"bundle {str(self.root)!r} has format {facts.format}, this version reads up to {FORMAT}: update sign-dist"
            )
        if file_digest(self.weights_file) != facts.weights_sha256:
            raise RunError(f"the weights of bundle {str(self.root)!r} were changed or damaged: export the run again")
        return facts.model_copy(update={"model": unpack_text_files(facts.model, self.text)})

    def weights(self, facts: BundleFacts, *, device: torch.device, bases: Bases | None = None) -> nn.Module:
        """The model with its weights, to be asked. `bases` holds models below adapters that are in memory already.

        Raises:
            RunError: the model below adapters is not on this machine, or another one.
            WeightsError: the weights do not fit.
        """
        tensors, vocab = load_weights_file(self.weights_file), self.vocab
        if facts.base and isinstance(facts.model, VlmModel) and vocab:
            return (Bases() if bases is None else bases).with_adapters(
                facts.model,
                facts.lora,
                tensors,
                digest=facts.base,
                feature_shape=facts.feature_shape,
                vocab=vocab,
                device=device,
            )
        num_classes = num_classes_of(facts.task, vocab)
        model = with_weights(facts.model, Lora(), tensors, num_classes=num_classes, feature_shape=facts.feature_shape, vocab=vocab)
        return model.to(device).eval()

    def encoder_files(self, facts: BundleFacts) -> EncoderFiles:
        """The encoder's model files that travel with the bundle.

        Raises:
            RunError: one is missing or has other bytes than at training.
        """
        paths = {path.stem: path for path in sorted(self.encoder.glob("*"))} if self.encoder.exists() else {}
        wanted: dict[str, str] = facts.provenance.get("encoder_files", {})
        for role, digest in wanted.items():
            if role not in paths or file_digest(paths[role]) != digest:
                raise RunError(f"the {role} model file of bundle {str(self.root)!r} is missing or damaged: export the run again")
        return EncoderFiles(paths, facts.spec.weights)


def export(
    run_dir: RunDir, out: Path | None = None, *, name: str = "", search: Mapping[str, Any] | None = None, merged: bool = False
) -> Bundle:
    """Write the bundle of the checkpoint a run stands for, into `run_dir/bundle` or `out`. Exporting again replaces it.

    `name` is the model's, by default the run's. `search` is how its settings were found, where they were searched.
    Of a vision-language model with adapters the bundle holds these and the digest of the model below them; with `merged` it holds
    the whole model, adapters added, and needs no other.

    Raises:
        RunError: the run has no checkpoint, or the model files at hand are not those its features were made with.
    """
    run, chosen = run_dir.run(), run_dir.chosen()
    dataset = DatasetDir(Path(run.data.root))
    store = FeatureStore.find(dataset, run.data.features, shared=run.data.store)
    spec = store.spec()
    of_tracks = run.data.features.kind == "landmarks" and not spec.weights
    files = NO_FILES if of_tracks else find_files(run.data.features)
    if files.digest != spec.weights:
        raise RunError(
            f"the model files at hand ({files.digest[:8] or 'none'}) are not those that made the features ({spec.weights[:8]}): "
            "set SIGN_DIST_MODELS to the folder that was used at extraction"
        )
    reader = store.reader()
    shape = next(reader.features(key).shape for key in reader.keys if not reader.error(key))
    bundle = Bundle(out or run_dir.bundle)
    fresh = bundle.root.with_name(f".{bundle.root.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    part = Bundle(fresh)
    part.encoder.mkdir(parents=True)
    for role, path in files.paths.items():
        shutil.copyfile(path, part.encoder / f"{role}{path.suffix}")
    weights = read_weights(chosen)  # a damaged checkpoint must not become a bundle
    vocab = vocab_of(run.task, dataset)
    if vocab:
        vocab.write(part.vocab_file)
    settings, lora, base = run.model, Lora(), ""
    if isinstance(settings, VlmModel) and run.train.lora.targets and not merged:
        assert vocab is not None
        lora, base = run.train.lora, base_of(settings, feature_shape=shape[1:], vocab=vocab)
    else:
        settings = pack_text_files(settings, part.text)
    if isinstance(run.model, VlmModel) and run.train.lora.targets and merged:
        num_classes = num_classes_of(run.task, vocab)
        whole = with_weights(
            run.model, run.train.lora, weights, num_classes=num_classes, feature_shape=shape[1:], vocab=vocab, whole=True
        )
        save_weights_file(merged_state(whole), part.weights_file)
    else:
        shutil.copyfile(chosen / "model.safetensors", part.weights_file)
    progress = progress_of(chosen)
    facts = BundleFacts(
        name=name or run_dir.root.resolve().name,
        task=run.task,
        model=settings,
        decode=run.decode,
        lora=lora,
        base=base,
        feature_shape=shape[1:],
        spec=spec,
        weights_sha256=file_digest(part.weights_file),
        vocab_size=len(vocab) if vocab else 0,
        metrics={name: value for name, value in progress["metrics"].items() if name.startswith(("val/", "epoch"))},
        provenance={
            "run": run.digest(),
            "checkpoint": chosen.name,
            "selected_by": run.train.select,
            "dataset": {k: dataset.facts()[k] for k in ("corpus", "digest", "counts", "split")},
            "features": store.name,
            "encoder_files": {role: file_digest(path) for role, path in files.paths.items()},
            "environment": environment(),
        }
        | ({"search": dict(search)} if search else {}),
    )
    write_json(part.facts_file, facts.model_dump(mode="json"))
    card = _card(run_dir, run, facts, part.weights_file) + search_section(search or {})
    part.card_file.write_text(card, encoding="utf-8")
    old = bundle.root.with_name(f".{bundle.root.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if bundle.root.exists():
        bundle.root.rename(old)
    fresh.rename(bundle.root)
    shutil.rmtree(old, ignore_errors=True)
    return bundle


def num_parameters(weights: Path) -> int:
    """Numbers in a .safetensors file, whose tensors are not read for it; running statistics of norms are among them."""
    with safe_open(weights, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (it is no dict)


def decode_facts(run: Run) -> dict[str, Any]:
    """The settings that answers are read out with, those of the task only."""
    read = {"islr": (), "vlm": ("weigh", "beam", "max_len"), "cslr": ("beam", "merge"), "slt": ("beam", "max_len", "len_penalty")}
    return {name: getattr(run.decode, name) for name in read[run.task]}


def _card(run_dir: RunDir, run: Run, facts: BundleFacts, weights: Path) -> str:
    """The model card: with the scores of the newest evaluation of this very checkpoint, those of test first."""
    for path in sorted(
        run_dir.root.glob("eval/*/report.json"), key=lambda path: (path.parent.name != "test", -path.stat().st_mtime)
    ):
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("facts", {}).get("size", {}).get("weights_sha256") == facts.weights_sha256:
            return model_card(report, title=facts.name)
    dataset = facts.provenance["dataset"]
    known = {
        "dataset": dataset,
        "split": dataset["split"] | {"clips": dataset["counts"]},
        "model": run.model.model_dump(mode="json"),
        "features": {"name": facts.provenance["features"]},
        "size": {
            "parameters": num_parameters(weights),
            "weights_bytes": weights.stat().st_size,
            "weights_sha256": facts.weights_sha256,
        },
        "decode": decode_facts(run),
        "training": {"run digest": run.digest(), "checkpoint": facts.provenance["checkpoint"], "chosen by": run.train.select},
        "software": facts.provenance["environment"],
    }
    return model_card(None, title=facts.name, facts=known, task=run.task)
