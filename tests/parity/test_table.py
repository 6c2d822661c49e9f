"""Which test reads which vectors. A file that no test reads would be a promise that nobody keeps."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.parity.vectors import parity_root

TESTS = Path(__file__).resolve().parents[1]

SIGNHIERA, SONAR, I3D, TEMPORAL = (f"parity/test_{name}.py" for name in ("signhiera", "sonar", "i3d", "temporal"))
WINDOWS, FACES, CTC = "video/test_windows.py", "video/test_face_crop.py", "tasks/test_ctc_parity.py"
WER, CLEANUP = "metrics/test_wer.py", "metrics/test_cleanup.py"

# Files below ssvp_slt/ and i3d/ -> the file of the tests, and the tests.
TABLE = {
    "signhiera_tiny*/*": (SIGNHIERA, "test_small_encoders_are_the_reference"),
    "signhiera_mae_tiny*/*": (SIGNHIERA, "test_the_masked_autoencoder_is_the_reference"),
    "signhiera_base*/mae_checkpoint_shapes.json": (
        SIGNHIERA,
        "test_a_whole_checkpoint_of_pretraining_has_our_names_and_shapes",
    ),
    "signhiera_base*/[cem]*": (SIGNHIERA, "test_the_published_encoder_is_the_reference"),
    "sonar_sign_encoder_tiny*/*": (SONAR, "test_small_sign_encoders_are_the_reference"),
    "sonar_sign_encoder_large*/*": (SONAR, "test_the_published_sign_encoder_is_the_reference"),
    "sonar_text_decoder_tiny*/*": (SONAR, "test_small_text_decoders_are_the_reference"),
    "sonar_text_decoder_basic*/*": (SONAR, "test_the_published_text_decoder_is_the_reference"),
    "sonar_text_decoder_beam*/*": (SONAR, "test_beams_are_those_of_the_reference"),
    "e2e_tiny*/*": (
        SONAR,
        "test_the_whole_way_is_the_reference",
        "test_the_sentences_at_the_end_of_the_whole_way_are_those_of_the_reference",
    ),
    "windows/windows.json": (WINDOWS, "test_windows_are_those_of_the_reference", "test_spans_are_those_of_the_reference"),
    "preprocess/*": (
        FACES,
        "test_pixels_are_normalised_as_in_the_reference",
        "test_squares_are_cut_as_in_the_reference",
        "test_faces_are_grown_and_chosen_as_in_the_reference",
        "test_overlaps_are_those_of_the_reference",
        "test_centres_are_cut_as_in_the_reference",
        "test_motion_is_measured_as_in_the_reference",
        "test_windows_of_pixels_are_those_of_the_reference",
    ),
    "i3d_[ca]*": (
        I3D,
        "test_every_stage_and_the_logits_are_those_of_the_reference",
        "test_gradients_are_those_of_the_reference",
        "test_training_mode_moves_statistics_as_the_reference_does",
        "test_the_head_behind_batch_statistics_is_that_of_the_reference",
        "test_the_loss_of_wlasl_is_that_of_the_reference",
    ),
    "manifest_i3d_*.json": (I3D, "test_keys_and_shapes_are_the_published_ones"),
    "adapt_3d_to_1d.*": (TEMPORAL, "test_kernels_without_space"),
    "cslr_head.*": (TEMPORAL, "test_the_head_is_the_published_one", "test_padding_leaves_a_step_for_every_four_frames"),
    "distillation.*": (
        TEMPORAL,
        "test_losses_of_a_student_of_gloss_sequences",
        "test_losses_of_a_student_of_single_signs",
        "test_losses_of_the_task_around_gloss_sequences",
        "test_losses_of_the_task_around_single_signs",
    ),
    "seed_teacher_counts.json": (
        TEMPORAL,
        "test_the_seed_preset_has_the_published_sizes",
        "test_freezing_and_stages_leave_the_published_number_of_parameters_to_train",
    ),
    "wlasl_geometry.json": (TEMPORAL, "test_sizes_and_crops_of_wlasl"),
    "ctc_decode.*": (
        CTC,
        "test_the_blank_is_where_the_vectors_have_it",
        "test_each_case_alone",
        "test_all_cases_of_a_size_side_by_side",
        "test_enumerated_cases_exactly",
    ),
    "ctc_loss.*": (CTC, "test_losses_and_gradients"),
    "wer.json": (WER, "test_recorded_numbers_of_three_tools"),
    "phoenix_cleanup.json": (CLEANUP, "test_sentences_as_recorded", "test_single_words_as_the_official_script"),
    "phoenix2014_e2e_wer.json": (CLEANUP, "test_a_whole_split_as_nist_scores_it"),
}


def vector_files() -> list[str]:
    """Names of JSON and NPZ files, below the family's folder where there is one."""
    found = [path.relative_to(parity_root()) for path in sorted(parity_root().rglob("*")) if path.suffix in (".json", ".npz")]
    return [path.as_posix().removeprefix("ssvp_slt/").removeprefix("i3d/") for path in found]


def test_every_vector_is_read_by_a_test() -> None:
    files = vector_files()
    assert files, f"{parity_root()} holds no vectors"
    unread = [file for file in files if not any(fnmatch(file, pattern) for pattern in TABLE)]
    if unread and os.environ.get("SIGN_DIST_PARITY"):
        pytest.skip(f"no test reads {', '.join(unread)} in {parity_root()}")
    assert unread == []


@pytest.mark.parametrize("pattern", TABLE)
def test_the_tests_that_are_named_exist(pattern: str) -> None:
    file, *names = TABLE[pattern]
    defined = set(re.findall(r"^def (test_\w+)", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE))
    assert names
    assert set(names) <= defined
