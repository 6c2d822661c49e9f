"""Windows and frames: integers by the published rule, squares by geometry."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.video.frames import spread, square_frames
from sign_dist.video.windows import clip_span, signhiera_windows
from tests.parity.vectors import parity_json, part_of

WINDOWS = "ssvp_slt/windows/windows.json"


def test_windows_are_those_of_the_reference() -> None:
    content = parity_json(WINDOWS)
    assert content["cases"]
    for case in content["cases"]:
        windows = signhiera_windows(
            case["num_video_frames"],
            content["fps_values"][case["fps"]],
            window=case["num_frames"],
            stride=case["stride"],
            sampling_rate=case["sampling_rate"],
            target_fps=case["target_fps"],
        )
        found = [{"padding": w.padding, "features": w.num_features, "indices": w.indices.tolist()} for w in windows]
        assert found == case["windows"], case["num_video_frames"]
        assert sum(w.num_features for w in windows) == case["total_features"]


def test_spans_are_those_of_the_reference() -> None:
    cases = part_of(parity_json(WINDOWS), "get_start_end_idx")
    assert cases
    for case in cases:
        span = clip_span(case["video_size"], case["clip_size"], case["clip_idx"], case["num_clips"], use_offset=case["use_offset"])
        assert span == pytest.approx(case["start_end"], abs=1e-9), case


@given(st.integers(1, 500), st.floats(1, 600), st.integers(1, 9), st.booleans())
def test_spans_lie_in_the_video_in_order(num_frames: int, span: float, num_clips: int, use_offset: bool) -> None:
    spans = [clip_span(num_frames, span, i, num_clips, use_offset=use_offset) for i in range(num_clips)]
    starts = [start for start, _ in spans]
    assert starts == sorted(starts)
    for start, end in spans:
        assert end - start == pytest.approx(span - 1)
        assert 0 <= start <= max(num_frames - span, 0)


@pytest.mark.parametrize(("frames", "span", "index", "clips"), [(0, 9.0, 0, 1), (9, 0.0, 0, 1), (9, 9.0, 1, 1), (9, 9.0, -1, 2)])
def test_spans_of_nothing_are_an_error(frames: int, span: float, index: int, clips: int) -> None:
    with pytest.raises(ValueError, match="num_frames >= 1"):
        clip_span(frames, span, index, clips)


def test_a_clip_of_one_window_s_length_has_two_windows() -> None:
    assert [(w.padding, w.num_features) for w in signhiera_windows(256, 25.0)] == [(0, 64), (63, 33)]
    assert [w.num_features for w in signhiera_windows(255, 25.0)] == [64]


@given(
    st.integers(1, 2000),
    st.sampled_from([1.0, 5.0, 10.0, 12.5, 15.0, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0]),
    st.sampled_from([16, 32, 128]),
)
def test_windows_begin_at_the_first_frame_and_reach_the_last(num_frames: int, fps: float, window: int) -> None:
    windows = signhiera_windows(num_frames, fps, window=window, stride=window // 2)
    assert windows[0].indices[0] == 0
    assert windows[-1].indices.max() == num_frames - 1 or len(windows) * window >= num_frames
    for k, w in enumerate(windows):
        assert len(w.indices) == window
        assert (np.diff(w.indices) >= 0).all()
        assert 0 <= w.indices[0] <= w.indices[-1] < num_frames
        assert w.indices[0] == min(k * window, num_frames - 1)  # starts do not scale with the rate
        assert 1 <= w.num_features <= window // 2
        assert 0 <= w.padding < window


@pytest.mark.parametrize(
    ("num_frames", "fps"), [(0, 25.0), (-1, 25.0), (10, 0.0), (10, -1.0), (10, float("inf")), (10, float("nan"))]
)
def test_windows_of_nothing_are_an_error(num_frames: int, fps: float) -> None:
    with pytest.raises(ValueError, match="num_frames >= 1 and fps > 0"):
        signhiera_windows(num_frames, fps)


@pytest.mark.parametrize("wrong", [{"window": 1}, {"stride": 0}, {"sampling_rate": 0}, {"target_fps": 0.0}])
def test_windows_of_no_shape_are_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="window >= 2"):
        signhiera_windows(10, 25.0, **wrong)


@given(st.integers(1, 60), st.integers(1, 60))
def test_spread_frames_run_from_first_to_last(num_frames: int, wanted: int) -> None:
    taken = spread(np.arange(num_frames), wanted)
    assert len(taken) == wanted
    assert taken[0] == 0
    assert wanted == 1 or taken[-1] == num_frames - 1
    steps = np.diff(taken)
    assert len(steps) == 0 or 0 <= steps.min() <= steps.max() <= steps.min() + 1
    if wanted >= num_frames:
        assert set(taken.tolist()) == set(range(num_frames))


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([8, 32, 64]))
def test_a_square_is_cut_from_the_centre(height: int, width: int, size: int) -> None:
    frames = np.full((2, height, width, 3), 7, np.uint8)
    square = square_frames(frames, size)
    assert square.shape == (2, size, size, 3)
    assert square.dtype == np.uint8
    assert (square == 7).all()


def test_a_square_keeps_the_middle_and_its_proportions() -> None:
    wide = np.zeros((1, 20, 60, 3), np.uint8)
    wide[:, :, 20:40] = 255
    assert (square_frames(wide, 20) == 255).all()
    assert (square_frames(wide.transpose(0, 2, 1, 3), 20) == 255).all()
    same = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert (square_frames(same, 32) == same).all()
