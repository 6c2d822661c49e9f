"""SLT: losses of hand-made numbers, weights, what is decoded and scored, and sentences that are learned by heart."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from sign_dist.config.data import Data
from sign_dist.config.model import SonarModel, TranslatorModel
from sign_dist.config.run import Run
from sign_dist.config.train import Train
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.metrics import text
from sign_dist.models.build import build_model, text_tokens
from sign_dist.models.slt import Said, Search
from sign_dist.models.text_tokens import TextTokens
from sign_dist.models.translator import PADDING, Sentence
from sign_dist.tasks.build import build_task, monitor_of, num_classes_of, reference_of, unusable
from sign_dist.tasks.embeddings import read_embeddings, write_embeddings
from sign_dist.tasks.slt import LossWeights, Slt, gloss_loss, relative_distance, token_loss
from sign_dist.tasks.task import Batch, Example, Prediction
from sign_dist.transfer.freeze import groups_of

TOKENS = TextTokens.of_bytes()
RUN = Run(task="slt", data=Data(root="nowhere"), model=TranslatorModel(), train=Train(label_smoothing=0.1))


def example(name: str, sentence: str, steps: int = 4) -> Example:
    rng = np.random.default_rng(sum(map(ord, name)))
    return Example(Sample(name, f"{name}.npy", translation=sentence), rng.normal(size=(steps, 3)).astype(np.float32))


class Parrot(nn.Module):
    """Knows the sentences of a batch by their order, and says what it is told to."""

    def __init__(self, logits: Tensor, labels: Tensor, embedding: Tensor | None = None) -> None:
        super().__init__()
        self.said = Said(logits, labels, embedding)
        self.searches: list[Search] = []
        self.sentences: list[list[Sentence]] = []

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> Said:
        return self.said

    def write(self, features: Tensor, lengths: Tensor, search: Search) -> list[list[Sentence]]:
        self.searches.append(search)
        return [sentences[: search.num_best] for sentences in self.sentences]


def batch_of(*examples: Example, task: Slt | None = None) -> Batch:
    return (task or Slt(TOKENS)).collate(examples)


# Losses


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_clips_loss_is_the_mean_over_its_own_tokens(lengths: list[int], smoothing: float, seed: int) -> None:
    torch.manual_seed(seed)
    logits, labels = torch.randn(len(lengths), 6, 5), torch.randint(5, (len(lengths), 6))
    for row, length in zip(labels, lengths, strict=True):
        row[length:] = PADDING
    found = token_loss(logits, labels, smoothing)
    for row, length in enumerate(lengths):
        scores = logits[row, :length].log_softmax(-1)
        told = scores[torch.arange(length), labels[row, :length]]
        torch.testing.assert_close(found[row], -((1 - smoothing) * told + smoothing * scores.mean(-1)).mean())


def test_labels_are_smoothed_in_training_only() -> None:
    logits, labels = torch.randn(1, 3, 7), torch.tensor([[1, 2, 3]])
    task, model = Slt(TOKENS, label_smoothing=0.2), Parrot(logits, labels)
    batch = batch_of(example("a", "ab"))
    for mode, smoothing in ((True, 0.2), (False, 0.0)):
        losses, _ = task.losses(model.train(mode), batch)
        torch.testing.assert_close(losses["cross_entropy"], token_loss(logits, labels, smoothing))


def test_a_clip_without_a_translation_weighs_nothing_and_is_translated_all_the_same() -> None:
    batch = batch_of(example("a", "ab"), example("b", "  "))
    assert batch.weights.tolist() == [1.0, 0.0]
    model = Parrot(torch.randn(2, 3, 7), torch.tensor([[1, 2, 3], [1, PADDING, PADDING]]))
    model.sentences = [[Sentence(TOKENS.encode("yes"), None)], [Sentence(TOKENS.encode("no"), None)]]
    losses, outputs = Slt(TOKENS).losses(model, batch)
    assert losses["cross_entropy"][0] > 0
    assert losses["cross_entropy"][1] == 0
    assert [p.hypothesis for p in Slt(TOKENS).decode(outputs, batch)] == ["yes", "no"]


def test_losses_of_embeddings_are_of_clips_that_have_a_target() -> None:
    torch.manual_seed(0)
    embedding, labels = torch.randn(2, 4), torch.tensor([[1, 2], [1, 2]])
    task = Slt(TOKENS, embeddings={"a": np.ones(4, np.float32)}, loss_weights=LossWeights(decoder=0.5, mse=2.0, cosine=3.0))
    model = Parrot(torch.randn(2, 2, 7), labels, embedding)
    losses, _ = task.losses(model, batch_of(example("a", "ab"), example("b", "cd")))
    torch.testing.assert_close(losses["cross_entropy"], 0.5 * token_loss(model.said.logits, labels))
    torch.testing.assert_close(losses["embedding_mse"], torch.stack([2 * (embedding[0] - 1).square().mean(), torch.tensor(0.0)]))
    cosine = 3 * (1 - F.cosine_similarity(embedding[:1], torch.ones(1, 4)))
    torch.testing.assert_close(losses["embedding_cosine"], torch.cat([cosine, torch.zeros(1)]))


@given(st.floats(0.001, 1000))
def test_the_distance_of_embeddings_does_not_depend_on_their_scale(scale: float) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(relative_distance(a * scale, b * scale), relative_distance(a, b))
    assert relative_distance(b, b).abs().max() == 0


def test_an_embedding_of_another_width_is_told_by_its_clip() -> None:
    task = Slt(TOKENS, embeddings={"a": np.ones(3, np.float32)}, loss_weights=LossWeights(mse=1.0))
    model = Parrot(torch.randn(1, 2, 7), torch.tensor([[1, 2]]), torch.randn(1, 4))
    with pytest.raises(DataError, match=r"'a' has the shape \(3,\), the model makes embeddings of 4"):
        task.losses(model, batch_of(example("a", "ab")))


# Sentences


def test_targets_are_the_tokens_of_sentences() -> None:
    batch = batch_of(example("a", "Hi there", 2), example("b", "you", 5))
    rows = [[token for token in row if token != PADDING] for row in batch.targets.tolist()]
    assert [TOKENS.decode(row) for row in rows] == ["Hi there", "you"] == list(batch.references)
    assert batch.features.shape == (2, 5, 3)
    assert batch.lengths.tolist() == [2, 5]


def test_as_many_sentences_are_given_as_are_asked_for_but_not_more_than_beams() -> None:
    task, model = (
        Slt(TOKENS, search=Search(beam=3, max_len=9, len_penalty=0.5)),
        Parrot(torch.randn(1, 2, 7), torch.tensor([[1, 2]])),
    )
    model.sentences = [[Sentence(TOKENS.encode(word), -float(i)) for i, word in enumerate(["one", "two", "three"])]]
    batch = batch_of(example("a", "ab"))
    _, outputs = task.losses(model, batch)
    (few,), (many,) = task.decode(outputs, batch, k=2), task.decode(outputs, batch, k=50)
    assert few == Prediction("one", (("one", 0.0), ("two", -1.0)))
    assert many == Prediction("one", (("one", 0.0), ("two", -1.0), ("three", -2.0)))
    assert model.searches == [Search(3, 9, 0.5, 2), Search(3, 9, 0.5, 3)]


def test_scores_are_those_of_the_scorers_and_say_how_they_were_computed() -> None:
    refs = ["the bird sings in the garden today", "nobody knows", ""]
    hyps = ["the bird sings in the house today", "nobody knows it", "whatever"]
    task = Slt(TOKENS)
    scores = task.score(refs, [Prediction(hyp, ()) for hyp in hyps])
    expected = [*text.bleu(refs[:2], hyps[:2]), text.chrf(refs[:2], hyps[:2]), text.rouge_l(refs[:2], hyps[:2])]
    assert scores == {score.name: score.value for score in expected}
    assert task.signatures == {score.name: score.signature for score in expected}
    assert "version" in task.signatures["bleu4"]
    assert set(task.score([""], [Prediction("a", ())])) == set(scores)


# From settings


def test_a_run_of_translations_has_its_task_and_monitor(tmp_path: Path) -> None:
    run = RUN.with_values({"decode.beam": 4, "decode.max_len": 7})
    trained, asked = build_task(run, None, in_training=True), build_task(run, None)
    assert isinstance(trained, Slt)
    assert isinstance(asked, Slt)
    assert (trained._search.beam, asked._search.beam, asked._search.max_len) == (1, 4, 7)  # pyright: ignore[reportPrivateUsage]
    assert monitor_of(run) == Slt.monitor == asked.monitor
    assert num_classes_of("slt", None) == 0
    with pytest.raises(DataError, match="no vocabulary"):
        num_classes_of("islr", None)


def test_a_clip_is_usable_for_translation_only_with_one() -> None:
    sample = Sample("a", "a.npy", gloss="BIRD SING", translation=" ")
    assert (reference_of("cslr", sample), reference_of("slt", sample)) == ("BIRD SING", "")
    assert unusable("cslr", sample) == ""
    assert unusable("slt", sample).startswith("no_translation: ")


def test_clips_without_a_target_embedding_are_named_and_a_file_of_others_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "targets.parquet"
    write_embeddings(file, {"a": np.ones(4), "z": np.zeros(4)})
    run = RUN.with_values({"model.kind": "sonar", "model.target_embeddings": str(file)})
    samples = [Sample(name, "", translation=name) for name in ("a", "b", "c")]
    with caplog.at_level(logging.WARNING):
        build_task(run, None, samples, in_training=True)
    assert "2 of 3 clips have no target embedding: b, c" in caplog.text
    with pytest.raises(DataError, match="have none of the 2 clips, such as 'b'"):
        build_task(run, None, samples[1:], in_training=True)


@pytest.mark.parametrize("form", ["parquet", "npz", "npz of rows"])
def test_embeddings_come_back_as_they_were_written(form: str, tmp_path: Path) -> None:
    told = {"a": np.arange(3, dtype=np.float32), "b b": np.ones(3, np.float32)}
    file = tmp_path / f"targets.{form.split()[0]}"
    match form:
        case "parquet":
            write_embeddings(file, told)
        case "npz":
            np.savez(file, **told)  # pyright: ignore[reportArgumentType]
        case _:
            np.savez(file, ids=np.array(list(told)), embeddings=np.stack(list(told.values())))
    found = read_embeddings(file)
    assert list(found) == list(told)
    assert all(np.array_equal(found[name], told[name]) for name in told)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.ones(3), "b": np.ones(4)}, "one width"),
        ({"a": np.array([1.0, np.nan])}, "no finite vector"),
        ({"a": np.ones((2, 2))}, "one width"),
        (b"no archive", "cannot be read"),
        (None, "no target embeddings"),
    ],
)
def test_embeddings_that_are_none_are_told_in_a_sentence(arrays: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "targets.npz"
    if isinstance(arrays, bytes):
        file.write_bytes(arrays)
    elif arrays:
        np.savez(file, **arrays)
    with pytest.raises(DataError, match=said) as error:
        read_embeddings(file)
    assert "\n" not in str(error.value)


# Learning


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", [TranslatorModel(width=64, depth=1, dropout=0), SonarModel(dropout=0)], ids=["translator", "sonar"]
)
def test_sentences_are_learned_by_heart_and_said_again(kind: TranslatorModel | SonarModel) -> None:
    torch.manual_seed(0)
    task, model = Slt(text_tokens(kind), search=Search(beam=5)), build_model(kind, num_classes=0, feature_shape=(3,))
    batch = task.collate([example("a", "The bird sings."), example("b", "I see you.", 6), example("c", "Größe?", 3)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = last = 0.0
    for _ in range(200):
        losses, _ = task.losses(model.train(), batch)
        loss = losses["cross_entropy"].mean()
        last = loss.item()
        first = first or last
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if last < 0.01:
            break
    _, outputs = task.losses(model.eval(), batch)
    predictions = task.decode(outputs, batch)
    assert last < first / 20
    assert [p.hypothesis for p in predictions] == list(batch.references)
    assert task.score(batch.references, predictions)["bleu1"] == pytest.approx(100)


@settings(max_examples=3)
@given(st.permutations(range(3)))
def test_the_order_of_clips_does_not_matter(order: list[int]) -> None:
    torch.manual_seed(0)
    kind = TranslatorModel(width=16, depth=1, heads=2, dropout=0)
    task, model = Slt(TOKENS), build_model(kind, num_classes=0, feature_shape=(3,)).eval()
    clips = [example("a", "The bird sings."), example("b", "I see you.", 6), example("c", "no", 3)]
    with torch.inference_mode():
        losses, _ = task.losses(model, task.collate(clips))
        again, _ = task.losses(model, task.collate([clips[i] for i in order]))
    torch.testing.assert_close(again["cross_entropy"], losses["cross_entropy"][list(order)])


# Glosses beside sentences


def test_the_loss_of_glosses_is_that_of_ctc_per_gloss_and_nothing_where_it_cannot_be() -> None:
    torch.manual_seed(0)
    logits, lengths, labels = torch.randn(4, 6, 5), torch.tensor([6, 4, 6, 2]), [[1, 2], [3], [], [1, 1]]
    found = gloss_loss(logits, lengths, labels)
    for row, (length, label) in enumerate(zip(lengths.tolist(), labels, strict=True)):
        if row < 2:
            scores = logits[row, :length].log_softmax(-1)
            alone = F.ctc_loss(
                scores[:, None], torch.tensor([label]), torch.tensor([length]), torch.tensor([len(label)]), reduction="sum"
            )
            torch.testing.assert_close(found[row], alone / len(label))
    assert found[2:].tolist() == [0, 0]  # one has no glosses, the other needs three steps and has two


def test_a_translator_learns_glosses_of_a_vocabulary_and_another_run_may_leave_them_out(tmp_path: Path) -> None:
    file = tmp_path / "gloss.txt"
    file.write_text("BIRD\nSING\n", encoding="utf-8")
    run = RUN.with_values({"model.glosses": str(file), "model.width": 16, "model.depth": 1, "model.gloss_loss": 0.5})
    samples = [
        Sample("a", "", gloss="SING BIRD", translation="It sings."),
        Sample("b", "", gloss="DANCE", translation="It dances."),
    ]
    task = build_task(run, None, samples, in_training=True)
    model = build_model(run.model, num_classes=0, feature_shape=(3,))
    batch = task.collate([Example(sample, np.ones((8, 3), np.float32)) for sample in samples])
    losses, outputs = task.losses(model, batch)
    assert outputs.said.gloss_logits.shape == (2, 8, 3)
    expected = 0.5 * gloss_loss(outputs.said.gloss_logits, outputs.said.gloss_lengths, [[2, 1], []])
    torch.testing.assert_close(losses["gloss_ctc"], expected)
    assert losses["gloss_ctc"][1] == 0
    # Asked only, or with other clips, it says no more than sentences; and so does a run without glosses.
    assert set(build_task(run, None).losses(model, batch)[0]) == {"cross_entropy"}
    plain = run.with_values({"model.glosses": ""})
    without = build_model(plain.model, num_classes=0, feature_shape=(3,))
    assert set(model.state_dict()) - set(without.state_dict()) == {"head.weight", "head.bias"}
    assert "head.weight" in {name for name, p in model.named_parameters() if any(p is q for q in groups_of(model)["projection"])}


def test_a_vocabulary_that_is_not_there_is_told(tmp_path: Path) -> None:
    run = RUN.with_values({"model.glosses": str(tmp_path / "gone.txt")})
    with pytest.raises(DataError, match="gone"):
        build_model(run.model, num_classes=0, feature_shape=(3,))
