"""YouTube links, fetched by yt-dlp where it is installed (the extra `youtube`); the only importer of yt-dlp."""

import importlib
import importlib.util
import re
import threading
from pathlib import Path
from typing import Any

from sign_dist.data.fetch import Fetched, Manners
from sign_dist.data.link_faults import LinkError
from sign_dist.data.links import Link
from sign_dist.data.part import Part, finish

# Pictures are all that is used, so a video without sound is preferred: it needs no FFmpeg to join two streams.
FORMAT = "bv*[ext=mp4]/b[ext=mp4]/bv*/b"
SORT = ("res:720", "vcodec:h264")
BUSY = re.compile(r"HTTP Error 429|not a bot|rate.?limit", re.IGNORECASE)


def is_installed() -> bool:
    return importlib.util.find_spec("yt_dlp") is not None


class _Silent:
    """yt-dlp's notes; its error is raised as well."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


def fetch(link: Link, target: Path, manners: Manners, stop: threading.Event) -> Fetched:
    """Fetch a video into `target`; yt-dlp goes on with its own part. Blocks; setting `stop` ends it between two blocks.

    Raises:
        LinkError: no file, with the reason.
    """
    if not is_installed():
        raise LinkError("needs_ytdlp", "yt-dlp is not installed")
    yt_dlp: Any = importlib.import_module("yt_dlp")
    part, received = Part(target), 0

    def watch(state: dict[str, Any]) -> None:
        nonlocal received
        received = max(received, int(state.get("downloaded_bytes") or 0))
        if stop.is_set():
            raise yt_dlp.utils.DownloadCancelled("interrupted")
        if received > manners.max_bytes:
            raise LinkError("too_large", f"at least {received} bytes, the limit is {manners.max_bytes}")

    part.path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "format": FORMAT,
        "format_sort": list(SORT),
        "outtmpl": {"default": str(part.path).replace("%", "%%")},
        "max_filesize": manners.max_bytes,
        "retries": manners.tries,
        "socket_timeout": manners.timeout_s,
        "progress_hooks": [watch],
        "logger": _Silent(),
        "noplaylist": True,
        "noprogress": True,
        "quiet": True,
        "color": "no_color",
    }
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            downloader.download([link.url])
    except yt_dlp.utils.DownloadCancelled as error:
        raise LinkError("youtube_failed", "interrupted") from error
    except yt_dlp.utils.YoutubeDLError as error:
        text = " ".join(str(error).removeprefix("ERROR: ").split())
        raise LinkError("too_many_requests" if BUSY.search(text) else "youtube_failed", text) from error
    if not part.path.exists():
        raise LinkError("too_large", f"yt-dlp left no file: larger than the limit of {manners.max_bytes} bytes")
    size, digest = finish(part, link)
    return Fetched(size, digest, received)
