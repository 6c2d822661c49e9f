"""Downloads against a server that misbehaves: what arrives is whole and right, what cannot is a row with its reason."""

import csv
import hashlib
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.cli import main
from sign_dist.data import fetch as fetching
from sign_dist.data.download import Summary, download
from sign_dist.data.fetch import Manners, retry_after_s
from sign_dist.data.link_faults import REASONS
from sign_dist.data.links import MAX_NAME_BYTES, RESERVED, path_fault, read_links, safe_name
from sign_dist.data.manifest import read_tsv
from sign_dist.data.part import content_fault
from sign_dist.errors import DataError


def load_server() -> types.ModuleType:
    """tests/ is no package."""
    file = Path(__file__).with_name("fault_server.py")
    spec = importlib.util.spec_from_file_location("fault_server", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fault_server"] = module
    spec.loader.exec_module(module)
    return module


faults = load_server()
Answer = faults.Answer

QUICK = Manners(tries=3, timeout_s=0.5, backoff_s=0.01, max_backoff_s=0.05, max_bytes=50_000_000, max_retry_after_s=2.0)


def video(size: int = 300_000, seed: int = 0) -> bytes:
    """Bytes that begin as an mp4 does and that no other seed has."""
    return b"\0\0\0\x18ftypmp42" + random.Random(seed).randbytes(size - 12)


BODY = video()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NO_PROXY", "*")
    with faults.fault_server() as running:
        yield running


def listed(tmp_path: Path, *urls: str) -> Path:
    file = tmp_path / "links.txt"
    file.write_text("\n".join(urls) + "\n", encoding="utf-8")
    return file


def failed(folder: Path) -> dict[str, str]:
    """URL -> reason."""
    return {row["url"]: row["reason"] for row in read_tsv(folder / "failed.tsv")}


def one(server: Any, tmp_path: Path, answer: Any, manners: Manners = QUICK) -> tuple[str, bytes]:
    """(reason or "", bytes in place) of one file with this answer."""
    server.answers["/a.mp4"] = answer
    out = tmp_path / "out"
    download(listed(tmp_path, server.url("a.mp4")), out, manners=manners)
    file = out / "a.mp4"
    reasons = failed(out)
    assert bool(reasons) != file.exists()
    assert set(reasons.values()) <= set(REASONS)
    return next(iter(reasons.values()), ""), file.read_bytes() if file.exists() else b""


SURVIVED: dict[str, Any] = {
    "sound": Answer(BODY),
    "no ranges, no etag": Answer(BODY, ranges=False, etag=""),
    "no length": Answer(BODY, length=-1),
    "cut once": [Answer(BODY, cut=100_000), Answer(BODY)],
    "cut again and again, going on each time": [*[Answer(BODY, cut=40_000)] * 7, Answer(BODY)],
    "cut, and ranges are ignored": [Answer(BODY, cut=100_000, ranges=False), Answer(BODY, ranges=False)],
    "cut, known by its date only": [
        Answer(BODY, cut=100_000, etag="", modified="Wed, 21 Oct 2015 07:28:00 GMT"),
        Answer(BODY, etag="", modified="Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
    "cut, weak etag": [Answer(BODY, cut=100_000, etag='W/"1"'), Answer(BODY, etag='W/"1"')],
    "reset": [Answer(BODY, cut=100_000, reset=True), Answer(BODY)],
    "silent, then well": [Answer(BODY, stall_s=2.0), Answer(BODY)],
    "silent in the middle": [Answer(BODY, cut=100_000, stall_s=2.0), Answer(BODY)],
    "claims more than it has": [Answer(BODY, length=len(BODY) + 500, cut=len(BODY)), Answer(BODY)],
    "429 in seconds": [Answer(status=429, headers={"Retry-After": "1"}), Answer(BODY)],
    "503": [Answer(status=503), Answer(BODY)],
    "500 twice": [Answer(status=500), Answer(status=500), Answer(BODY)],
    "changed between ranges": [Answer(video(seed=1), cut=100_000), Answer(BODY)],
    "changed, and If-Range is ignored": [Answer(video(seed=1), cut=100_000), Answer(BODY, if_range=False)],
    "shorter now": [Answer(video(400_000, seed=1), cut=350_000), Answer(BODY, if_range=False), Answer(BODY)],
    "redirect": Answer(status=302, headers={"Location": "/b.mp4"}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SURVIVED)
def test_a_fault_that_passes_costs_nothing(name: str, server: Any, tmp_path: Path) -> None:
    server.answers["/b.mp4"] = Answer(BODY)
    answer = SURVIVED[name]
    reason, found = one(server, tmp_path, list(answer) if isinstance(answer, list) else answer)
    assert reason == ""
    assert found == BODY
    (row,) = read_tsv(tmp_path / "out" / "downloads.tsv")
    assert (row["path"], row["size_bytes"], row["sha256"]) == ("a.mp4", str(len(BODY)), hashlib.sha256(BODY).hexdigest())
    assert not list((tmp_path / "out").glob("*.part*"))


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
FATAL: dict[str, tuple[str, Any]] = {
    "404": ("not_found", Answer(HTML, status=404)),
    "410": ("not_found", Answer(HTML, status=410)),
    "403": ("refused", Answer(HTML, status=403)),
    "204": ("refused", Answer(status=204)),
    "500 for ever": ("server_error", Answer(status=500)),
    "429 for ever": ("too_many_requests", Answer(status=429)),
    "429, come back tomorrow": ("too_many_requests", Answer(status=429, headers={"Retry-After": "86400"})),
    "503, come back at a date": ("server_error", Answer(status=503, headers={"Retry-After": faults.http_date(86_400)})),
    "silent": ("timeout", Answer(BODY, stall_s=3.0)),
    "silent in the middle, no ranges": ("timeout", Answer(BODY, cut=1000, stall_s=3.0, ranges=False, etag="")),
    "trickles": ("timeout", Answer(BODY, piece=1, pace_s=0.1, ranges=False, etag="")),
    "always cut, no ranges": ("broken_off", Answer(BODY, cut=1000, ranges=False, etag="")),
    "always reset": ("broken_off", Answer(BODY, cut=0, reset=True)),
    "always claims more than it has, no ranges": (
        "broken_off",
        Answer(BODY, length=len(BODY) + 500, cut=len(BODY), ranges=False, etag=""),
    ),
    "redirects in a circle": ("bad_redirect", Answer(status=302, headers={"Location": "/a.mp4"})),
    "redirects to a file": ("bad_redirect", Answer(status=302, headers={"Location": "file:///etc/passwd"})),
    "redirects to another protocol": ("bad_redirect", Answer(status=302, headers={"Location": "ftp://127.0.0.1/a.mp4"})),
    "redirects to nonsense": ("bad_redirect", Answer(status=302, headers={"Location": "http://[::/"})),
    "a web page": ("is_text", Answer(HTML)),
    "a long web page": ("is_text", Answer(HTML + b"<p>" * 5_000_000)),
    "Flash under another name": ("unsupported", Answer(b"CWS\x09" + BODY)),
    "nothing": ("empty", Answer(b"")),
    "larger than allowed": ("too_large", Answer(BODY, length=80_000_000, cut=10)),
    "larger than allowed, without a length": ("too_large", Answer(video(3_000_000), length=-1)),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", FATAL)
def test_a_fault_that_stays_is_a_row_with_its_reason(name: str, server: Any, tmp_path: Path) -> None:
    reason, answer = FATAL[name]
    limit = 2_000_000 if "without a length" in name else QUICK.max_bytes
    assert one(server, tmp_path, answer, Manners(**{**vars(QUICK), "max_bytes": limit})) == (reason, b"")
    assert read_tsv(tmp_path / "out" / "downloads.tsv") == []
    # What another attempt cannot mend is asked for once; of a circle, each turn is a request.
    asked = len(server.requests("a.mp4"))
    again = reason in ("timeout", "broken_off") or name in ("500 for ever", "429 for ever")
    assert asked == (QUICK.tries if again else fetching.MAX_REDIRECTS + 1 if "circle" in name else 1)
    assert server.sent_bytes() < 8_000_000  # a long web page is not read to its end


def test_a_length_that_was_a_lie_is_corrected_by_the_answer_to_a_range(server: Any, tmp_path: Path) -> None:
    """The server claims 500 bytes more than there are; asked for them it says that there are none (416)."""
    lie = Answer(BODY, length=len(BODY) + 500, cut=len(BODY))
    assert one(server, tmp_path, [lie, Answer(BODY)]) == ("", BODY)
    assert [seen.range for seen in server.requests("a.mp4")] == ["", f"bytes={len(BODY)}-"]


def test_a_broken_transfer_goes_on_at_its_byte(server: Any, tmp_path: Path) -> None:
    assert one(server, tmp_path, [Answer(BODY, cut=100_000), Answer(BODY)]) == ("", BODY)
    assert [seen.range for seen in server.requests("a.mp4")] == ["", "bytes=100000-"]
    assert server.sent_bytes() == len(BODY)


@pytest.mark.long
@pytest.mark.parametrize("value", ["1", "date"])
def test_a_server_that_asks_for_time_gets_it_from_every_link(value: str, server: Any, tmp_path: Path) -> None:
    """HTTP dates have no fraction of a second, so the one asked for may be almost a second nearer than it says."""
    made_s = time.monotonic()
    asks = faults.http_date(2) if value == "date" else value
    server.answers |= {f"/{k}.mp4": Answer(video(seed=k)) for k in range(6)}
    server.answers["/0.mp4"] = [Answer(status=429, headers={"Retry-After": asks}), Answer(BODY)]
    urls = [server.url(f"{k}.mp4") for k in range(6)]
    done = download(listed(tmp_path, *urls), tmp_path / "out", manners=Manners(**{**vars(QUICK), "per_host": 1}))
    assert done.num_fetched == 6
    assert len(server.seen) == 7
    asked_s = server.requests("0.mp4")[0].time_s  # links come in any order
    # The date was made before anything was asked; a second counts from the answer.
    free_s = (made_s if value == "date" else asked_s) + 0.95
    assert all(seen.time_s >= free_s for seen in server.seen if seen.time_s > asked_s)


def test_a_host_that_asks_for_too_much_time_is_left_alone(server: Any, tmp_path: Path) -> None:
    busy = Answer(status=503, headers={"Retry-After": "3600"})
    server.answers |= {f"/{k}.mp4": busy for k in range(20)} | {"/b.mp4": Answer(BODY)}
    urls = [*(server.url(f"{k}.mp4") for k in range(20)), server.url("b.mp4", "localhost")]
    done = download(listed(tmp_path, *urls), tmp_path / "out", manners=QUICK)
    assert done.failed == {"server_error": 20}
    assert done.num_fetched == 1
    assert len(server.seen) <= QUICK.per_host + 1


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("", 0), ("-3", 0), ("soon", 0), ("9" * 400, 999_999_999_999)])
def test_retry_after_is_read(value: str, seconds: float) -> None:
    assert retry_after_s(value) == seconds
    assert 8 < retry_after_s(faults.http_date(10)) <= 10
    assert retry_after_s(faults.http_date(-10)) == 0


@pytest.mark.long
def test_bounds_are_held(server: Any, tmp_path: Path) -> None:
    for k in range(24):
        server.answers[f"/{k}.mp4"] = Answer(video(2000, k), stall_s=0.25)
    urls = [server.url(f"{k}.mp4", ("127.0.0.1", "localhost", "127.0.0.2")[k % 3]) for k in range(24)]
    urls = [url for url in urls if "127.0.0.2" not in url] + [server.url("0.mp4")] * 3
    server.answers["/r.mp4"] = Answer(status=302, headers={"Location": server.url("1.mp4", "localhost")})
    manners = Manners(**{**vars(QUICK), "parallel": 5, "per_host": 3})
    done = download(listed(tmp_path, *urls, server.url("r.mp4")), tmp_path / "out", manners=manners)
    assert done.failed == {}
    assert done.num_links == done.num_fetched == 17
    assert max(server.most_at_once.values()) == 3  # five at once: one of two hosts has three, and none ever has four
    assert len(server.requests("0.mp4")) == 1  # a URL that is listed again is fetched once


def test_a_dead_host_costs_its_tries_once_and_holds_up_nobody(server: Any, tmp_path: Path) -> None:
    with faults.socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    server.answers["/b.mp4"] = Answer(BODY)
    urls = [f"http://127.0.0.1:{port}/{k}.mp4" for k in range(60)] + [server.url("b.mp4", "localhost"), "http://no.invalid/x.mp4"]
    began = time.monotonic()
    done = download(listed(tmp_path, *urls), tmp_path / "out", manners=QUICK)
    assert time.monotonic() - began < 10
    assert done.failed == {"unreachable": 61}
    assert done.num_fetched == 1


def test_what_is_there_is_not_fetched_again(server: Any, tmp_path: Path) -> None:
    server.answers |= {f"/{k}.mp4": Answer(video(seed=k)) for k in range(5)}
    links, out = listed(tmp_path, *(server.url(f"{k}.mp4") for k in range(5))), tmp_path / "out"
    first = download(links, out, manners=QUICK)
    table = (out / "downloads.tsv").read_bytes()
    again = download(links, out, manners=QUICK)
    assert (first.num_fetched, first.num_there_before) == (5, 0)
    assert (again.num_fetched, again.num_there_before, again.received_bytes) == (0, 5, 0)
    assert len(server.seen) == 5
    assert (out / "downloads.tsv").read_bytes() == table
    (out / "1.mp4").unlink()
    (out / "2.mp4").write_bytes(b"shorter")
    (out / "3.mp4").write_bytes(video(seed=9))  # of the same size: only --verify notices
    assert download(links, out, manners=QUICK).num_fetched == 2
    assert download(links, out, manners=QUICK, verify=True).num_fetched == 1
    assert [(out / f"{k}.mp4").read_bytes() for k in range(5)] == [video(seed=k) for k in range(5)]


def test_files_without_a_record_are_taken_in(server: Any, tmp_path: Path) -> None:
    """Those of an earlier tool, or of a run killed between the renaming and the record."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mp4").write_bytes(BODY)
    (out / "b.mp4").write_bytes(HTML)
    server.answers["/b.mp4"] = Answer(BODY)
    done = download(listed(tmp_path, server.url("a.mp4"), server.url("b.mp4")), out, manners=QUICK)
    assert (done.num_there_before, done.num_fetched) == (1, 1)
    assert {row["path"]: row["sha256"] for row in read_tsv(out / "downloads.tsv")} == dict.fromkeys(
        ("a.mp4", "b.mp4"), hashlib.sha256(BODY).hexdigest()
    )


def test_a_record_that_was_cut_off_is_mended(server: Any, tmp_path: Path) -> None:
    server.answers |= {"/a.mp4": Answer(BODY), "/b.mp4": Answer(BODY)}
    links, out = listed(tmp_path, server.url("a.mp4"), server.url("b.mp4")), tmp_path / "out"
    download(links, out, manners=QUICK)
    table = out / "downloads.tsv"
    table.write_bytes(table.read_bytes()[:-30])
    assert download(links, out, manners=QUICK).num_there_before == 2
    assert [row["path"] for row in read_tsv(table)] == ["a.mp4", "b.mp4"]
    assert len(server.seen) == 2


def test_size_and_sha256_of_the_list_are_held(server: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    server.answers |= {f"/{name}.mp4": Answer(BODY) for name in "abcd"}
    server.answers["/d.mp4"] = [Answer(video(seed=1), cut=1000, etag=""), Answer(BODY, etag="")]  # pieced together, then right
    file = tmp_path / "links.tsv"
    rows = [("a", len(BODY), digest), ("b", len(BODY) + 1, ""), ("c", "", "0" * 64), ("d", "", digest)]
    file.write_text("url\tsize\tsha256\n" + "".join(f"{server.url(n)}.mp4\t{size}\t{sha}\n" for n, size, sha in rows))
    download(file, tmp_path / "out", manners=QUICK)
    assert failed(tmp_path / "out") == {server.url("b.mp4"): "wrong_size", server.url("c.mp4"): "wrong_sha256"}
    assert (tmp_path / "out" / "d.mp4").read_bytes() == BODY
    assert server.sent_bytes("b.mp4") < len(BODY) or len(server.requests("b.mp4")) == 1


def test_a_full_disk_stops_before_the_start_and_in_the_middle(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/a.mp4"] = Answer(BODY)
    file = tmp_path / "links.tsv"
    file.write_text(f"url\tsize\n{server.url('a.mp4')}\t{10**16}\n")
    with pytest.raises(DataError, match=r"need 10000000\.00 GB.*are free: free space"):
        download(file, tmp_path / "out", manners=QUICK)
    assert server.seen == []
    monkeypatch.setattr(fetching, "free_bytes", lambda _folder: 1000)
    with pytest.raises(DataError, match="no room for 300000 bytes more"):
        download(listed(tmp_path, server.url("a.mp4")), tmp_path / "out", manners=QUICK)


@pytest.mark.long
def test_two_downloads_do_not_write_into_one_folder(server: Any, tmp_path: Path) -> None:
    server.answers["/a.mp4"] = Answer(BODY, stall_s=0.4)
    links, out = listed(tmp_path, server.url("a.mp4")), tmp_path / "out"
    thread = threading.Thread(target=download, args=(links, out), kwargs={"manners": QUICK})
    thread.start()
    try:
        while not (out / ".download.lock").exists():
            time.sleep(0.01)
        time.sleep(0.05)
        with pytest.raises(DataError, match="another download writes to"):
            download(links, out, manners=QUICK)
    finally:
        thread.join()
    assert (out / "a.mp4").read_bytes() == BODY


def start(server: Any, links: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "sign_dist", "download", str(links), str(out), "--per-host", "3"]
    return subprocess.Popen(words, stderr=subprocess.PIPE, env={**os.environ, "NO_PROXY": "*"})


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_goes_on_where_it_was(how: signal.Signals, server: Any, tmp_path: Path) -> None:
    """Four small files arrive, two large ones are under way when the process is killed."""
    small, large = [f"s{k}.mp4" for k in range(4)], ["l0.mp4", "l1.mp4"]
    bodies = {name: video(50_000, k) for k, name in enumerate(small)} | {
        name: video(6_000_000, 9 + k) for k, name in enumerate(large)
    }
    server.answers |= {f"/{name}": Answer(body) for name, body in bodies.items()}
    server.answers |= {f"/{name}": [Answer(bodies[name], pace_s=0.3), Answer(bodies[name])] for name in large}
    links, out = listed(tmp_path, *(server.url(name) for name in bodies)), tmp_path / "out"
    process = start(server, links, out)
    until = time.monotonic() + 60
    parts = [out / f"{name}.part" for name in large]
    while not all((out / name).exists() for name in small) or not all(p.exists() and p.stat().st_size > 100_000 for p in parts):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert b"Traceback" not in err
    kept = {name: (out / f"{name}.part").stat().st_size for name in large}
    assert all((out / name).read_bytes() == bodies[name] for name in small)
    if how == signal.SIGINT:
        assert b"goes on where it stopped" in err
        assert {row["path"] for row in read_tsv(out / "downloads.tsv")} == set(small)
    server.seen.clear()
    done = download(links, out, manners=QUICK)
    assert (done.num_there_before, done.num_fetched, done.failed) == (4, 2, {})
    assert done.received_bytes == sum(len(bodies[name]) - kept[name] for name in large)
    second = {seen.path[1:]: seen for seen in server.seen if seen.range}
    assert {name: seen.range for name, seen in second.items()} == {name: f"bytes={size}-" for name, size in kept.items()}
    assert {name: seen.sent for name, seen in second.items()} == {name: len(bodies[name]) - kept[name] for name in large}
    assert not any(server.requests(name) for name in small)
    assert {name: (out / name).read_bytes() for name in bodies} == bodies
    assert {row["path"]: row["sha256"] for row in read_tsv(out / "downloads.tsv")} == {
        name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()
    }


def test_a_part_that_is_whole_is_not_asked_for_again(server: Any, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mp4.part").write_bytes(BODY)
    version = {"url": server.url("a.mp4"), "etag": '"x"', "modified": "", "total": len(BODY)}
    (out / "a.mp4.part.json").write_text(json.dumps(version))
    done = download(listed(tmp_path, server.url("a.mp4")), out, manners=QUICK)
    assert (done.num_fetched, done.received_bytes) == (1, 0)
    assert server.seen == []
    assert (out / "a.mp4").read_bytes() == BODY


@pytest.mark.parametrize("version", ["", "{", "[]", '{"url": "http://other/"}', None])
def test_a_part_of_unknown_origin_is_not_continued(version: str | None, server: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mp4.part").write_bytes(video(seed=5)[:1000])
    if version is not None:
        (out / "a.mp4.part.json").write_text(version)
    assert one(server, tmp_path, Answer(BODY)) == ("", BODY)
    assert [seen.range for seen in server.seen] == [""]


WLASL = [
    {
        "gloss": "book",
        "instances": [
            {"url": "{a.mp4}", "video_id": "1", "frame_start": 1, "frame_end": -1, "fps": 25, "source": "s"},
            {"url": "{a.mp4}", "video_id": "2", "frame_start": 26, "frame_end": 50, "fps": 25, "source": "s"},
            {"url": "http://www.aslpro.com/b.swf", "video_id": "3", "source": "aslpro"},
            {"url": "https://youtu.be/0UsjUE-TXns", "video_id": "4", "frame_start": 1, "frame_end": 50, "source": "y"},
            {"url": "https://www.youtube.com/watch?v=0UsjUE-TXns&t=3", "video_id": "5", "frame_start": 51, "frame_end": 75},
            {"video_id": "6"},
            {"url": "{a.mp4}", "video_id": "7", "frame_start": 30, "frame_end": 20},
            None,
        ],
    }
]


def test_wlasl_from_its_own_file(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sign_dist.data.youtube.is_installed", lambda: False)
    server.answers["/a.mp4"] = Answer(BODY)
    file = tmp_path / "WLASL.json"
    file.write_text(json.dumps(WLASL).replace("{a.mp4}", server.url("a.mp4")))
    out = tmp_path / "raw_videos"
    done = download(file, out, manners=QUICK)
    assert (out / "1.mp4").read_bytes() == (out / "2.mp4").read_bytes() == BODY
    assert (out / "1.mp4").samefile(out / "2.mp4")
    assert len(server.seen) == 1
    assert done.failed == {"bad_row": 3, "needs_ytdlp": 2, "unsupported": 1}
    spans = {row["id"]: (row["path"], row["start_s"], row["end_s"]) for row in read_tsv(out / "clips.tsv")}
    assert spans == {
        "1": ("1.mp4", "0", "0"),
        "2": ("2.mp4", "1", "2"),
        "4": ("0UsjUE-TXns.mp4", "0", "2"),
        "5": ("0UsjUE-TXns.mp4", "2", "3"),
    }
    assert download(file, out, manners=QUICK).num_there_before == 1


def test_real_annotation_files_are_read_whole(shared_folder: Path) -> None:
    folder = shared_folder / "data" / "annotations"
    wlasl = read_links(folder / "wlasl" / "WLASL_v0.3_top100.json")
    entries = [i for gloss in json.loads((folder / "wlasl" / "WLASL_v0.3_top100.json").read_text()) for i in gloss["instances"]]
    assert len(wlasl.clips) + len(wlasl.dead) == len(entries) == 2038
    assert Counter(dead.reason for dead in wlasl.dead) == {"unsupported": sum(i["url"].endswith(".swf") for i in entries)}
    assert {clip.path for clip in wlasl.clips if "youtu" not in clip.url} == {
        f"{i['video_id']}{Path(i['url']).suffix}" for i in entries if "youtu" not in i["url"] and not i["url"].endswith(".swf")
    }
    msasl = read_links(folder / "msasl" / "MSASL_test.excerpt.json")
    assert len(msasl.clips) == 400
    assert msasl.dead == []
    assert all(link.youtube and len(link.paths) == 1 for link in msasl.links)
    assert {Path(link.paths[0]).stem for link in msasl.links} == {clip.url[-11:] for clip in msasl.clips}


def test_tables_of_links(tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    with file.open("w", newline="") as table:
        csv.writer(table).writerows(
            [
                ("Id", "URL", "path", "size"),
                ("a", "http://h/x.mp4?k=1,2", "deep/x.mp4", "5"),
                ("a", "http://h/y.webm", "", ""),
                ("", "http://h/y.webm#t=4", "", ""),
                ("A", "http://h/z.webm", "", ""),
                ("", "http://h/dir/x.mp4", "deep/X.mp4", ""),
                ("", "ftp://h/x.mp4", "", ""),
                ("", "file:///etc/passwd", "", ""),
                ("", "", "", ""),
                ("q", "", "", ""),
                ("", "http://h/q.mp4", "q.mp4", "5 MB"),
                ("", "http://h/q.mp4", "../q.mp4", ""),
                ("", "http://h/q b.mp4", "", ""),
            ]
        )
    found = read_links(file)
    z = f"A-{hashlib.sha256(b'http://h/z.webm').hexdigest()[:8]}.webm"
    assert [(link.url, link.paths, link.size_bytes) for link in found.links] == [
        ("http://h/x.mp4?k=1,2", ("deep/x.mp4",), 5),
        ("http://h/y.webm", ("a.webm", "y.webm"), 0),
        ("http://h/z.webm", (z,), 0),
    ]
    assert [(dead.reason, dead.detail.partition(":")[0]) for dead in found.dead] == [
        ("duplicate_name", "line 6"),
        ("unsupported", "line 7"),
        ("bad_url", "line 8"),
        ("bad_row", "line 10"),
        ("bad_row", "line 11"),
        ("bad_name", "line 12"),
        ("bad_url", "line 13"),
    ]


def test_plain_lists(tmp_path: Path) -> None:
    text = "\ufeff# mine\n\nwww.h.org/a.mp4\n  http://h/a.mp4  \nhttp://h/%2e%2e%2fetc%2fpasswd\nhttp://h/\nhttp://h/failed.tsv\nnonsense\n"
    found = read_links(listed(tmp_path, text))
    names = [link.paths[0] for link in found.links]
    assert names[0] == "a.mp4"
    assert re.fullmatch(r"a-[0-9a-f]{8}\.mp4", names[1])
    assert names[2] == "passwd"
    assert names[3] == "video"
    assert re.fullmatch(r"failed-[0-9a-f]{8}\.tsv", names[4])
    assert [dead.detail.partition(":")[0] for dead in found.dead] == ["line 8"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "holds no link"),
        (b"# nothing\n", "holds no link"),
        (b"hello\n", "neither a table with a column url"),
        (b"id\tpath\na\tb\n", "neither a table with a column url"),
        (b"\xff\xfe", "no UTF-8"),
        (b"{", "no JSON"),
        (b'{"a": 1}', "no list of objects"),
        (b"[1]", "no list of objects"),
        (b'[{"action": [1, 2, 3]}]', "names no url"),
    ],
)
def test_a_list_that_is_none_is_one_sentence(content: bytes, part: str, tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_bytes(content)
    with pytest.raises(DataError, match=part):
        read_links(file)


TEXT = st.text(max_size=300)


@given(TEXT, TEXT)
def test_names_never_leave_the_folder(text: str, path: str) -> None:
    for name in (safe_name(text), *([] if path_fault(path) else [path])):
        assert name
        assert not re.search(r"[\x00-\x1f\\]", name)
        for part in name.split("/"):
            assert part not in ("", ".", "..")
            assert not part.startswith(".")
            assert not part.endswith((".part", ".part.json"))
            assert len(part.encode()) <= MAX_NAME_BYTES
    assert "/" not in safe_name(text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "A", "b", "../b", "failed", ""]), st.sampled_from("xyz"), st.sampled_from(["mp4", "MP4"]))
    )
)
def test_no_two_urls_share_a_file(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    file = tmp_path_factory.mktemp("list") / "links.json"
    file.write_text(json.dumps([{"url": f"http://h/{x}/v.{suffix}", "id": name} for name, x, suffix in rows]))
    if not rows:
        return
    found = read_links(file)
    urls_of: dict[str, set[str]] = {}
    for link in found.links:
        for path in link.paths:
            urls_of.setdefault(path.casefold(), set()).add(link.url)
    assert all(len(urls) == 1 for urls in urls_of.values())
    assert not set(urls_of) & set(RESERVED)
    assert found.dead == []
    assert {link.url for link in found.links} == {f"http://h/{x}/v.{suffix}" for _, x, suffix in rows}


REFUSED = {
    "/a": "relative",
    "C:a": "relative",
    "a\\b": "backslash",
    "a/.b": "hidden",
    "a.part": "unfinished",
    "x" * 300: "longer",
    "downloads.tsv": "table",
}


@pytest.mark.parametrize(("path", "part"), REFUSED.items(), ids=[name[:10] for name in REFUSED])
def test_paths_that_are_refused(path: str, part: str) -> None:
    assert part in path_fault(path)


def test_what_a_file_begins_with_decides(tmp_path: Path) -> None:
    assert content_fault(BODY[:1024], tmp_path / "a.mp4") is None
    assert content_fault(b"G@\x00\x10" * 256, tmp_path / "a.ts") is None  # MPEG-TS begins with a letter
    assert content_fault(b"a\tb\n", tmp_path / "labels.tsv") is None
    for text in (HTML, "Anmeldung nötig".encode(), b'{"error": 1}', b"   \r\n"):
        fault = content_fault(text, tmp_path / "a.mp4")
        assert fault
        assert fault.reason == "is_text"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be used.*choose one that can be written"):
        download(listed(tmp_path, "http://h/a.mp4"), tmp_path / "file")


def test_a_path_below_a_file_is_a_row(server: Any, tmp_path: Path) -> None:
    server.answers |= {"/a.mp4": Answer(BODY), "/b.mp4": Answer(BODY)}
    file = tmp_path / "links.tsv"
    file.write_text(f"url\tpath\n{server.url('a.mp4')}\tx.mp4\n{server.url('b.mp4')}\tx.mp4/y.mp4\n")
    download(file, tmp_path / "out", manners=QUICK)
    done = download(file, tmp_path / "out", manners=QUICK)
    assert (done.num_there_before, done.failed) == (1, {"not_writable": 1})


class FakeYtDlp(types.ModuleType):
    """yt-dlp as far as it is used: options, download(), hooks, its two errors."""

    def __init__(self, error: str = "") -> None:
        super().__init__("yt_dlp")
        self.calls: list[str] = []
        self.utils = types.SimpleNamespace(
            YoutubeDLError=type("YoutubeDLError", (Exception,), {}), DownloadCancelled=type("DownloadCancelled", (Exception,), {})
        )
        module = self

        class YoutubeDL:
            def __init__(self, options: dict[str, Any]) -> None:
                self.options = options

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None: ...

            def download(self, urls: list[str]) -> None:
                module.calls += urls
                if error:
                    raise module.utils.YoutubeDLError(f"ERROR: [youtube] {error}")
                for hook in self.options["progress_hooks"]:
                    hook({"downloaded_bytes": len(BODY)})
                Path(self.options["outtmpl"]["default"].replace("%%", "%")).write_bytes(BODY)

        self.YoutubeDL = YoutubeDL


def youtube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeYtDlp, num: int = 6) -> Summary:
    monkeypatch.setitem(sys.modules, "yt_dlp", fake)
    monkeypatch.setattr("sign_dist.data.youtube.is_installed", lambda: True)
    urls = [f"https://www.youtube.com/watch?v=0UsjUE-TXn{k}" for k in range(num)]
    return download(listed(tmp_path, *urls), tmp_path / "50%(id)s", manners=Manners(**{**vars(QUICK), "per_host": 1}))


def test_youtube_goes_through_yt_dlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeYtDlp()
    done = youtube(tmp_path, monkeypatch, fake)
    assert (done.num_fetched, done.received_bytes, done.failed) == (6, 6 * len(BODY), {})
    assert (tmp_path / "50%(id)s" / "0UsjUE-TXn0.mp4").read_bytes() == BODY
    assert youtube(tmp_path, monkeypatch, fake).num_there_before == 6
    assert len(fake.calls) == 6


@pytest.mark.parametrize(
    ("error", "reason", "calls"),
    [("x: Private video", "youtube_failed", 6), ("x: Sign in to confirm you're not a bot", "too_many_requests", 1)],
)
def test_what_yt_dlp_cannot_fetch_is_a_row(
    error: str, reason: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeYtDlp(error)
    assert youtube(tmp_path, monkeypatch, fake).failed == {reason: 6}
    assert len(fake.calls) == calls


@pytest.mark.long
def test_the_real_yt_dlp_takes_our_options(server: Any, tmp_path: Path, paint: Any) -> None:
    """Not from YouTube: yt-dlp also takes the address of a plain file."""
    pytest.importorskip("yt_dlp", reason="the extra youtube is not installed")
    from sign_dist.data.link_faults import LinkError
    from sign_dist.data.links import Link
    from sign_dist.data.youtube import fetch

    body = paint(tmp_path / "clip.mp4", num_frames=30).read_bytes()
    server.answers |= {"/a.mp4": Answer(body), "/gone.mp4": Answer(status=404)}
    link = Link(server.url("a.mp4"), ("a.mp4",), ("a",))
    got = fetch(link, tmp_path / "out" / "a 50%.mp4", QUICK, threading.Event())
    assert (tmp_path / "out" / "a 50%.mp4").read_bytes() == body
    assert got.sha256 == hashlib.sha256(body).hexdigest()
    with pytest.raises(LinkError, match=r"youtube_failed: .*404"):
        fetch(Link(server.url("gone.mp4"), ("b.mp4",), ("b",)), tmp_path / "out" / "b.mp4", QUICK, threading.Event())
    stop = threading.Event()
    stop.set()
    with pytest.raises(LinkError, match="interrupted"):
        fetch(link, tmp_path / "out" / "c.mp4", QUICK, stop)
    small = Manners(**{**vars(QUICK), "max_bytes": 100})
    with pytest.raises(LinkError, match="too_large"):
        fetch(link, tmp_path / "out" / "d.mp4", small, threading.Event())


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    """(exit code, stderr) of the command."""
    monkeypatch.setattr("sys.argv", ["sign-dist", "download", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


def test_dead_links_are_data_and_a_bad_list_is_an_error(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a.mp4"] = Answer(BODY)
    out = tmp_path / "out"
    code, err = run(capsys, monkeypatch, listed(tmp_path, server.url("a.mp4"), server.url("b.mp4"), "rtmp://h/c"), out)
    assert code == 0
    assert "2 links, 1 fetched (0.3 MB), 0 there before" in err
    assert "1 unsupported, 1 not_found" in err or "1 not_found, 1 unsupported" in err
    assert "failed.tsv" in err
    code, err = run(capsys, monkeypatch, tmp_path / "nothing.txt", out)
    assert code == 1
    assert err.startswith("sign-dist: list ")
    assert "Traceback" not in err


def test_every_reason_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    table = text.partition("| reason |")[2].partition("\n\n")[0]
    rows = {line for line in table.splitlines() if line.startswith("| `")}
    assert rows == {f"| `{reason}` | {what} | {remedy} |" for reason, (what, remedy) in REASONS.items()}
