"""Folders of pictures are clips: their order, rate, spans and faults; and bytes in memory are files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video.check import check_clip
from sign_dist.video.decode import probe, read_clip, read_frames
from sign_dist.video.pictures import list_pictures

Numbers = Callable[[np.ndarray], list[int]]
ANY = {"fps": 25.0, "max_side_px": 640, "max_seconds": 30.0}
WIDTH, HEIGHT = 64, 48


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    bars = np.array([number >> bit & 1 for bit in range(8)], np.uint8) * 180 + 40
    return Image.fromarray(np.broadcast_to(bars[np.arange(width) * 8 // width][None, :, None], (height, width, 3)).copy())


def folder_of(folder: Path, numbers: list[int], name: str = "images{:04d}.png") -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        picture(number).save(folder / name.format(number))
    return folder


def code_of(source: Path | bytes, **want: float) -> str:
    with pytest.raises(VideoError) as error:
        read_clip(source, **{**ANY, **want})  # pyright: ignore[reportArgumentType]
    return error.value.code


@pytest.mark.parametrize("name", ["images{:04d}.png", "{}.bmp", "a_12_fn{}-0.jpg", "frame-{}.jpeg", "IMG {:03d}.PNG", "{}.webp"])
def test_pictures_come_in_the_order_of_their_numbers(tmp_path: Path, numbers_of: Numbers, name: str) -> None:
    folder = folder_of(tmp_path / "clip", list(range(1, 31)), name)
    for extra in (".hidden.png", "Thumbs.db", "notes.txt"):
        (folder / extra).write_bytes(b"not a picture")
    (folder / "deeper.png").mkdir()
    info = probe(folder)
    assert (info.num_frames, info.width, info.height, info.container) == (30, WIDTH, HEIGHT, "pictures")
    clip = read_clip(folder, **ANY)
    assert numbers_of(clip.frames) == list(range(1, 31))
    assert (clip.fps, clip.decoder, clip.num_source) == (25.0, "pictures", 30)
    assert numbers_of(read_frames(folder, [4, 0, 29, 4])) == [5, 1, 30, 5]
    with pytest.raises(IndexError, match="no frame 30"):
        read_frames(folder, [30])


def test_the_rate_of_pictures_is_told_and_spans_follow_it(tmp_path: Path, numbers_of: Numbers) -> None:
    folder = folder_of(tmp_path / "clip", list(range(60)))
    for image_fps, step in ((25.0, 1), (50.0, 2), (100.0, 4)):
        clip = read_clip(folder, **ANY, image_fps=image_fps)
        assert numbers_of(clip.frames) == list(range(0, 60, step))
        assert clip.num_source == 60
    clip = read_clip(folder, **ANY, image_fps=50.0, start_s=0.4, end_s=0.6)
    assert numbers_of(clip.frames) == [20, 22, 24, 26, 28]
    assert code_of(folder, start_s=2.5) == "span_outside"
    assert code_of(folder, image_fps=1.0) == "too_long"
    checked = check_clip(folder, sampling=Sampling(fps=5, image_fps=50))
    assert (checked.reason, checked.num_frames, checked.fps) == ("", 6, 5.0)


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ([1, 2, 3, 5, 6, 7, 8], "no picture between 'images0003.png' and 'images0005.png'"),
        ([10, 20, 30, 50], "no picture between 'images0030.png' and 'images0050.png'"),
    ],
)
def test_a_hole_in_the_numbers_is_a_loss(tmp_path: Path, numbers: list[int], fault: str) -> None:
    folder = folder_of(tmp_path / "clip", numbers)
    assert code_of(folder) == "missing_frames"
    assert fault in check_clip(folder).detail


def test_every_third_picture_is_a_rate_and_two_sequences_are_none(tmp_path: Path) -> None:
    assert len(list_pictures(folder_of(tmp_path / "third", list(range(5, 60, 3))))) == 19
    both = folder_of(tmp_path / "both", list(range(8)), "left_{}.png")
    for k in range(8):
        picture(k).save(both / f"right_{k}.png")
    assert check_clip(both).reason == "missing_frames"
    assert "no single sequence" in check_clip(both).detail
    unnumbered = tmp_path / "unnumbered"
    unnumbered.mkdir()
    for k, letter in enumerate("abcdef"):
        picture(k).save(unnumbered / f"{letter}.png")
    assert len(read_clip(unnumbered, **ANY)) == 6


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_damaged_pictures_are_named(tmp_path: Path, suffix: str) -> None:
    folder = folder_of(tmp_path / "clip", list(range(8)), "{:03d}." + suffix)
    victim = folder / f"005.{suffix}"
    whole = victim.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello", whole[:20]):
        victim.write_bytes(content)
        checked = check_clip(folder)
        assert checked.reason == "decode_failed"
        assert victim.name in checked.detail


def test_pictures_of_two_sizes_and_of_none_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "clip", list(range(8)))
    picture(3, 32, 48).save(folder / "images0003.png")
    checked = check_clip(folder)
    assert checked.reason == "mixed_sizes"
    assert "32x48" in checked.detail
    (tmp_path / "none").mkdir()
    assert check_clip(tmp_path / "none").reason == "missing"
    assert check_clip(tmp_path / "none").sha256 == ""


def test_a_picture_that_declares_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "clip", list(range(4)))
    data = bytearray((folder / "images0000.png").read_bytes())
    import zlib

    data[16:24] = (9000).to_bytes(4) + (9000).to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    for k in range(4):
        (folder / f"images{k:04d}.png").write_bytes(data)
    assert code_of(folder) == "too_large"


def test_pictures_are_scaled_turned_and_made_rgb(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    half = np.zeros((48, 96, 3), np.uint8)
    half[:, :48] = (200, 10, 10)
    for k in range(4):
        Image.fromarray(half).save(folder / f"{k}.jpg", exif=exif, quality=95)
    frame = read_clip(folder, **{**ANY, "max_side_px": 48}).frames[0]
    assert frame.shape == (48, 24, 3)
    assert frame[:20, :, 0].min() > 150 > 60 > frame[28:, :, 0].max()
    deep = tmp_path / "deep"
    deep.mkdir()
    for k in range(4):
        Image.fromarray(np.full((48, 64), 200 * 256 + k, np.uint16)).save(deep / f"{k}.png")
    assert (read_clip(deep, **ANY).frames == 200).all()


def test_the_digest_of_a_folder_is_of_names_and_bytes(tmp_path: Path) -> None:
    a, b = (folder_of(tmp_path / name, list(range(6))) for name in "ab")
    digest = check_clip(a).sha256
    assert len(digest) == 64
    assert digest == check_clip(b).sha256
    (b / "notes.txt").write_text("no picture")
    assert digest == check_clip(b).sha256
    picture(99).save(b / "images0005.png")
    assert digest != (changed := check_clip(b).sha256)
    (b / "images0005.png").rename(b / "images0006.png")
    assert check_clip(b).sha256 not in (digest, changed)


@pytest.mark.long
def test_bytes_in_memory_are_read_as_the_file_is(tmp_path: Path, paint: Callable[..., Path]) -> None:
    for name, codec in (("a.mp4", "libx264"), ("a.gif", "gif"), ("a.ts", "libx264")):
        path = paint(tmp_path / name, num_frames=20, codec=codec)
        data = path.read_bytes()
        assert probe(data) == probe(path)
        assert np.array_equal(read_clip(data, **ANY).frames, read_clip(path, **ANY).frames)
        assert np.array_equal(read_frames(data, [7, 3]), read_frames(path, [7, 3]))
        assert check_clip(data) == check_clip(path)
    assert code_of(b"") == "empty"
    assert code_of(b"#EXTM3U\nfile.ts") == "playlist"
    assert code_of(b"no video") == "not_video"


def test_a_real_sentence_in_pictures_equals_its_video(shared_folder: Path) -> None:
    folder = shared_folder / "data" / "videos" / "frames_dir" / "01April_2010_Thursday_heute-6694"
    video = shared_folder / "data" / "videos" / "sentences" / "misc" / "01April_2010_Thursday_heute-6694.mp4"
    if not folder.is_dir() or not video.is_file():
        pytest.skip(f"no {folder} or {video}")
    frames = read_clip(folder, **ANY).frames
    film = read_clip(video, **ANY).frames
    assert frames.shape == (53, 260, 210, 3)
    assert abs(len(film) - 53) <= 1
    count = min(53, len(film))
    a, b = (np.stack([f[::8, ::8].mean(axis=2) for f in x[:count]]) for x in (frames, np.asarray(film)))
    if a.shape == b.shape:  # each picture looks most like the frame of its own number, or a neighbour's
        best = [int(np.abs(b - one).mean(axis=(1, 2)).argmin()) for one in a]
        assert np.mean(np.abs(np.array(best) - np.arange(count)) <= 1) > 0.9
