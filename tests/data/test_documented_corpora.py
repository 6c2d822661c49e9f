"""Every corpus that docs/data.md shows, from download to a ready dataset: its commands are read there and run here.

They go through the real command line, but without Ray: clips are checked, and features computed, in this process. The worlds in
which they run stand in corpus_worlds.py. A command that is added to the page needs a world there, or these tests fail.
"""

import contextlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sign_dist.cli import main
from sign_dist.config.data import FEATURES, FrameFeatures, Sampling
from sign_dist.data.corpora import CORPORA
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest, read_rejected, read_tsv
from sign_dist.data.prepare import check_one_by_one
from sign_dist.data.vocab import Vocab
from sign_dist.features.store import FeatureStore
from tests.conftest import Paint
from tests.data.corpus_worlds import LISTS, WORLDS, Media, Outcome, Place, youtube_fetch
from tests.data.fault_server import FaultServer, fault_server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


@dataclass
class Story:
    """One corpus as the page tells it: its downloads, its `prepare`, and what is extracted from that dataset."""

    name: str
    downloads: list[list[str]] = field(default_factory=list[list[str]])
    prepare: list[str] = field(default_factory=list[str])
    extracts: list[list[str]] = field(default_factory=list[list[str]])


def section(title: str) -> str:
    """The text below a heading of the page, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE.name} has no section {title!r}"
    return found[1]


def stories(text: str) -> list[Story]:
    """The commands of the ```text fences; a download belongs to the `prepare` after it, an `extract` to that of its dataset."""
    told: list[Story] = []
    for fence in re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        links: list[list[str]] = []
        for line in fence.splitlines():
            match shlex.split(line, comments=True):
                case ["sign-dist", "download", *words]:
                    links.append(words)
                case ["sign-dist", "prepare", reader, raw, dataset, *values]:
                    told.append(Story(reader, links, [reader, raw, dataset, *values]))
                    links = []
                case ["sign-dist", "extract", dataset, *values] if any(s.prepare[2:3] == [dataset] for s in told):
                    next(s for s in told if s.prepare[2:3] == [dataset]).extracts.append([dataset, *values])
                case _:
                    raise ValueError(f"{PAGE.name} shows {line!r}, which this test cannot run: teach it, or correct the page")
        told += [Story(LISTS.get(Path(words[0]).name, words[0]), [words]) for words in links]
    return told


STORIES = stories(section("Corpora"))
DOWNLOADS = stories(section("Download a corpus"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Media:
    return Media(tmp_path_factory.mktemp("media"), paint)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture
def place(
    tmp_path: Path, media: Media, server: FaultServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Place:
    """An empty corpus folder `raw`, where the commands are typed beside."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    built = Place(tmp_path / "raw", media, server, {}, lambda: request.getfixturevalue("shared_folder"))
    monkeypatch.setattr("sign_dist.data.youtube.fetch", youtube_fetch(built.youtube))
    return built


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` and `extract` in this process; frames stand for the usual features, which need model files and time."""
    from sign_dist.features.blocks import compute
    from sign_dist.features.encode import build_encoder

    def compute_here(todo: Any, features: Any, progress: Any) -> None:
        for block in todo.blocks:
            compute(block, todo.store, features, build_encoder(features, todo.files))

    monkeypatch.setattr("sign_dist.on_ray.cluster.connected", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr("sign_dist.on_ray.clips.check_all", lambda *words, progress=None: check_one_by_one(*words))
    monkeypatch.setattr("sign_dist.on_ray.extraction._compute", compute_here)
    monkeypatch.setitem(FEATURES, "landmarks", FrameFeatures)


def build(story: Story, place: Place) -> Outcome:
    """The world of a story."""
    if story.name not in WORLDS:
        shown = shlex.join(["sign-dist prepare", *story.prepare] if story.prepare else ["sign-dist download", *story.downloads[0]])
        pytest.fail(f"{PAGE.name} shows {shown!r}, and no world to run it in: add one to WORLDS in tests/data/corpus_worlds.py")
    return WORLDS[story.name](place)


def type_(monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str]) -> None:
    """Run a command as a user would, to its end."""
    monkeypatch.setattr("sys.argv", ["sign-dist", verb, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0), f"sign-dist {verb} {shlex.join(words)}"


def run_downloads(story: Story, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list is fetched; what has gone is a row."""
    there: set[str] = set()
    for words in story.downloads:
        type_(monkeypatch, "download", words)
        name, folder = Path(words[0]).name, Path(words[1])
        there |= outcome.fetched[name]
        assert {row["path"] for row in read_tsv(folder / "downloads.tsv")} == there
        assert {row["id"] for row in read_tsv(folder / "failed.tsv")} == outcome.dead[name]
        assert all((folder / path).stat().st_size for path in there)


@pytest.mark.long  # prepare and extract import Ray; none starts it
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
@pytest.mark.usefixtures("without_ray")
def test_a_documented_corpus_becomes_a_dataset(story: Story, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = build(story, place)
    run_downloads(story, outcome, monkeypatch)
    assert story.prepare, f"{PAGE.name} downloads {story.name} and does not prepare it"
    type_(monkeypatch, "prepare", story.prepare)

    dataset, corpus = DatasetDir(Path(story.prepare[2])), CORPORA[story.name]
    facts = dataset.facts()
    assert [facts[name] for name in ("corpus", "language", "task", "licence")] == [
        corpus.name, corpus.language, corpus.task, corpus.licence,
    ]  # fmt: skip
    clips = [clip for split in SPLITS for clip in read_manifest(dataset, split)]
    rejected = read_rejected(dataset)
    assert facts["counts"] == dict.fromkeys(SPLITS, 0) | outcome.counts
    assert facts["rejected"] == {reason: count for reason, count in outcome.rejected.items() if count}
    assert (len(clips), len(rejected)) == (sum(outcome.counts.values()), sum(outcome.rejected.values()))
    vocab = list(Vocab.read(dataset.vocab_file).glosses) if dataset.vocab_file.exists() else []
    assert len(vocab) == facts["num_glosses"]
    outcome.check({clip.id: clip for clip in clips}, vocab)
    for words in story.extracts:
        type_(monkeypatch, "extract", words)
        assert clips_without_features(dataset, words) == {}


def clips_without_features(dataset: DatasetDir, words: list[str]) -> dict[str, str]:
    """Clip -> error, of the features that an `extract` made; every clip has a row."""
    sampling = dict(word.removeprefix("sampling.").split("=") for word in words[1:])
    store = FeatureStore.find(dataset, FrameFeatures(sampling=FrameFeatures().sampling.with_values(sampling)))
    errors, clips = store.errors(), [clip for split in SPLITS for clip in read_manifest(dataset, split)]
    assert {clip.key for clip in clips} == set(errors)
    return {clip.id: errors[clip.key] for clip in clips if errors[clip.key]}


@pytest.mark.long
@pytest.mark.parametrize("story", DOWNLOADS, ids=lambda story: story.name)
def test_a_documented_download_brings_what_is_left(story: Story, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run_downloads(story, build(story, place), monkeypatch)


@pytest.mark.long  # see above
@pytest.mark.usefixtures("without_ray")
def test_long_sentences_need_the_sampling_that_the_page_says(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (story,) = (story for story in STORIES if story.name == "how2sign")
    build(story, place)
    type_(monkeypatch, "prepare", story.prepare)
    dataset = DatasetDir(Path(story.prepare[2]))
    assert dataset.facts()["sampling"]["max_seconds"] > Sampling().max_seconds
    type_(monkeypatch, "extract", story.prepare[2:3])
    (failed,) = clips_without_features(dataset, story.prepare[2:3]).items()
    assert failed[0] == "longlonglon_0-1-rgb_front"
    assert failed[1].startswith("too_long")


def test_every_reader_of_a_corpus_is_shown() -> None:
    shown = {CORPORA[story.name].reader for story in STORIES}
    assert shown == {corpus.reader for corpus in CORPORA.values()}
    assert set(WORLDS) == {story.name for story in STORIES}
    assert {story.name for story in DOWNLOADS} == {story.name for story in STORIES if story.downloads}


def test_the_table_of_the_page_says_what_a_dataset_says() -> None:
    above = ""
    for readers, task, languages, counts, licence in re.findall(
        r"^\| (`.*?) \|(.*?)\|(.*?)\|(.*?)\|(.*?)\|$", section("Corpora"), re.MULTILINE
    ):
        above = licence.strip() if licence.strip() != "as above" else above
        for name in re.findall(r"`([^`]+)`", readers):
            corpus = CORPORA[name]
            assert task.strip() == corpus.task
            assert [word.strip() for word in languages.split(",") if word.strip()] == [
                word for word in (corpus.language, corpus.text) if word and (corpus.task == "slt" or word == corpus.language)
            ]
            assert re.findall(r"\d+", counts) == [] or {int(n) for n in re.findall(r"\b\d{2,}\b", counts)} >= set(
                corpus.counts.values()
            )
            if name != "ssvp":  # its manifests state none
                assert above in corpus.licence


@pytest.mark.parametrize("line", ["sign-dist train jobs/islr.py", "sign-dist extract data/unheard_of", "cat raw/list.txt"])
def test_a_command_that_cannot_be_run_is_told(line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        stories(f"```text\n{line}\n```\n")


def test_a_corpus_without_a_world_is_told(place: Place) -> None:
    (story,) = stories("```text\nsign-dist prepare newcorpus raw data/new\n```\n")
    with pytest.raises(pytest.fail.Exception, match=r"newcorpus raw data/new.*WORLDS"):
        build(story, place)
