"""Weights files from end to end: inspect and convert whatever people have, and one clear sentence for what is no weights file."""

import dataclasses
import io
import json
import math
import os
import pickle
import re
import tarfile
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from sign_dist.cli import main
from sign_dist.errors import WeightsError
from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.temporal_i3d import PRESETS, TemporalI3d
from sign_dist.transfer.architecture import guess
from sign_dist.transfer.catalogue import CATALOGUE, recognised
from sign_dist.transfer.convert import colour_order, convert, tensors_for
from sign_dist.transfer.kernels import Method, adapter, kernel_in_time, temporal_name
from sign_dist.transfer.load import LoadReport, fit_to, load_into
from sign_dist.transfer.weights_file import file_digest, read_weights

LARGE = 150_000_000
"""Manifests with more numbers than this are converted by a slow test."""


def said(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    text = str(error.value)
    assert "\n" not in text
    assert repr(str(path)) in text
    assert len(text) < 400
    return text


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["sign-dist", "weights", *map(str, words)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err  # type: ignore[return-value]


# --- every layout that is published -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
    """A list of keys: shapes by name, and names that share the tensor of another."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    aliases: dict[str, str]

    @property
    def num_parameters(self) -> int:
        """Without what BatchNorm measured."""
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        return sum(math.prod(s) for key, s in self.shapes.items() if key not in self.aliases and not key.endswith(statistics))


def layouts(folder: Path) -> list[Layout]:
    """Every list of keys below a folder, in whichever of its three forms."""
    found: list[Layout] = []
    for file in sorted({*folder.rglob("manifest*.json"), *folder.rglob("*checkpoint_shapes.json")}):
        tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        name = f"{file.parent.name}-{file.stem}"
        if "keys" in tree:
            found.append(Layout(name, {row["key"]: tuple(row["shape"]) for row in tree["keys"]}, {}))
        elif all(isinstance(value, list) for value in tree.values()):
            found.append(Layout(name, {key: tuple(shape) for key, shape in tree.items()}, {}))
        else:
            whole = all("shape" in value for value in tree.values())
            for part, keys in ({name: tree} if whole else {f"{name}-{k}": v for k, v in tree.items()}).items():
                shapes = {key: tuple(value["shape"]) for key, value in keys.items()}
                found.append(Layout(part, shapes, {k: value["alias_of"] for k, value in keys.items() if "alias_of" in value}))
    return found


@pytest.fixture(scope="session")
def all_layouts(parity_folder: Path) -> list[Layout]:
    """Those of the vectors, and whatever else lies in the folder with large files, where that is there."""
    shared = Path(os.environ.get("SIGN_DIST_SHARED", "") or Path(__file__).resolve().parents[3] / "shared")
    found = {(layout.name, layout.num_parameters): layout for folder in (parity_folder, shared) for layout in layouts(folder)}
    assert found
    return list(found.values())


def stand_ins(layout: Layout) -> dict[str, Tensor]:
    """Tensors of these shapes that take no room: one number each, another one in every tensor."""
    numbers = torch.arange(len(layout.shapes), dtype=torch.float32) / 64
    own = {n: numbers[i].clone().to(torch.bfloat16).expand(shape) for i, (n, shape) in enumerate(layout.shapes.items())}
    return own | {alias: own[name] for alias, name in layout.aliases.items()}


def facts(out: str) -> dict[str, str]:
    """The lines of names and values that `inspect` begins with."""
    return {line[:16].strip(): line[17:] for line in out.splitlines() if line[16:17] == " "}


def check_round_trip(folder: Path, layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """inspect a checkpoint of this layout, convert it, inspect what was made of it, and compare the two."""
    source, target = folder / "checkpoint.pth", folder / "converted.safetensors"
    tensors = stand_ins(layout)
    torch.save({"model": {f"module.{key}": tensor for key, tensor in tensors.items()}, "epoch": 3}, source)
    code, out, err = run(capsys, monkeypatch, "inspect", source, "--all")
    assert (code, err) == (0, "")
    said, listed = facts(out), [tuple(line.split()) for line in out.splitlines()]
    assert (said["container"], said["beside it"], said["types"]) == ("model", "epoch", "bfloat16")
    assert said["parameters"] == f"{layout.num_parameters:,}"
    assert said["looks like"] != "nothing that is known here", layout.name
    for key, shape in layout.shapes.items():
        assert (key, "x".join(map(str, shape)) or "scalar", "bfloat16") in listed
    code, out, err = run(capsys, monkeypatch, "convert", source, target)
    assert (code, out) == (0, "")
    assert f"{len(tensors)} tensors; source checkpoint.pth, source_sha256 {file_digest(source)}, source_container model" in err
    again = read_weights(target)
    assert list(again.tensors) == list(tensors), "names and their order"
    for key, tensor in tensors.items():
        assert again.tensors[key].dtype == tensor.dtype
        assert torch.equal(again.tensors[key], tensor), key
    assert again.aliases.keys() == layout.aliases.keys()
    code, out, err = run(capsys, monkeypatch, "inspect", target, "--model", source)
    assert code == 0
    assert f"{len(tensors)} loaded, 0 adapted, 0 skipped, 0 missing, 0 misshaped (100% of what the model needs)" in err
    assert facts(out)["looks like"] == said["looks like"]
    assert facts(out)["source"] == "checkpoint.pth"
    assert len(out.splitlines()) == len(facts(out)), "no row: everything fits"
    target.unlink()
    source.unlink()


@pytest.mark.long
def test_every_published_layout_is_inspected_and_converted(
    tmp_path: Path, all_layouts: list[Layout], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for layout in all_layouts:
        if layout.num_parameters < LARGE:
            check_round_trip(tmp_path, layout, capsys, monkeypatch)


@pytest.mark.slow
def test_the_largest_layouts_too(
    tmp_path: Path, all_layouts: list[Layout], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for layout in all_layouts:
        if layout.num_parameters >= LARGE:
            check_round_trip(tmp_path, layout, capsys, monkeypatch)


def test_layouts_are_told_apart(all_layouts: list[Layout]) -> None:
    kinds = {
        "i3d_rgb": "Inception-I3D, RGB",
        "mae": "masked autoencoder",
        "signhiera_tiny": "SignHiera",
        "sign_encoder": "sign encoder",
        "text_decoder": "text decoder",
    }
    for layout in all_layouts:
        for part, kind in kinds.items():
            if part in layout.name:
                assert guess(stand_ins(layout)).startswith(kind), layout.name


def test_the_manifests_are_the_models(parity_folder: Path) -> None:
    from sign_dist.cli_weights import shapes_of

    named = {layout.name: layout for layout in layouts(parity_folder)}
    pairs = {
        "i3d-manifest_i3d_rgb_400": "i3d_400",
        "i3d-manifest_i3d_rgb_2000": "i3d_2000",
        "signhiera_base_128x224-mae_checkpoint_shapes": "signhiera_mae_base_128x224",
    }
    if missing := pairs.keys() - named.keys():
        pytest.skip(f"this set of parity vectors has no {', '.join(missing)}")
    for name, model in pairs.items():
        report = fit_to(shapes_of(model), stand_ins(named[name])).report
        assert report.match == 1, report.lacking[:5]
        assert report.skipped == (), model
    mae = stand_ins(named["signhiera_base_128x224-mae_checkpoint_shapes"])
    entry = CATALOGUE["signhiera_dm70h"]
    report = fit_to(shapes_of("signhiera_base_128x224"), mae, ignore=entry.may_lack).report
    assert report.match == 1
    assert report.skipped
    assert all(name.startswith(entry.may_add) for name in report.skipped)


def test_a_real_checkpoint_round_trips(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_folder / "models" / "checkpoints" / "sign_letters_lstm" / "best_model_2hand.pth"
    entry = recognised(source.name)
    assert entry is not None
    assert (source.stat().st_size, file_digest(source)) == (entry.size_bytes, entry.sha256)
    code, out, _ = run(capsys, monkeypatch, "inspect", source)
    assert code == 0
    for text in (
        "925,977",
        "LSTM, 126 -> 256, 2 layers, then linear 256 -> 25",
        "MIT",
        entry.sha256,
        "lstm.weight_ih_l0",
        "25x256",
    ):
        assert text in out
    target = tmp_path / "letters.safetensors"
    assert run(capsys, monkeypatch, "convert", source, target)[0] == 0
    before, after = read_weights(source), read_weights(target)
    assert list(after.tensors) == list(before.tensors)
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert after.metadata["source_sha256"] == entry.sha256
    code, out, err = run(capsys, monkeypatch, "inspect", target, "--model", source)
    assert code == 0
    assert "10 loaded, 0 adapted, 0 skipped, 0 missing, 0 misshaped (100% of what the model needs)" in err
    assert "MIT" in out, "the licence travels"
    net = nn.ModuleDict({"lstm": nn.LSTM(126, 256, num_layers=2, batch_first=True), "fc": nn.Linear(256, 25)})
    assert load_into(net, after.tensors).match == 1
    code, out, err = run(capsys, monkeypatch, "inspect", source, "--model", "signhiera_tiny")
    assert code == 1
    assert "0 loaded" in err
    assert re.search(r"\nsign-dist: only 0 of \d+ tensors fit the model \(0%, .*: the weights belong to another model", err)
    with pytest.raises(WeightsError, match="belong to another model"):
        load_into(nn.Linear(2, 2), before.tensors, min_match=0)


# --- what is no weights file ------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (self.path,))


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pt"), io.BytesIO())
    return content.getvalue()


def numpy_archive() -> bytes:
    content = io.BytesIO()
    np.savez(content, a=np.zeros(3))
    return content.getvalue()


def script() -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), content)
    return content.getvalue()


def saved(value: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content, **options)
    return content.getvalue()


BIG = {"a": torch.arange(3000.0)}
OTHERS: dict[str, tuple[Any, str, str]] = {
    "nothing": (b"", "it is empty", "download it again"),
    "web page": (b"\n<!DOCTYPE html><title>Sign in</title>", "a web page", "in a browser"),
    "error text": (b"Not Found\n", "text that begins 'Not Found", "download it again"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS", "git lfs pull"),
    "keras h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "Keras"),
    "keras": (zipped(config_dot_json=b"{}", model_dot_weights_dot_h5=b"x"), "a Keras archive", "safetensors"),
    "npz": (numpy_archive, ".npz", "features"),
    "npy": (b"\x93NUMPY\x01\x00", "a single numpy array", "named tensors"),
    "tar": (tarred, "a tar archive", "unpack"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "a gzip archive", "unpack"),
    "zip": (zipped(readme=b"hello"), "a zip archive", "unpack"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite", "original"),
    "gguf": (b"GGUF\x03\0\0\0", "GGUF", "original"),
    "torchscript": (script, "TorchScript, which is a program", "state dict"),
    "whole module": (lambda: saved(nn.Linear(2, 2)), "would run 'torch.nn.modules.linear.Linear'", "safetensors"),
    "plain pickle": (pickle.dumps({"a": np.zeros(3)}), "a pickle that torch did not write", "torch.save"),
    "noise": (bytes(range(1, 200)), "of no kind that is known", ".safetensors"),
    "cut off": (lambda: saved(BIG)[:6000], "cut off", "download it again"),
    "cut off, old": (lambda: saved(BIG, _use_new_zipfile_serialization=False)[:6000], "cut off", "download it again"),
    "cut safetensors": (
        b"\x40\0\0\0\0\0\0\0{" + b'"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
        "cut off",
        "download it again",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_file_is_named(
    tmp_path: Path, kind: str, suffix: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, what, remedy = OTHERS[kind]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content() if callable(content) else content)
    text = said(path)
    assert what in text
    assert remedy in text.partition(what)[2]
    for verb in (("inspect", path), ("convert", path, tmp_path / "out.safetensors")):
        code, _, err = run(capsys, monkeypatch, *verb)
        assert code == 1
        assert err == f"sign-dist: {text}\n"
    assert not (tmp_path / "out.safetensors").exists()


def test_code_is_named_and_never_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "a.pt"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        path.write_bytes(saved({"model": {"a": torch.zeros(1)}, "args": Bomb(mark)}, **options))
        assert "would run" in said(path)
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    said(path)
    assert not mark.exists()


def test_options_and_numbers_beside_the_weights_are_no_code(tmp_path: Path) -> None:
    content = {
        "model": {"a": torch.ones(2)},
        "args": Namespace(lr=0.1),
        "best": np.float64(3),
        "loss": np.float32(1),
        "n": np.int64(2),
    }
    (tmp_path / "a.pt").write_bytes(saved(content))
    found = read_weights(tmp_path / "a.pt")
    assert (found.container, found.beside) == ("model", ("args", "best", "loss", "n"))


@given(st.integers(0, 11_999), st.integers(1, 255))
def test_a_changed_number_in_a_zipped_file_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, by: int) -> None:
    path = tmp_path_factory.mktemp("w") / "a.pt"
    content = bytearray(saved(BIG))
    start = bytes(content).find(BIG["a"].numpy().tobytes())
    assert start > 0
    content[start + place] = (content[start + place] + by) % 256
    path.write_bytes(content)
    assert "check sum" in said(path)


@pytest.mark.parametrize(
    ("content", "container"),
    [
        ({"student": {"a": torch.ones(1)}, "model": {"b": torch.ones(1)}}, "student"),
        ({"weights": {"a": torch.ones(1)}, "epoch": 3}, "weights"),
        ({"model": {"state_dict": {"module._orig_mod.a": torch.ones(1)}}}, "model.state_dict"),
        ({"a": torch.ones(1), "meta": {"x": 1}}, ""),
    ],
)
def test_containers_are_found(tmp_path: Path, content: Any, container: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    found = read_weights(tmp_path / "a.pt")
    assert (found.container, list(found.tensors)) == (container, ["a"])


def test_a_container_can_be_named(tmp_path: Path) -> None:
    torch.save({"net": {"a": torch.ones(1)}, "ema": {"a": torch.zeros(1)}}, tmp_path / "a.pt")
    assert "it has net, ema" in said_of_no_tensors(tmp_path / "a.pt")
    assert float(read_weights(tmp_path / "a.pt", container="ema").tensors["a"]) == 0
    with pytest.raises(WeightsError, match="no container 'emma': there are net, ema"):
        read_weights(tmp_path / "a.pt", container="emma")


def said_of_no_tensors(path: Path) -> str:
    with pytest.raises(WeightsError, match="it is no checkpoint") as error:
        read_weights(path)
    return str(error.value)


# --- names, shapes, counters ------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=3), st.sampled_from(["", "backbone.", "visual.transformer."]))
def test_prefixes_make_no_difference(tmp_path_factory: pytest.TempPathFactory, wrappers: list[str], prefix: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    path = tmp_path_factory.mktemp("w") / "a.pt"
    torch.save(
        {"".join(wrappers) + prefix + name: t + 1 for name, t in net.state_dict().items()} | {"text.proj": torch.ones(2)}, path
    )
    before = {name: t.clone() for name, t in net.state_dict().items()}
    report = load_into(net, read_weights(path).tensors)
    assert report.match == 1
    assert report.skipped == ("text.proj",)
    assert report.prefix == (f"-{prefix}" if prefix else "")
    assert all(torch.equal(t, before[name] + 1) for name, t in net.state_dict().items())
    outer = nn.ModuleDict({"encoder": net})
    assert load_into(outer, before).prefix == "+encoder."


def test_counters_of_batches_that_old_files_lack_are_not_missing(parity_folder: Path) -> None:
    from sign_dist.cli_weights import shapes_of

    shapes = shapes_of("i3d_400")
    old = {name: torch.empty(shape, device="meta") for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    assert (len(shapes), len(old)) == (344, 287)
    assert fit_to(shapes, old).report.match == 1
    some = old | {"Mixed_5c.b0.bn.num_batches_tracked": torch.empty((), device="meta")}
    assert len(fit_to(shapes, some).report.missing) == 56


def test_renames_and_adaptation_are_reported() -> None:
    entry = CATALOGUE["sonar_sign_encoder_dm70h"]
    assert entry.rename("encoder.feature_proj.weight") == "encoder.feature_projection.feature_proj.weight"
    assert entry.rename("encoder.feature_proj_scale") == "encoder.feature_projection.feature_proj_scale"
    assert entry.rename("encoder.feature_projection.feature_proj.bias") == "encoder.feature_projection.feature_proj.bias"
    shapes = {"a": torch.Size([4, 2, 3]), "b": torch.Size([2]), "c": torch.Size([5])}
    given = {"old_a": torch.ones(4, 2, 3, 7, 7), "b": torch.ones(2), "d": torch.ones(1)}

    def over_space(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
        return tensor.mean(dim=(3, 4)) if tensor.ndim == 5 and len(shape) == 3 else None

    fit = fit_to(shapes, given, rename=lambda name: name.removeprefix("old_"), adapt=over_space)
    r = fit.report
    assert (r.loaded, r.adapted, r.skipped, r.missing, r.misshaped) == (("b",), ("a",), ("d",), ("c",), ())
    assert r.match == pytest.approx(2 / 3)
    plain = fit_to(shapes, given, rename=lambda name: name.removeprefix("old_")).report
    assert (plain.adapted, plain.misshaped) == ((), ("a",))


# --- colours and metadata ---------------------------------------------------------------------------------------------


def test_weights_for_blue_first_answer_the_same_to_red_first_when_turned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1))
    source = tmp_path / "FINAL_nslt_100_iters=896.pt"
    torch.save(net.state_dict(), source)
    assert colour_order(read_weights(source)) == "bgr"
    target = tmp_path / "a.safetensors"
    convert(source, target, to_rgb=True)
    turned = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 1))
    found = read_weights(target)
    assert colour_order(found) == "rgb"
    load_into(turned, found.tensors)
    rgb = torch.randn(2, 3, 4, 5, 5)
    torch.testing.assert_close(turned(rgb), net(rgb.flip(1)))
    load_into(turned, tensors_for(read_weights(source), "rgb"))
    torch.testing.assert_close(turned(rgb), net(rgb.flip(1)))
    load_into(turned, tensors_for(read_weights(source), "bgr"))
    torch.testing.assert_close(turned(rgb), net(rgb))
    assert not torch.allclose(net(rgb), net(rgb.flip(1))), "the test can fail"


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("FINAL_nslt_100_x.pt", {"colour": "rgb"}, "expects bgr, so --colour rgb is wrong"),
        ("a.pt", {"to_rgb": True}, "is not known: say --colour"),
        ("a.pt", {"to_rgb": True, "colour": "bgr"}, "here 0 do"),
    ],
)
def test_colours_that_cannot_be_turned_are_refused(tmp_path: Path, name: str, options: dict[str, Any], text: str) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    with pytest.raises(WeightsError, match=text):
        convert(tmp_path / name, tmp_path / "b.safetensors", **options)
    assert not (tmp_path / "b.safetensors").exists()


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        convert(tmp_path / "a.pt", tmp_path / "b.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="the source itself"):
        convert(tmp_path / "b.safetensors", tmp_path / "b.safetensors")


def test_shared_and_sliced_tensors_are_written_once_and_whole(tmp_path: Path) -> None:
    table = torch.arange(12.0).view(3, 4)
    content = {"embed": table, "head": table, "part": table[1:], "turned": table.t()}
    torch.save(content, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"embed", "part", "turned"}
    again = read_weights(tmp_path / "a.safetensors")
    assert again.aliases == {"head": "embed"}
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in content.items())
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert list(read_weights(tmp_path / "b.safetensors").tensors) == list(content)


@pytest.mark.long
def test_inspect_groups_what_lies_side_by_side_and_never_rounds_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = InceptionI3d(400)
    torch.save(net.state_dict(), tmp_path / "rgb_imagenet.pt")
    code, out, err = run(capsys, monkeypatch, "inspect", tmp_path / "rgb_imagenet.pt", "--model", "i3d_100")
    assert (code, facts(out)["parameters"]) == (0, "12,697,264"), "the published count"
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["misshaped", "logits.conv3d.weight", "100x1024x1x1x1", "400x1024x1x1x1"],
        ["misshaped", "logits.conv3d.bias", "100", "400"],
    ]
    assert "2 misshaped (100% of what the model needs); logits.* may be missing" in err
    for method in get_args(Method):
        words = ("inspect", tmp_path / "rgb_imagenet.pt", "--model", "temporal_i3d1d", "--adapt", method)
        _, out, err = run(capsys, monkeypatch, *words)
        lines = [line.split() for line in out.splitlines()]
        assert ["missing", "lstm.*", "8", "tensors", "-"] in lines
        assert ["adapted", "mixed_3b.*", "6", "tensors", "6", "tensors"] in lines
        assert "56 adapted, 2 skipped, 32 missing, 1 misshaped" in err
        _, out, _ = run(capsys, monkeypatch, *words, "--all")
        assert ["adapted", "mixed_3b.b0.conv.weight", "64x192x1", "64x192x1x1x1"] in [line.split() for line in out.splitlines()]
        assert (
            run(capsys, monkeypatch, "convert", tmp_path / "rgb_imagenet.pt", tmp_path / "t.safetensors", "--adapt", method)[0] == 0
        )
        made = read_weights(tmp_path / "t.safetensors")
        model = TemporalI3d(5, modalities=(4, 8), shape=PRESETS["i3d1d"])
        report = load_into(model, made.tensors, min_match=0.8)
        direct = TemporalI3d(5, modalities=(4, 8), shape=PRESETS["i3d1d"])
        load_into(direct, net.state_dict(), min_match=0.8, rename=temporal_name, adapt=adapter(method))
        taken = direct.state_dict()
        assert all(torch.equal(model.state_dict()[name], taken[name]) for name in report.loaded)
        assert len(report.loaded) == 284 + 57
        kernel = net.Mixed_4f.b1b.conv3d.weight
        assert torch.equal(taken["mixed_4f.b1b.conv.weight"], kernel_in_time(kernel, method))
    for words, text in (
        (
            ("inspect", tmp_path / "rgb_imagenet.pt", "--adapt", "mean"),
            "--adapt 'mean' is not allowed: temporal_mean, spatial_mean",
        ),
        (("convert", tmp_path / "t.safetensors", tmp_path / "u.safetensors", "--adapt", "temporal_max"), "no 3-D kernel"),
    ):
        code, _, err = run(capsys, monkeypatch, *words)
        assert (code, text in err, err.count("\n")) == (1, True, 1)
    one = LoadReport(loaded=("a",) * 297, misshaped=("b",))
    assert str(one).endswith("(99% of what the model needs)")


def test_numbers_that_are_none_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(2), "b": torch.tensor([1.0, math.nan])}, tmp_path / "a.pt")
    code, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "a.pt")
    assert (code, facts(out)["not finite"]) == (0, "b: no model can answer with it")


def test_a_changed_file_under_a_published_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "best_model_2hand.pth")
    _, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "best_model_2hand.pth")
    assert "NOT the published one, e8e17d2bb54b" in facts(out)["sha256"]


def test_every_file_people_keep_beside_models_is_read_or_refused_in_one_sentence(
    shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints, MediaPipe's models, tokenizers, licences: whatever lies there."""
    files = [path for path in sorted((shared_folder / "models").rglob("*")) if path.is_file()]
    assert files
    for path in files:
        code, out, err = run(capsys, monkeypatch, "inspect", path)
        if code:
            assert (code, out, err.count("\n")) == (1, "", 1), path
            assert "holds no weights that can be read safely, it is" in err
            assert not path.suffix.startswith(".p"), "checkpoints are read"
        else:
            assert facts(out)["looks like"] != "nothing that is known here", path


def test_inspect_compares_with_a_model_a_file_or_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"a": torch.ones(2), "b": torch.ones(3), "d": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "m.json").write_text('{"a": [2], "b": [4], "c": [1]}')
    words = ("inspect", tmp_path / "a.pt", "--model", tmp_path / "m.json")
    assert run(capsys, monkeypatch, *words)[0] == 1, "a third fits"
    code, out, err = run(capsys, monkeypatch, *words, "--min-match", 0.3)
    assert code == 0
    assert "1 loaded, 0 adapted, 1 skipped, 1 missing, 1 misshaped (33% of what the model needs)" in err
    assert all(word in out for word in ("misshaped", "missing", "skipped"))
    code, _, err = run(capsys, monkeypatch, "inspect", tmp_path / "a.pt", "--model", "signhiera_tny")
    assert (code, "did you mean 'signhiera_tiny'?" in err) == (1, True)
    (tmp_path / "m.json").write_text("[1]")
    code, _, err = run(capsys, monkeypatch, "inspect", tmp_path / "a.pt", "--model", tmp_path / "m.json")
    assert (code, "must map names to shapes" in err) == (1, True)
