"""Damaged in seeded ways, real clips are read or refused, and whatever their decoder does to its process is accounted for.

`FUZZ_MUTATIONS` says how many (`make fuzz`), `FUZZ_SEED` which ones; with `-s` the tally is printed.
"""

import collections
import dataclasses
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sign_dist.config.data import Sampling
from sign_dist.video.check import REASONS, check_clip
from sign_dist.video.guarded import check_guarded, guard_checks

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "150"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS, MEMORY_BYTES = 20.0, 2**29
SAMPLING = Sampling(fps=10, max_side_px=160)
REAL = (
    "book_h264_gray.mp4",
    "book_vp9.webm",
    "book_vp8.webm",
    "book_mpegts.ts",
    "book_av1.mp4",
    "book_fragmented.mp4",
    "isl_hello.gif",
    "tc_h264_10bit.mp4",
    "tc_hevc.mp4",
    "te[s]t_ video ' _ .flv",
    "ff_mpeg4_169.avi",
    "book_mjpeg.avi",
    "decord_rot90.mov",
    "decord_unordered.mov",
    "mp_h263_1f.3gp",
)
# Boxes of an MP4 whose numbers decide how much is allocated, read and decoded; elements of a WebM by their ids.
BOXES = [b"tkhd", b"mdhd", b"mvhd", b"stsz", b"stts", b"stsc", b"stco", b"ctts", b"elst", b"stss", b"avcC", b"hvcC", b"avc1"]
BOXES += [b"trun", b"tfhd", b"mdat", b"moov", b"trak", b"stsd", b"strh", b"strf", b"idx1", b"movi", b"avih"]
ELEMENTS = [b"\xb0\x82", b"\xba\x82", b"\x44\x89\x88", b"\x2a\xd7\xb1", b"\x1f\x43\xb6\x75", b"\x18\x53\x80\x67", b"\xa3", b"\xe7"]
EXTREMES = [0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x00FFFFFF, 48000, 0x01000000]


def flip_bits(data: bytearray, rng: random.Random, _: bytes) -> None:
    for _ in range(rng.choice([1, 3, 10, 100, 1000])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_header(data: bytearray, rng: random.Random, _: bytes) -> None:
    """Bit flips where headers usually stand: at the start, or at the end."""
    size = min(len(data), 1500)
    begin = rng.choice([0, len(data) - size])
    for _ in range(rng.choice([1, 2, 5, 20])):
        data[begin + rng.randrange(size)] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random, _: bytes) -> None:
    del data[rng.randrange(1, len(data)) :]


def splice_header(data: bytearray, rng: random.Random, other: bytes) -> None:
    """Another file's beginning before this one's rest."""
    size = rng.choice([16, 64, 256, 1024, 4096])
    data[: rng.choice([size, size // 2, 0])] = other[:size]


def splice_middle(data: bytearray, rng: random.Random, other: bytes) -> None:
    at, begin = rng.randrange(len(data)), rng.randrange(len(other))
    data[at : at + rng.randrange(1, 2000)] = other[begin : begin + rng.randrange(1, 2000)]


def blank_out(data: bytearray, rng: random.Random, _: bytes) -> None:
    at = rng.randrange(len(data))
    size = min(len(data) - at, rng.choice([4, 100, 3000]))
    data[at : at + size] = bytes([rng.choice([0, 255])]) * size


def repeat(data: bytearray, rng: random.Random, _: bytes) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randrange(1, 3000)] * rng.choice([1, 2, 20])


def declare(data: bytearray, rng: random.Random, _: bytes) -> None:
    """Huge or absurd numbers in the tables that say sizes, counts, times and pixels."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        name = rng.choice([n for n in BOXES + ELEMENTS if n in data] or [bytes(data[:4])])
        places = [i for i in range(len(data)) if data.startswith(name, i)][:50]
        at = rng.choice(places) + rng.choice([-4, len(name), len(name) + 4 * rng.randrange(25)])
        size = rng.choice([1, 2, 4, 4, 4, 8])
        value = rng.choice([*EXTREMES, rng.randrange(2**32)])
        if 0 <= at <= len(data) - size:
            data[at : at + size] = (value % 256**size).to_bytes(size, rng.choice(["big", "big", "little"]))


KINDS: list[Callable[[bytearray, random.Random, bytes], None]]
KINDS = [flip_bits, flip_header, truncate, splice_header, splice_middle, blank_out, repeat, declare, declare, declare]


def mutated(seed: int, clips: list[bytes]) -> tuple[str, bytes]:
    """The kind of damage, and the bytes. The same seed gives the same bytes."""
    rng = random.Random(seed)
    data, other, kind = bytearray(rng.choice(clips)), rng.choice(clips), rng.choice(KINDS)
    kind(data, rng, other)
    return kind.__name__, bytes(data) or b"\0"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, paint: Callable[..., Path]) -> list[bytes]:
    """Small clips: real ones where there are any, and painted ones of several containers."""
    folder = tmp_path_factory.mktemp("fuzz")
    painted = {"a.mp4": "libx264", "a.webm": "libvpx-vp9", "a.avi": "mpeg4", "a.ts": "libx264", "a.mkv": "libx264", "a.gif": "gif"}
    paths = [paint(folder / name, num_frames=12, codec=codec) for name, codec in painted.items()]
    shared = Path(os.environ.get("SIGN_DIST_SHARED") or Path(__file__).parents[2].parent / "shared") / "data" / "videos" / "odd"
    return [path.read_bytes() for path in [*paths, *(shared / name for name in REAL)] if path.is_file()]


def test_damage_is_seeded(clips: list[bytes]) -> None:
    assert mutated(7, clips) == mutated(7, clips)
    assert len({mutated(seed, clips)[1] for seed in range(50)}) > 45


@pytest.mark.long
@pytest.mark.timeout(max(600, 2 * MUTATIONS))
def test_damaged_clips_cost_one_answer_each(clips: list[bytes], tmp_path: Path) -> None:
    tally: collections.Counter[str] = collections.Counter()
    slowest, begin, deaths = 0.0, time.monotonic(), 0
    accounted = {"crashed", "timed_out", "out_of_memory"}
    with guard_checks(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as guard:
        for seed in range(SEED, SEED + MUTATIONS):
            kind, data = mutated(seed, clips)
            path = tmp_path / "damaged"
            path.write_bytes(data)
            start = time.monotonic()
            checked = check_guarded(path, sampling=SAMPLING, guard=guard)
            seconds = time.monotonic() - start
            assert seconds < SECONDS + 10, f"seed {seed}, {kind}: {seconds:.1f} s"
            assert checked.reason in {"", *REASONS}, f"seed {seed}, {kind}: {checked}"
            assert "\n" not in checked.detail, f"seed {seed}, {kind}: {checked}"
            assert "failed in its child" not in checked.detail, f"seed {seed}, {kind}: a fault of ours, {checked}"
            died = guard.usage.deaths > deaths
            assert not died or checked.reason in accounted, f"seed {seed}, {kind}: a child died unnamed, {checked}"
            if died or checked.reason in accounted:
                print(f"seed {seed}, {kind}: {checked.reason}: {checked.detail} ({seconds:.1f} s)")
            deaths = guard.usage.deaths
            tally[checked.reason or "used"] += 1
            slowest = max(slowest, seconds)
        usage = guard.usage
        path.write_bytes(clips[0])
        after = check_guarded(path, sampling=SAMPLING, guard=guard)
    assert after == check_clip(path, sampling=SAMPLING), "what was damaged before does not change what is read after"
    assert usage.calls == MUTATIONS + 1
    assert usage.children <= 1 + usage.deaths + tally["out_of_memory"] + MUTATIONS // 1000
    assert usage.max_rss_bytes < MEMORY_BYTES + 2**29, "its limit, and what it needs before it reads anything"
    print(f"{MUTATIONS} mutations of {len(clips)} clips in {time.monotonic() - begin:.0f} s, slowest {slowest:.1f} s")
    print(f"{dict(tally.most_common())}")
    print(dataclasses.asdict(usage))
