"""Presets: each names a reader, and says only what is known."""

import re

import pytest

from sign_dist.config.data import Sampling
from sign_dist.data.corpora import CORPORA
from sign_dist.data.layout import SPLITS
from sign_dist.data.normalize import CLEANUPS, youtube_id
from sign_dist.data.readers import READERS

WANTED = (
    "wlasl100 wlasl300 wlasl1000 wlasl2000 phoenix2014 phoenix2014-si5 phoenix2014T csl_daily gsl_greek-iso gsl_greek-si "
    "gsl_greek-sd autsl msasl100 msasl200 msasl500 msasl1000 how2sign gsl_ghana"
)


def test_every_corpus_that_we_promise_is_there() -> None:
    assert set(WANTED.split()) <= CORPORA.keys()


@pytest.mark.parametrize("name", CORPORA)
def test_a_preset_holds_together(name: str) -> None:
    corpus = CORPORA[name]
    assert corpus.name == name
    assert corpus.reader in READERS
    assert corpus.cleanup in ("", *CLEANUPS)
    assert set(corpus.counts) <= set(SPLITS)
    assert all(re.fullmatch("[a-z]{3}|", code) for code in (corpus.language, corpus.text))
    assert corpus.sampling().image_fps == (corpus.image_fps or Sampling().image_fps)
    assert corpus.title
    assert corpus.origin
    if corpus.task == "slt":
        assert corpus.max_seconds >= 30 or corpus.labels == "sequence"


@pytest.mark.parametrize(
    ("url", "video"),
    [
        ("https://www.youtube.com/watch?v=wX78EPtSuzU", "wX78EPtSuzU"),
        ("www.youtube.com/watch?v=wX78EPtSuzU&feature=share", "wX78EPtSuzU"),
        ("https://youtu.be/wX78EPtSuzU", "wX78EPtSuzU"),
        ("https://m.youtube.com/embed/wX78EPtSuzU/", "wX78EPtSuzU"),
        ("https://notyoutube.com/watch?v=wX78EPtSuzU", ""),
        ("https://youtube.com.evil.org/watch?v=wX78EPtSuzU", ""),
        ("https://www.youtube.com/watch?v=../../../etc", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_the_id_of_a_youtube_video(url: str, video: str) -> None:
    assert youtube_id(url) == video
