"""`weights list` and `weights fetch` against a server that misbehaves: resumed, checked, and one sentence for every fault."""

import dataclasses
import hashlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sign_dist.cli import main
from sign_dist.transfer import catalogue
from sign_dist.transfer.catalogue import CATALOGUE, FREE_LICENCES, Published, recognised
from sign_dist.transfer.fetch import weights_dir
from tests.data.fault_server import Answer, FaultServer, fault_server

NAME = "made_up"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with fault_server() as running:
        yield running


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("made") / "a.pth"
    torch.save({"model": {"head.weight": torch.arange(50_000.0)}}, path)
    return path.read_bytes()


class Weights:
    """`sign-dist weights` with one more entry in the catalogue, fetched into a folder."""

    def __init__(self, server: FaultServer, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.server, self.folder, self.patch, self.capsys = server, folder, patch, capsys
        self.target = folder / "made_up.pth"

    def serve(self, body: bytes, *, entry: dict[str, Any] | None = None, **answer: Any) -> None:
        self.server.answers["/made_up.pth"] = Answer(body, **answer)
        facts: dict[str, Any] = {"licence": "MIT", "file": "made_up.pth", "url": self.server.url("made_up.pth"), **(entry or {})}
        self.patch.setitem(catalogue.CATALOGUE, NAME, Published(NAME, "a test", "https://example.org/page", **facts))

    def run(self, *words: object) -> tuple[int, str, str]:
        self.patch.setattr("sys.argv", ["sign-dist", "weights", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def fetch(self, *words: str) -> tuple[int, str]:
        code, _, err = self.run("fetch", NAME, "--out", self.folder, *words)
        return code, err

    def refused(self, *words: str) -> str:
        """The one sentence that is said, and that nothing is left which looks like weights."""
        code, err = self.fetch(*words)
        assert code == 1
        assert err.count("\n") == 1, err
        assert err.startswith("sign-dist: ")
        assert not self.target.exists()
        return err


@pytest.fixture
def weights(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Weights:
    return Weights(server, tmp_path / "weights", monkeypatch, capsys)


def test_a_file_is_fetched_once_and_said_what_it_is(weights: Weights, checkpoint: bytes) -> None:
    digest = hashlib.sha256(checkpoint).hexdigest()
    weights.serve(checkpoint, entry={"sha256": digest, "size_bytes": len(checkpoint)})
    code, err = weights.fetch()
    assert code == 0
    assert weights.target.read_bytes() == checkpoint
    assert all(text in err for text in (f"{len(checkpoint):,} bytes", digest, "(the published one)", "licence MIT"))
    code, err = weights.fetch()
    assert (code, "there before" in err, len(weights.server.seen)) == (0, True, 1)
    weights.target.write_bytes(b"other")
    code, err = weights.fetch()
    assert code == 1
    assert "is there and is another file" in err
    assert weights.target.read_bytes() == b"other", "a user's file is not written over"
    assert weights.run("inspect", weights.target)[0] == 1


@pytest.mark.long
def test_a_broken_transfer_goes_on_at_its_byte(weights: Weights, checkpoint: bytes) -> None:
    weights.serve(checkpoint, entry={"sha256": hashlib.sha256(checkpoint).hexdigest()})
    weights.server.answers["/made_up.pth"] = [Answer(checkpoint, cut=70_000, reset=True), Answer(checkpoint)]
    assert weights.fetch()[0] == 0
    assert weights.target.read_bytes() == checkpoint
    ranges = [seen.range for seen in weights.server.seen]
    assert ranges[0] == ""
    assert re.fullmatch(r"bytes=[1-9]\d*-", ranges[1])
    assert weights.server.sent_bytes() < 1.7 * len(checkpoint)


PROGRAM = """
import sys
from sign_dist.transfer import catalogue
from sign_dist.cli import main
catalogue.CATALOGUE["made_up"] = catalogue.Published(
    "made_up", "a test", "https://example.org/page", licence="MIT", file="made_up.pth", url=sys.argv[1]
)
sys.argv = ["sign-dist", "weights", "fetch", "made_up", "--out", sys.argv[2]]
main()
"""


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_fetch_goes_on_with_the_same_command(weights: Weights, checkpoint: bytes, how: signal.Signals) -> None:
    weights.serve(checkpoint, pace_s=0.1, piece=8192)
    part = weights.folder / "made_up.pth.part"
    words = [sys.executable, "-c", PROGRAM, weights.server.url("made_up.pth"), str(weights.folder)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 20_000):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(how)
    said = process.communicate(timeout=30)[1].decode()
    assert not weights.target.exists()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in said
    there = part.stat().st_size
    weights.serve(checkpoint)
    assert weights.fetch()[0] == 0
    assert weights.target.read_bytes() == checkpoint
    assert weights.server.seen[-1].range == f"bytes={there}-"


FAULTS: dict[str, tuple[bytes | None, dict[str, Any], dict[str, Any], str]] = {
    "404": (b"", {"status": 404}, {}, r"\(not_found, 404.*it may have moved; its page is https://example\.org/page"),
    "a login": (b"", {"status": 403}, {}, r"\(refused, 403.*fetch it with a browser"),
    "a web page": (b"<!DOCTYPE html><html><title>Sign in</title></html>", {}, {}, r"\(is_text, .*Sign in.*in a browser"),
    "a web page in place of a known file": (b"<html>quota exceeded</html>", {}, {"sha256": "0" * 64, "size_bytes": 9}, "is_text"),
    "another file": (None, {}, {"sha256": "0" * 64}, r"\(wrong_sha256, [0-9a-f]{64}, .*do not trust it"),
    "another size": (None, {}, {"size_bytes": 9}, r"\(wrong_size, \d+ bytes, .* 9\): .*do not trust it"),
    "nothing": (b"", {}, {}, r"\(empty, 0 bytes\)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_the_published_file_never_gets_its_name(name: str, weights: Weights, checkpoint: bytes) -> None:
    body, answer, entry, text = FAULTS[name]
    weights.serve(checkpoint if body is None else body, entry=entry, **answer)
    assert re.search(text, weights.refused())
    assert not list(weights.folder.glob("*.part")) or name == "404"


def test_a_licence_is_agreed_to_first(weights: Weights, checkpoint: bytes) -> None:
    for licence, text in (("CC-BY-NC-4.0", "is under CC-BY-NC-4.0"), ("", "has a licence that is not known here")):
        weights.serve(checkpoint, entry={"licence": licence})
        said = weights.refused()
        assert text in said
        assert "https://example.org/page" in said
        assert "--accept-licence" in said
    assert not weights.server.seen, "nothing was asked for"
    code, err = weights.fetch("--accept-licence")
    assert (code, "licence not known" in err, "none is published" in err) == (0, True, True)


def test_no_address_no_name_and_no_room_are_one_sentence(weights: Weights, checkpoint: bytes, tmp_path: Path) -> None:
    weights.serve(checkpoint, entry={"url": ""})
    assert "get made_up.pth from https://example.org/page with a browser" in weights.refused()
    code, _, err = weights.run("fetch", "made_upp")
    assert (code, err.count("\n"), "did you mean 'made_up'?" in err) == (1, 1, True)
    weights.serve(checkpoint)
    (tmp_path / "file").write_text("")
    weights.folder = tmp_path / "file" / "x"
    assert "cannot be written" in weights.fetch()[1]


def test_a_folder_can_be_named_once_for_all(
    weights: Weights, checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.serve(checkpoint)
    monkeypatch.setenv("SIGN_DIST_MODELS", str(tmp_path / "mine"))
    assert weights.run("fetch", NAME)[0] == 0
    assert (tmp_path / "mine" / "made_up.pth").read_bytes() == checkpoint
    monkeypatch.delenv("SIGN_DIST_MODELS")
    assert weights_dir().is_relative_to(Path.home())


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_names_every_entry_on_a_line_of_its_own(weights: Weights) -> None:
    code, out, _ = weights.run("list")
    assert code == 0
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    for line, entry in zip(lines, CATALOGUE.values(), strict=True):
        assert entry.what in line
        assert (entry.licence or "not known") in line
        assert line.endswith("fetch" if entry.url else "browser")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_says_all_that_is_known_of_it(weights: Weights, name: str) -> None:
    entry = CATALOGUE[name]
    code, out, _ = weights.run("list", name)
    assert code == 0
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        for part in value if isinstance(value, tuple) else [value]:
            for text in part if isinstance(part, tuple) else [part]:
                assert (f"{text:,}" if isinstance(text, int) and text else str(text or "")) in out, field.name
    assert ("--accept-licence" in out) == (bool(entry.url) and entry.licence not in FREE_LICENCES)
    file = entry.file.replace("*", "iters=1")
    assert recognised(file) == entry, "a file is known by its name"
    assert entry.url == "" or entry.url.endswith(f"/{entry.file}")
    assert entry.url == "" or entry.url.startswith("https://")
    assert re.fullmatch(r"[0-9a-f]{64}|", entry.sha256)
