"""The Pareto front holds all that nothing beats, and nothing else."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from sign_dist.study.pareto import dominates, front, hypervolume
from sign_dist.study.rows import TrialRow

NAMES = ["val/wer", "val/top1", "latency_ms"]
ROW = TrialRow("0000", 0, "finished", "", None, None, None, 0, 0.0, {}, {}, [])
values = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=12)


def rows_with(objectives):
    return [
        dataclasses.replace(ROW, number=i, id=f"{i:04d}", objectives=dict(zip(NAMES, each, strict=True)))
        for i, each in enumerate(objectives)
    ]


@given(values)
def test_every_trial_is_on_the_front_or_beaten_by_one_there(objectives):
    rows = rows_with(objectives)
    found = front(rows, NAMES)
    for row in rows:
        beaten = any(dominates(other.objectives, row.objectives, NAMES) for other in found)
        equal = any(other.objectives == row.objectives for other in found)
        assert beaten != equal
    assert not any(dominates(a.objectives, b.objectives, NAMES) for a in found for b in found)
    assert [row.objectives["val/wer"] for row in found] == sorted(row.objectives["val/wer"] for row in found)


def test_only_finished_trials_with_all_objectives_count():
    good, worse = rows_with([(0, 1, 0), (5, 0, 5)])
    stopped = dataclasses.replace(good, state="stopped")
    lacking = dataclasses.replace(good, objectives={"val/wer": 0.0})
    assert front([stopped, lacking, worse], NAMES) == [worse]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8))
def test_the_area_is_what_counting_squares_says(points):
    squares = sum(any(x <= i and y <= j for x, y in points) for i in range(8) for j in range(8))
    assert hypervolume([(float(x), float(y)) for x, y in points], (8.0, 8.0)) == squares
