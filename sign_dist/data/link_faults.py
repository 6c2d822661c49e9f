"""Why a link gave no file: the reason codes of failed.tsv, and the exception that carries one."""

REASONS: dict[str, tuple[str, str]] = {
    "bad_row": ("the row lacks a URL, or its size, sha256 or span is malformed", "correct the row named in the detail"),
    "bad_url": ("not an http or https address of a file", "correct the address"),
    "bad_name": ("the path leaves the folder, is hidden, or cannot be a file's name", "choose a plain relative path"),
    "duplicate_name": ("an earlier link has the same path", "give every link a path of its own"),
    "unsupported": ("Flash (.swf), a stream playlist, or a protocol such as rtmp", "look for the sign in another source"),
    "needs_ytdlp": ("a YouTube link, and yt-dlp is not installed", 'pip install "sign-dist[youtube]"'),
    "youtube_failed": ("yt-dlp could not fetch the video; the detail is its message", "see the detail; removed videos are gone"),
    "not_found": ("the server has no such file (404, 410)", "ask the corpus's authors for a copy"),
    "refused": ("the server refuses: a login, a country, a licence", "fetch it by hand and put it under its path"),
    "too_many_requests": ("the server asks us to slow down (429)", "run again later, with a smaller --per-host"),
    "server_error": ("the server fails (5xx) at every attempt", "run again later"),
    "unreachable": ("no such host, or nobody answers there", "check the network; run again later"),
    "bad_certificate": ("the host cannot prove who it is", "check the date of this machine, then the host"),
    "timeout": ("the server stopped sending, or sends far too slowly", "run again later, or raise --timeout"),
    "broken_off": ("the connection broke at every attempt", "run again: it goes on where it stopped"),
    "changed": ("the file kept changing on the server while it was fetched", "run again later"),
    "bad_redirect": ("redirects in a circle, or to something that is not http", "correct the address"),
    "too_large": ("larger than the limit for one file", "raise --max-gb"),
    "empty": ("the server sent 0 bytes", "run again later"),
    "is_text": ("a web page or text where a video was expected", "open the address in a browser; often a login page"),
    "wrong_size": ("not the size that the list states", "correct the list, or find the right file"),
    "wrong_sha256": ("not the sha256 that the list states", "correct the list, or find the right file"),
    "not_writable": ("the file cannot be written under its path", "see the detail"),
}
"""What each code means, and the remedy."""


class LinkError(Exception):
    """One link gave no file. `retry`: another attempt may succeed; `wait_s`: how long the server asks us to wait first."""

    def __init__(self, reason: str, detail: str, *, retry: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retry, self.wait_s = reason, detail, retry, wait_s
