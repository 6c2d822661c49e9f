"""Weights files as people have them: read whatever holds tensors, run nothing, and say what did not fit."""

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sign_dist.errors import WeightsError
from sign_dist.transfer.load import CONTAINERS, file_digest, load_into, read_state_dict


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"body": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 2)})


def weights() -> dict[str, Tensor]:
    return {name: torch.full_like(t, i + 1.0) for i, (name, t) in enumerate(model().state_dict().items())}


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("container", ["", *CONTAINERS])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_are_found_in_any_usual_container(tmp_path: Path, container: str, prefix: str) -> None:
    content: Any = {prefix + name: t for name, t in weights().items()}
    content = {container: content, "epoch": 3, "optimizer": {"lr": 0.1}} if container else content
    torch.save(content, tmp_path / "a.pth")
    found = read_state_dict(tmp_path / "a.pth")
    assert found.keys() == weights().keys()
    assert all(torch.equal(found[name], t) for name, t in weights().items())
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(tmp_path / "old.pth").keys() == weights().keys()


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors")
    assert all(torch.equal(t, weights()[name]) for name, t in read_state_dict(tmp_path / "a.safetensors").items())
    assert len(file_digest(tmp_path / "a.safetensors")) == 64


class Bomb:
    """Unpickling it would make a file: code in a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": {"a": torch.zeros(1)}, "args": Bomb(mark)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(mark)))
    for name in ("a.pt", "b.pt"):
        assert "read safely" in refused(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors", "a"])
@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html>\n<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02}q\x00.", b"PK\x03\x04"],
)
def test_what_is_no_weights_file_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "holds no" in refused(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}, {}, torch.zeros(2), {"model": {"a": 1}}])
def test_a_file_without_named_tensors_is_no_checkpoint(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert "it is no checkpoint" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.pt":
        torch.save(weights(), path)
    else:
        save_file(weights(), path)
    whole, rng = path.read_bytes(), random.Random(0)
    for i in range(60):
        content = bytearray(whole)
        if i % 2:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(8):
                content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content))
        told = ""
        try:
            assert read_state_dict(path)
        except WeightsError as error:
            told = str(error)
        assert "\n" not in told


def test_no_file_is_said(tmp_path: Path) -> None:
    assert "no weights file" in refused(tmp_path / "none.pt")
    assert "no weights file" in refused(tmp_path)


def test_what_fits_is_loaded_and_the_rest_reported() -> None:
    net, given = model(), weights()
    report = load_into(net, given)
    assert report.match == 1
    assert all(torch.equal(t, given[name]) for name, t in net.state_dict().items())
    net, given = model(), weights() | {"head.weight": torch.zeros(7, 4), "decoder.weight": torch.zeros(2)}
    del given["norm.bias"]
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(WeightsError, match=r"only 4 of 6 tensors fit .*norm\.bias, head\.weight"):
        load_into(net, given)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items()), "a refused file changes nothing"
    report = load_into(net, given, min_match=0.5)
    assert (report.misshaped, report.missing, report.skipped) == (("head.weight",), ("norm.bias",), ("decoder.weight",))
    assert report.match == pytest.approx(4 / 6)
    assert torch.equal(net.state_dict()["head.weight"], before["head.weight"])
    assert torch.equal(net.state_dict()["head.bias"], given["head.bias"])


def test_ignored_names_may_be_missing_but_are_loaded_where_they_are_there() -> None:
    net, given = model(), weights()
    del given["head.weight"]
    report = load_into(net, given, ignore=("norm.", "head."))
    assert report.match == 1
    assert torch.equal(net.state_dict()["norm.weight"], given["norm.weight"])
    assert torch.equal(net.state_dict()["head.bias"], given["head.bias"])
    assert report.skipped == ()
    load_into(model(), {name: t for name, t in given.items() if name.startswith("body")}, ignore=("norm.", "head."))
    with pytest.raises(WeightsError, match="another model"):
        load_into(model(), {"norm.weight": given["norm.weight"]}, ignore=("norm.", "head."))
