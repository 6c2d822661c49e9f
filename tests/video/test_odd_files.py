"""What becomes of every odd and broken file: used with so many frames, or refused with one reason. One row a file."""

import csv
from pathlib import Path

import pytest

from sign_dist.config.data import Sampling
from sign_dist.video.check import REASONS, check_clip
from sign_dist.video.decode import read_clip
from sign_dist.video.guarded import check_guarded, guard_checks

# Source frames in the file, and frames at 25 a second; both numbers are laws of the frame times, see the tests below.
USED: dict[str, tuple[int, int]] = {
    "bgr_swapped_phoenix.mp4": (228, 228),
    "book_av1.mp4": (60, 50),
    "book_broken_bitflips.mp4": (109, 91),
    "book_fps120.mp4": (109, 23),
    "book_fps5.mp4": (19, 19),
    "book_fragmented.mp4": (109, 91),
    "book_h264_10bit.mp4": (40, 33),
    "book_h264_all_intra.mp4": (40, 33),
    "book_h264_bframes.mp4": (109, 91),
    "book_h264_gray.mp4": (40, 33),
    "book_h264_one_keyframe.mp4": (109, 91),
    "book_h264_yuv444_odd_321x241.mp4": (40, 33),
    "book_hevc.mp4": (60, 50),
    "book_mjpeg.avi": (30, 25),
    "book_mpeg4.avi": (60, 50),
    "book_mpegts.ts": (60, 50),
    "book_rotate180.mp4": (60, 50),
    "book_rotate270.mp4": (60, 50),
    "book_rotate90.mp4": (60, 50),
    "book_start_offset_2s.mp4": (60, 50),
    "book_vfr.mp4": (45, 88),
    "book_vp8.webm": (60, 50),
    "book_vp9.webm": (60, 50),
    "book_wrong_extension_is_matroska.mp4": (109, 91),
    "book_wrong_extension_is_mp4.avi": (109, 91),
    "ff_mpeg4_169.avi": (10, 10),
    "isl_hello.gif": (23, 23),
    "mm_demo_person.mp4": (280, 250),
    "mm_vfr_part0.mp4": (32, 27),
    "mv_failing_audio.mp4": (280, 280),
    "mv_no_duration.webm": (74, 74),
    "tc_av1.mkv": (125, 125),
    "tc_h264_10bit.mp4": (30, 25),
    "tc_hevc.mp4": (10, 10),
    "tc_nasa_multi_stream.mp4": (390, 325),  # of two picture streams the larger one; FFmpeg's first has 325 at 25 a second
    "te[s]t_ video ' _ .flv": (10, 10),
}

REFUSED: dict[str, str] = {
    "-video-with-dash-.mp4": "too_small",
    "audio_only.m4a": "no_video_stream",
    "book_black.mp4": "blank",
    "book_broken_bad_stsz.mp4": "decode_failed",
    "book_broken_empty.mp4": "empty",
    "book_broken_random_bytes.mp4": "not_video",
    "book_broken_text.mp4": "not_video",
    "book_broken_truncated_40pct.mkv": "truncated",  # decoders are content with 35 frames; its header promises 3.67 s
    "book_broken_truncated_faststart_5pct.mp4": "decode_failed",
    "book_broken_truncated_faststart_60pct.mp4": "truncated",
    "book_broken_truncated_fragmented_50pct.mp4": "truncated",
    "book_broken_truncated_no_moov.mp4": "not_video",
    "book_broken_truncated_tail_10_bytes.mp4": "truncated",
    "book_broken_zero_hole.mp4": "truncated",
    "book_broken_zeroed_header.mp4": "not_video",
    "book_one_frame.mp4": "too_short",
    "book_tiny_16x16.mp4": "too_small",
    "book_two_frames.mp4": "too_short",
    "decord_corrupted.mp4": "truncated",
    "decord_rot180.mov": "too_short",
    "decord_rot90.mov": "too_short",
    "decord_unordered.mov": "too_short",  # 4 frames at 32 a second are 3 at 25
    "mp_chunk_out_of_range.mp4": "not_video",
    "mp_h263_1f.3gp": "too_short",
    "mp_header_only.mp4": "decode_failed",
    "mp_no_timescale.mp4": "truncated",
    "mp_tiny_av1.mp4": "too_short",
    "mp_white_300f.mp4": "blank",
    "tc_audio_only.mp3": "no_video_stream",
    "utf8_mangled_00335.mp4": "not_video",
    "utf8_mangled_08429.mp4": "no_video_stream",
}
LARGER_STREAM = {"tc_nasa_multi_stream.mp4"}


@pytest.fixture(scope="module")
def facts(shared_folder: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """The folder, and what FFmpeg said of each file."""
    folder = shared_folder / "data" / "videos" / "odd"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    with (folder / "labels.tsv").open(encoding="utf-8", newline="") as file:
        return folder, {row["path"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}


def test_the_table_is_whole(facts: tuple[Path, dict[str, dict[str, str]]]) -> None:
    assert USED.keys() | REFUSED.keys() == facts[1].keys()
    assert not USED.keys() & REFUSED.keys()
    assert set(REFUSED.values()) <= REASONS.keys()


@pytest.mark.long
@pytest.mark.parametrize("name", USED)
def test_what_is_used_has_every_frame_that_ffmpeg_has(facts: tuple[Path, dict[str, dict[str, str]]], name: str) -> None:
    folder, rows = facts
    row = rows[name]
    checked = check_clip(folder / name)
    clip = read_clip(folder / name, **Sampling().model_dump())
    assert (checked.reason, clip.num_source, checked.num_frames) == ("", *USED[name]), checked.detail
    assert len(clip) == checked.num_frames
    assert row["sha256"] == checked.sha256
    if name not in LARGER_STREAM:
        assert clip.num_source == int(row["frames"])
        slow = float(row["fps"]) <= 25 * 1.01 and row["vfr"] != "1"
        duration_s = float(row["duration_s"])
        assert clip.num_source == len(clip) if slow else abs(len(clip) - 1 - duration_s * 25) <= 1
        high, wide = int(row["height"]), int(row["width"])
        high, wide = (wide, high) if row["rotation"] in ("90", "-90", "270") else (high, wide)
        shrunk = min(1.0, 640 / max(high, wide))
        assert clip.frames.shape[1:3] == (round(high * shrunk), round(wide * shrunk))


@pytest.mark.long
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_its_reason(facts: tuple[Path, dict[str, dict[str, str]]], name: str) -> None:
    checked = check_clip(facts[0] / name)
    assert checked.reason == REFUSED[name], checked.detail
    assert name in checked.detail
    assert "\n" not in checked.detail


@pytest.mark.long
def test_the_guarded_check_says_the_same(facts: tuple[Path, dict[str, dict[str, str]]]) -> None:
    folder, rows = facts
    with guard_checks(seconds=60) as guard:
        found = {name: check_guarded(folder / name, guard=guard).reason for name in rows}
        assert guard.usage.deaths == 0
        assert guard.usage.children == 1
        assert guard.usage.max_rss_bytes < 2**30
    assert found == dict.fromkeys(USED, "") | REFUSED
