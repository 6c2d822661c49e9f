"""Wrong words, missing things and damaged files: one sentence with the value, what is allowed and the remedy; no traceback."""

import socket
from pathlib import Path

import pytest

from sign_dist.cli import main


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command."""
    monkeypatch.setattr("sys.argv", ["sign-dist", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


MENDABLE = [
    (("train", "jobs/islr.py", "train.optim.lrr=1"), ["train.optim.lrr", "did you mean 'lr'?"]),
    (("train", "jobs/islr.py", "train.epochs=ten"), ["train.epochs", "'ten'", "integer"]),
    (("train", "jobs/islr.py", "train.epochs"), ["'train.epochs'", "name=value"]),
    (("train", "jobs/islrr.py"), ["jobs/islrr.py", "did you mean 'islr.py'?"]),
    (("train", "README.md"), [".md", ".py, .json or .yaml"]),
    (("train", "jobs/islr.py", "data.root=nowhere"), ["nowhere", "does not exist", "sign-dist prepare"]),
    (("train", "jobs/islr.py", "model.kind=signhiera"), ["signhiera", "frames", "landmarks"]),
    (("train", "jobs/islr.py", "scale.workers=17"), ["train.batch_size", "train.parts", "17"]),
    (("prepare", "foldr", ".", "out"), ["'foldr'", "folder, table, synthetic", "did you mean 'folder'?"]),
    (("prepare", "folder", "nowhere", "out"), ["'nowhere'", "give the folder"]),
    (("prepare", "folder", ".", "out", "lr=3"), ["'lr'", "split.*, glosses.* and sampling.*"]),
    (("prepare", "table", ".", "out", "split.by=size"), ["by", "'size'", "'gloss'"]),
    (("extract", "nowhere"), ["'nowhere'", "does not exist"]),
    (("extract", "nowhere", "--features", "landmark"), ["'landmark'", "did you mean 'landmarks'?"]),
    (("extract", "nowhere", "sampling.fpss=3"), ["sampling.fpss", "did you mean 'fps'?"]),
    (("evaluate", "nowhere"), ["'nowhere'", "no run directory", "sign-dist train"]),
    (("export", "nowhere"), ["'nowhere'", "no run directory"]),
    (("predict", "nowhere", "x.mp4"), ["'nowhere'", "no bundle", "sign-dist export"]),
    (("serve", "nowhere"), ["'nowhere'", "no bundle"]),
    (("tune", "jobs/islr.py", "tune_spaces/nothing.py"), ["nothing.py", "space()"]),
    (("quickstart", "--videos", "nowhere"), ["nowhere'", "one folder per sign"]),
    (("quickstart", "--features", "pixels"), ["'pixels'", "landmarks"]),
    (("recipe", "jobs/recipes/synthetic_isl.py"), ["synthetic_isl.py'", "did you mean 'synthetic_islr.py'?"]),
    (("recipe", "jobs/recipes/synthetic_islr.py", "train.train.epoch=3"), ["stage 'train'", "did you mean 'epochs'?"]),
]


@pytest.mark.ray  # some verbs import Ray before they see the fault; none starts it
@pytest.mark.parametrize(("words", "parts"), MENDABLE, ids=[" ".join(words) for words, _ in MENDABLE])
def test_a_fault_the_user_can_mend_is_one_sentence(
    words: tuple[str, ...], parts: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capsys, monkeypatch, *words)
    assert code == 1
    lines = [line for line in err.splitlines() if line and not line.startswith("[")]
    assert len(lines) == 1, err
    assert lines[0].startswith("sign-dist: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("words", [("trian", "x"), ("train",), ("serve", "x", "--port", "99999"), ("predict", "b", "v", "-k", "0")])
def test_wrong_usage_is_two(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run(capsys, monkeypatch, *words)
    assert code == 2
    assert "Traceback" not in err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(capsys, monkeypatch, "--help")
    assert code == 0
    makers = ("synth", "prepare", "extract", "train", "tune", "evaluate", "export", "recipe", "quickstart")
    for verb in (*makers, "predict", "serve", "doctor"):
        assert verb in out


@pytest.mark.ray
def test_missing_model_files_are_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sign_dist.data.prepare import prepare
    from sign_dist.synthetic.corpus import write_corpus

    write_corpus(tmp_path / "c", num_signs=2, num_signers=3, clips_per_sign=1)
    prepare("table", tmp_path / "c", tmp_path / "d")
    monkeypatch.setenv("SIGN_DIST_MODELS", str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, _, err = run(capsys, monkeypatch, "extract", tmp_path / "d")
    assert code == 1
    assert "Traceback" not in err
    assert "landmarker" in err
    assert "SIGN_DIST_MODELS" in err


@pytest.mark.ray
def test_a_taken_port_is_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from sign_dist.errors import ServiceError
    from sign_dist.on_ray.serving import refuse_taken_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"{port}.*--port"):
            refuse_taken_port("127.0.0.1", port)


def test_a_vocabulary_of_another_dataset_is_a_sentence(tmp_path: Path) -> None:
    from sign_dist.data.vocab import Vocab
    from sign_dist.errors import DataError

    Vocab(("BOOK",)).write(tmp_path / "gloss.txt")
    with pytest.raises(DataError, match="'MILK' is not among the 1"):
        Vocab.read(tmp_path / "gloss.txt").id("MILK")


@pytest.mark.long
def test_doctor_tells_good_from_bad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.9.8.7:6379")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SIGN_DIST_MODELS", raising=False)
    code, _, err = run(capsys, monkeypatch, "doctor")
    assert code == 1
    assert "BAD  RAY_ADDRESS: 10.9.8.7:6379 -> " in err
    assert "BAD  MediaPipe model files" in err
    assert "ok   torch" in err
