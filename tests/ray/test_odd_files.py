"""A corpus folder that also holds every odd and broken file there is: prepare ends, and each file is used or named."""

import os
import shutil
from pathlib import Path

import pytest

from sign_dist.data.layout import SPLITS
from sign_dist.data.manifest import read_manifest, read_rejected, read_tsv

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
SHARED = Path(os.environ.get("SIGN_DIST_SHARED") or Path(__file__).parents[2].parent / "shared")

# What FFmpeg says of a file (column ffmpeg_status) -> the reasons that fit it.
KINDS = {
    "error: invalid data": {"empty", "not_video"},
    "ok, no video stream": {"no_video_stream"},
    "no frames": {"decode_failed"},
    "error after": {"truncated", "decode_failed", "too_short"},
    "ok": {"too_short", "too_small", "blank", "truncated"},  # decoders are content with a Matroska file that was cut
}


def test_every_odd_file_is_used_or_rejected_with_a_reason(tmp_path: Path) -> None:
    from sign_dist.data.prepare import prepare
    from sign_dist.on_ray.clips import check_all

    odd = SHARED / "data" / "videos" / "odd"
    if not odd.is_dir():
        pytest.skip(f"the folder with odd files is not at {odd}: set SIGN_DIST_SHARED")
    raw = tmp_path / "raw"
    (raw / "ODD").mkdir(parents=True)
    rows = {row["path"]: row for row in read_tsv(odd / "labels.tsv")}
    for name in rows:
        shutil.copy(odd / name, raw / "ODD" / name)
    for sign in ("book", "milk"):
        shutil.copytree(odd.parent / "asl_everyday" / sign, raw / sign)
    dataset = prepare("folder", raw, tmp_path / "d", check_all=check_all).dataset
    used = {Path(s.video_path).name for split in SPLITS for s in read_manifest(dataset, split) if s.gloss == "ODD"}
    rejected = {Path(r.video_path).name: r for r in read_rejected(dataset)}
    assert used | rejected.keys() == rows.keys()
    assert not used & rejected.keys()
    for name, row in rejected.items():
        assert row.detail
        status = rows[name]["ffmpeg_status"]
        fitting = next(codes for kind, codes in KINDS.items() if status.startswith(kind))
        assert row.reason in fitting, f"{name}: {status}, {row.reason}: {row.detail}"
    assert len(used) >= 36  # as many as were used when this was written; more is welcome
