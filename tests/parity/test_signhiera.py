"""SignHiera and its masked autoencoder: the numbers of the reference."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sign_dist.models.hiera import HieraShape
from sign_dist.models.mae import MaskedAutoencoder
from sign_dist.models.signhiera import PRESETS, SignHiera
from tests.parity.rule import TOLERANCE, VectorSet, draw, draw_bytes, draw_weights, read_sets, relative

# What every SignHiera has, so that no setting of ours says it.
FIXED: dict[str, Any] = {
    "in_chans": 3,
    "q_stride": [1, 2, 2],
    "dim_mul": 2.0,
    "head_mul": 2.0,
    "patch_kernel": [3, 7, 7],
    "patch_stride": [2, 4, 4],
    "patch_padding": [1, 3, 3],
    "sep_pos_embed": True,
    "layer_norm_eps": 1e-6,
}


def hiera_shape(config: dict[str, Any]) -> HieraShape:
    assert {name: config[name] for name in FIXED} == FIXED
    num_frames, height, width = config["input_size"]
    assert config["mask_unit_size"] == [1, config["mask_unit_size"][1], config["mask_unit_size"][1]]
    return HieraShape(
        num_frames,
        height,
        width,
        embed_dim=config["embed_dim"],
        num_heads=config["num_heads"],
        stages=tuple(config["stages"]),
        mask_unit_attn=tuple(config["mask_unit_attn"]),
        mask_unit_size=config["mask_unit_size"][1],
        mlp_ratio=config["mlp_ratio"],
        q_pool=config["q_pool"],
    )


def cut(video: Tensor, padding: int) -> Tensor:
    """The clip up to the last token that is kept; of an odd padding, the reference keeps its first frame."""
    tokens = video.shape[2] // 2 - padding // 2
    return video[:, :, : 2 * tokens]


def test_the_generator_draws_the_numbers_of_the_rule() -> None:
    first = draw("blocks.0.attn.qkv.weight", [288, 96])[0, :3]
    assert first.tolist() == pytest.approx([-0.88599318, -0.78210145, -0.36343596], abs=1e-7)
    assert draw_bytes("pre:norm", [4]).tolist() == [242, 162, 87, 101]


@torch.inference_mode()
def test_small_encoders_are_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "signhiera_tiny*"):
        check_encoder(vectors)


def check_encoder(vectors: VectorSet) -> None:
    case, expected = vectors.case, vectors.expected
    model = SignHiera(hiera_shape(case["config"]), case["config"]["num_classes"]).eval()
    model.load_state_dict(draw_weights(vectors.manifest, case["salt"]), strict=True)
    video = draw(case["input_key"], case["input_shape"])
    assert relative(model.features(video).flatten(0, 1), expected["features_nopad"]) < TOLERANCE
    for k, stage in enumerate(stages := model.stages(video)):
        whole = expected[f"stage{k}"]
        assert relative(stage if k == len(stages) - 1 else stage[: whole.shape[0], : whole.shape[1]], whole) < TOLERANCE
    logits = model(video)
    assert relative(logits, expected["prelogits"]) < TOLERANCE
    assert relative(logits.softmax(-1), expected["probs"]) < TOLERANCE
    kept = [cut(video, p).shape[2] for p in case["padding"]]
    assert relative(torch.cat(model.features_of(video, kept)), expected["features_pad"]) < TOLERANCE


@torch.inference_mode()
def test_the_masked_autoencoder_is_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "signhiera_mae_tiny*"):
        check_autoencoder(vectors)


def check_autoencoder(vectors: VectorSet) -> None:
    case, expected, config = vectors.case, vectors.expected, vectors.case["config"]
    model = MaskedAutoencoder(
        hiera_shape(config),
        decoder_dim=config["decoder_embed_dim"],
        decoder_depth=config["decoder_depth"],
        decoder_heads=config["decoder_num_heads"],
    ).eval()
    model.load_state_dict(draw_weights(vectors.manifest, case["salt"]), strict=True)
    video = draw(case["input_key"], case["input_shape"])
    out = model(video, visible=torch.from_numpy(expected["mask"]), padding=case["padding"])
    assert relative(out.latent.reshape(expected["latent"].shape), expected["latent"]) < TOLERANCE
    assert relative(out.pred[:, ::4, ::16], expected["pred_all"]) < TOLERANCE
    assert (out.visible.numpy() == expected["pred_mask"]).all()
    assert int(out.counted.sum()) == expected["n_loss_tokens"]
    assert float(out.loss) == pytest.approx(float(expected["loss"]), rel=TOLERANCE)
    assert float(out.pred[out.counted].norm()) == pytest.approx(float(expected["pred_l2"]), rel=TOLERANCE)
    assert relative(out.labels[: len(expected["label_first"])], expected["label_first"]) < TOLERANCE
    mean, std = expected["label_stats"]
    assert float(out.labels.mean()) == pytest.approx(float(mean), abs=1e-6)
    assert float(out.labels.std()) == pytest.approx(float(std), rel=1e-5)


def test_a_whole_checkpoint_of_pretraining_has_our_names_and_shapes(parity_folder: Path) -> None:
    paths = [vectors.folder / "mae_checkpoint_shapes.json" for vectors in read_sets(parity_folder, "signhiera_base*")]
    paths = [path for path in paths if path.exists()]
    if not paths:
        pytest.skip("this set of parity vectors has no mae_checkpoint_shapes.json")
    for path in paths:
        published = {k: tuple(v) for k, v in json.loads(path.read_text()).items()}
        with torch.device("meta"):
            autoencoder = MaskedAutoencoder(PRESETS["base_128x224"])
            encoder = SignHiera(PRESETS["base_128x224"])
        assert {k: tuple(v.shape) for k, v in autoencoder.state_dict().items()} == published
        wanted = {k: tuple(v.shape) for k, v in encoder.state_dict().items() if not k.startswith("norm.")}
        assert wanted.items() <= published.items()


@pytest.mark.slow
@torch.inference_mode()
def test_the_published_encoder_is_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "signhiera_base*"):
        check_published(vectors)


def check_published(vectors: VectorSet) -> None:
    config, expected = vectors.case["config"], vectors.expected
    with torch.device("meta"):
        model = SignHiera(hiera_shape(config), config["num_classes"]).eval()
    model.load_state_dict(draw_weights(vectors.manifest, vectors.case["salt"]), strict=True, assign=True)
    assert vectors.case["cases"]
    for case in vectors.case["cases"]:
        name = case["name"]
        stages = model.stages(cut(draw(case["input_key"], case["input_shape"]), case["padding"]))
        assert relative(stages[-1].mean(dim=(2, 3))[0], expected[f"{name}_features"]) < TOLERANCE
        for k, stage in enumerate(stages):
            assert relative(stage[0, 0, :2, :2, :8], expected[f"{name}_stage{k}_slice"]) < TOLERANCE
            if f"{name}_stage{k}_shape" not in expected:
                continue
            assert list(stage.shape) == expected[f"{name}_stage{k}_shape"].tolist()
            numbers = stage.double()
            for part, value in (("mean", numbers.mean()), ("std", numbers.std()), ("l2", numbers.norm())):
                stated = float(expected[f"{name}_stage{k}_{part}"])
                assert float(value) == pytest.approx(stated, rel=1e-5, abs=1e-6), (name, k, part)
