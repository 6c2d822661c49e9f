"""Settings of a search: what goes together, rungs of fidelity, words of the command line."""

import pytest

from sign_dist.config.search import Search, divide, rungs_of
from sign_dist.errors import SettingsError


def test_the_scheduler_is_chosen_by_the_number_of_objectives() -> None:
    assert Search().stops_by == "asha"
    assert Search().with_values({"objectives": "val/wer"}).stops_by == "asha"
    assert Search().with_values({"objectives": "val/wer latency_ms"}).stops_by == "none"
    assert Search().with_values({"scheduler": "median"}).stops_by == "median"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trials": 0}, "without an end"),
        ({"objectives": "val/wer size_mb", "scheduler": "asha"}, "scheduler = 'asha' ranks trials by one number"),
        ({"objectives": "val/wer val/wer"}, "names one twice"),
        ({"scheduler": "pbt", "fidelity": "data.share=0.5,1"}, "goes by epochs"),
        ({"fidelity": "data.share=1,0.5"}, "growing numbers"),
        ({"fidelity": "data.share=0.5"}, "two or more"),
        ({"fidelity": "data.share=0.5,x"}, "growing numbers"),
        ({"fidelity": "data.share=0.1,1 train.epochs=1,2,3"}, "the same count"),
        ({"sampler": "tpee"}, "sampler"),
        ({"trails": 3}, "did you mean 'trials'"),
    ],
)
def test_what_cannot_be_is_one_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as told:
        Search().with_values(values)
    assert "\n" not in str(told.value)


def test_rungs_grow_together_and_the_last_is_the_full_one() -> None:
    assert rungs_of("epochs") == [{}]
    rungs = rungs_of("data.share=0.1,0.3,1 data.features.num_frames=4,8,16")
    assert rungs[-1] == {"data.share": 1, "data.features.num_frames": 16}
    for name in rungs[0]:
        assert [rung[name] for rung in rungs] == sorted(rung[name] for rung in rungs)


def test_words_are_parted_and_none_is_lost() -> None:
    words = ["search.sampler=gp", "train.epochs=4", "search.hours=1", "data.root=search.x"]
    of_search, of_run = divide(words)
    assert of_search == ["sampler=gp", "hours=1"]
    assert of_run == ["train.epochs=4", "data.root=search.x"]
