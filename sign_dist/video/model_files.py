"""The published model files that find faces and landmarks: where they come from, what they must hash to."""

import hashlib
import importlib.util
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from sign_dist.errors import WeightsError


@dataclass(frozen=True)
class Asset:
    """A published model file: where it comes from, what it must hash to, and names that may stand in for it."""

    name: str
    url: str
    sha256: str
    other_names: tuple[str, ...] = ()


_SITE = "https://storage.googleapis.com/mediapipe-models"
ASSETS = {
    "pose": Asset(
        "pose_landmarker_lite.task",
        f"{_SITE}/pose_landmarker/pose_landmarker_lite/float16/1/pose_landmarker_lite.task",
        "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a",
        ("pose_landmarker_full.task", "pose_landmarker.task"),
    ),
    "hand": Asset(
        "hand_landmarker.task",
        f"{_SITE}/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task",
        "fbc2a30080c3c557093b5ddfc334698132eb341044ccee322ccf8bcf3607cde1",
        ("hand_landmarker_lite.task",),
    ),
    "face": Asset(
        "face_landmarker.task",
        f"{_SITE}/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    ),
    "face_box": Asset(
        "blaze_face_short_range.tflite",
        f"{_SITE}/face_detector/blaze_face_short_range/float16/1/blaze_face_short_range.tflite",
        "b4578f35940bf5a1a655214a1cce5cab13eba73c1297cd78e1a04c2380b0152f",
    ),
}
"""By role: body, hand and face points, and boxes around faces."""

DLIB_FACES = "mmod_human_face_detector.dat"
"""dlib's convolutional face detector; it has no address with a digest to pin, so it is only looked for."""

DOWNLOAD_TIMEOUT_S = 60.0


def landmark_roles(*, face: bool = True) -> tuple[str, ...]:
    """The files that landmarks need, with or without face points."""
    return ("pose", "hand", "face", "face_box") if face else ("pose", "hand", "face_box")


def find_files(
    roles: Sequence[str], models_dir: str | Path | None = None, *, cache_dir: str | Path | None = None, download: bool = True
) -> dict[str, Path]:
    """The files of these roles from `models_dir`, or from the cache folder, where missing ones are downloaded once.

    Raises:
        WeightsError: a file is in neither place and cannot be fetched.
    """
    cache = Path(cache_dir) if cache_dir is not None else Path.home() / ".cache" / "sign_dist" / "mediapipe"
    return {role: _find(ASSETS[role], models_dir, cache, download) for role in roles}


def dlib_files(models_dir: str | Path | None) -> dict[str, Path]:
    """dlib's convolutional face detector, if the folder has it; without it dlib uses the one it brings along.

    Raises:
        WeightsError: the package dlib is not installed.
    """
    if importlib.util.find_spec("dlib") is None:
        raise WeightsError("detector=dlib needs the package dlib: `pip install 'sign-dist[dlib]'`, or use detector=mediapipe")
    path = Path(models_dir) / DLIB_FACES if models_dir is not None else None
    return {"face_box_dlib": path} if path is not None and path.is_file() else {}


def digest_of(paths: Mapping[str, Path]) -> str:
    """SHA-256 over the files' roles and own digests: other files mean other features."""
    whole = hashlib.sha256()
    for role, path in sorted(paths.items()):
        whole.update(f"{role}:{_sha256(path)}\n".encode())
    return whole.hexdigest()


def _find(asset: Asset, models_dir: str | Path | None, cache: Path, download: bool) -> Path:
    if models_dir is not None:
        for name in (asset.name, *asset.other_names):
            if (path := Path(models_dir) / name).is_file():
                return path
    path = cache / asset.name
    if path.is_file():
        return path
    looked = f"{models_dir} and {cache}" if models_dir is not None else str(cache)
    remedy = f"download {asset.url} into a folder and set SIGN_DIST_MODELS to it"
    if not download:
        raise WeightsError(f"no {asset.name} in {looked}: {remedy}")
    try:
        _download(asset, path)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise WeightsError(f"no {asset.name} in {looked}, and its download failed ({error}): {remedy}") from error
    return path


def _download(asset: Asset, path: Path) -> None:
    """Fetch to a temporary name, check, rename: a cut-off download never looks like a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            with urllib.request.urlopen(asset.url, timeout=DOWNLOAD_TIMEOUT_S) as response:
                shutil.copyfileobj(response, part)
            part.flush()
            found = _sha256(Path(part.name))
            if found != asset.sha256:
                raise ValueError(f"its sha256 is {found}, not {asset.sha256}")
            Path(part.name).replace(path)
        finally:
            Path(part.name).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
