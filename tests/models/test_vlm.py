"""Vision-language models: read once and gone on from, made again from a seed, read from folders; InternVL and others alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from sign_dist.errors import DataError, SettingsError, WeightsError
from sign_dist.models.internvl import MEAN, STD, tiny_tokenizer
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_source import source_tokens, source_vlm, tiny_vlm
from sign_dist.transfer.freeze import groups_of

PROMPT = "Which sign?"
GLOSSES = ("BOOK", "BOOKSHELF 2", "THANK YOU")
SIZES: dict[str, Any] = {"size_px": 32, "patch_px": 8, "width": 32, "depth": 1}
T = 3


def tiny(**values: Any) -> SignVlm:
    return tiny_vlm(GLOSSES, PROMPT, **(SIZES | values)).eval()


def frames_of(num_clips: int = 2, size_px: int = 32, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (num_clips, T, size_px, size_px, 3), dtype=np.uint8))


def rows(model: SignVlm, answers: list[list[int]]) -> Tensor:
    longest = max(map(len, answers))
    prompt = model.tokens.prompt_ids(T)
    return torch.tensor([[*prompt, *answer, *[model.tokens.pad] * (longest - len(answer))] for answer in answers])


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA in transformers' form: another family, whose image processor and chat template lie beside it."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer([*GLOSSES, PROMPT]).backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(
            "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
            "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}ANSWER:"
        ),
    )
    image = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0
    )
    torch.manual_seed(0)
    model: Any = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=image))  # pyright: ignore[reportCallIssue]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def of(kind: str, llava: Path) -> SignVlm:
    return tiny() if kind == "internvl" else source_vlm(llava, PROMPT).eval()


@pytest.mark.parametrize("kind", ["internvl", "llava"])
def test_a_prompt_read_once_and_gone_on_from_is_the_chat_read_whole(kind: str, llava: Path) -> None:
    model = of(kind, llava)
    answers = [model.tokens.answer(gloss) for gloss in GLOSSES]
    frames, ids = frames_of()[[0, 1, 1]], rows(model, answers)
    whole = model(frames, torch.full((3,), T), ids).log_softmax(-1)
    prefilled = model.prefill(frames_of())
    first = prefilled.num_tokens
    torch.testing.assert_close(prefilled.log_probs[[0, 1, 1]], whole[:, first - 1], atol=1e-5, rtol=1e-4)
    extended = model.extend(prefilled, torch.tensor([0, 1, 1]), ids[:, first:])
    for i, answer in enumerate(answers):
        torch.testing.assert_close(extended[i, : len(answer)], whole[i, first : first + len(answer)], atol=1e-5, rtol=1e-4)
    again = model.extend(prefilled, torch.tensor([0, 1, 1]), ids[:, first:])
    torch.testing.assert_close(again, extended, atol=0, rtol=0)


def test_only_the_logits_that_are_asked_for_are_computed() -> None:
    model = tiny()
    frames, lengths, ids = frames_of(), torch.full((2,), T), rows(model, [model.tokens.answer("BOOK")] * 2)
    assert torch.equal(model(frames, lengths, ids, 2), model(frames, lengths, ids)[:, -2:])


def test_greedy_answers_are_the_likeliest_token_by_token_and_beams_are_no_worse() -> None:
    model = tiny()
    frames = frames_of()
    prefilled = model.prefill(frames)
    beams = model.generate(frames, beams=4, max_new=3)
    for clip, [(ids, score)] in enumerate(model.generate(frames, max_new=3)):
        told, written = prefilled.log_probs[clip], list[int]()
        total = 0.0
        while len(written) < len(ids):
            written.append(int(told.argmax()))
            total += float(told.max())
            told = model.extend(prefilled, torch.tensor([clip]), torch.tensor([written]))[0, -1]
        assert written == ids
        assert score == pytest.approx(total / len(ids), abs=1e-5)
        assert len(beams[clip]) == 4
        assert [s for _, s in beams[clip]] == sorted((s for _, s in beams[clip]), reverse=True)
        assert beams[clip][0][1] >= score - 1e-5


def test_clips_of_different_lengths_are_refused() -> None:
    model = tiny()
    with pytest.raises(DataError, match="num_frames"):
        model(frames_of(), torch.tensor([T, T - 1]), rows(model, [model.tokens.answer("BOOK")] * 2))


def test_a_tiny_model_is_the_same_whoever_draws_it() -> None:
    torch.manual_seed(1)
    first = tiny().state_dict()
    torch.manual_seed(2)
    second = tiny_vlm(GLOSSES[::-1], PROMPT, **SIZES).state_dict()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    other = tiny(seed=1).state_dict()
    assert not torch.equal(first["vlm.lm_head.weight"], other["vlm.lm_head.weight"])


def test_it_draws_nothing_from_the_generator_of_the_run() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    tiny()
    assert torch.equal(torch.rand(2), wanted)


def test_a_folder_gives_the_model_that_was_written(tmp_path: Path) -> None:
    model = tiny()
    model.vlm.save_pretrained(tmp_path)
    model.tokens.tokenizer.save_pretrained(tmp_path)
    read = source_vlm(tmp_path, PROMPT).eval()
    ids = rows(model, [model.tokens.answer("BOOKSHELF 2")] * 2)
    assert read.tokens.prompt_ids(T) == model.tokens.prompt_ids(T) == source_tokens(tmp_path, PROMPT).prompt_ids(T)
    assert torch.equal(read(frames_of(), torch.full((2,), T), ids), model(frames_of(), torch.full((2,), T), ids))
    assert next(source_vlm(tmp_path, PROMPT, dtype="bf16").parameters()).dtype == torch.bfloat16


def test_frames_are_normalised_as_internvl_was_trained() -> None:
    """Bicubic with antialiasing on bytes, then ImageNet's mean and deviation: what InternVLVideoProcessor does to 2.4e-7."""
    model = tiny()
    frames = frames_of(size_px=48)
    pixels = model.tokens.pictures.inputs(frames)["pixel_values"]
    x = F.interpolate(frames.flatten(0, 1).permute(0, 3, 1, 2), size=(32, 32), mode="bicubic", antialias=True).float() / 255
    for channel in range(3):
        torch.testing.assert_close(pixels[:, channel], (x[:, channel] - MEAN[channel]) / STD[channel])
    grey = torch.full((1, 1, 32, 32, 3), 124, dtype=torch.uint8)
    red = model.tokens.pictures.inputs(grey)["pixel_values"][0, 0]
    torch.testing.assert_close(red, torch.full((32, 32), (124 / 255 - 0.485) / 0.229))


def test_another_family_sees_its_own_pictures_in_their_places(llava: Path) -> None:
    model = of("llava", llava)
    ids = model.tokens.prompt_ids(T)
    assert model.tokens.pictures.per_frame == (32 // 16) ** 2
    assert ids.count(model.tokens.pictures.image_token) == T * 4
    assert model.tokens.tokenizer.decode(ids).endswith(f"{PROMPT}ANSWER:")
    lengths, chats = torch.full((2,), T), rows(model, [model.tokens.answer("BOOK")] * 2)
    said = model(frames_of(), lengths, chats)
    assert not torch.allclose(said[0], said[1])
    assert [name for name in groups_of(model) if name.startswith(("language", "vision", "proj"))]


def test_layers_train_from_the_end_of_the_language_model_down() -> None:
    model = tiny(depth=2)
    groups = groups_of(model)
    assert list(groups) == [
        *("lm_head", "language_1", "language_0", "language_inputs"),
        *("projector", "vision_1", "vision_0", "vision_inputs"),
    ]
    assert sum(len(parameters) for parameters in groups.values()) == len(list(model.parameters()))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        source_vlm("OpenGVLab/there-is-none", PROMPT)
    model = tiny()
    model.tokens.tokenizer.save_pretrained(tmp_path)
    state = {name: t for name, t in model.vlm.state_dict().items() if "layers.0.mlp.up_proj" not in name}
    model.vlm.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(WeightsError, match="lacks 1 tensors"):
        source_vlm(tmp_path, PROMPT)
    with pytest.raises(SettingsError, match="patch_px"):
        tiny(patch_px=12)
