"""Curves of a training as small charts: whatever was recorded lies inside its chart, and is found in one of them."""

import itertools
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from sign_dist.inference.curve_charts import MAX_LINES, training_charts

numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(math.nan), st.floats(0, 1))
names = st.sampled_from(
    ["train/loss", "val/loss", "val/wer", "val/top1", "val/bleu4", "val/rouge", "lr", "clips_per_s", "padding_share"]
)
rows_of = st.lists(st.dictionaries(names, numbers, max_size=6), min_size=1, max_size=12).map(
    lambda rows: [{"epoch": float(i), "stage": i // 4, **row} for i, row in enumerate(rows)]
)


@given(rows_of)
def test_every_point_and_tick_lies_inside_its_chart(rows):
    for chart in training_charts(rows):
        for line in chart.lines:
            places = [tuple(map(float, point.split())) for point in re.split("[ML]", line.path)[1:]]
            assert all(chart.left <= x <= chart.right for x, _ in places)
            assert all(chart.top - 0.1 <= y <= chart.bottom + 0.1 for _, y in places)
        assert all(chart.left <= x <= chart.right for x, _ in chart.x_ticks)
        assert all(chart.top - 0.1 <= y <= chart.bottom + 0.1 for y, _ in chart.y_ticks)
        assert 1 <= len(chart.lines) <= MAX_LINES
        assert 2 <= len(chart.y_ticks) <= 20


@given(rows_of)
def test_what_was_measured_is_drawn_once(rows):
    drawn = [line.name for chart in training_charts(rows) for line in chart.lines]
    assert len(drawn) == len(set(drawn))
    measured = {name for row in rows for name, v in row.items() if isinstance(v, float) and math.isfinite(v)} - {"epoch"}
    assert set(drawn) == measured


def test_a_loss_over_decades_is_drawn_by_its_exponent():
    (chart,) = training_charts([{"epoch": float(e), "train/loss": 10.0 ** (3 - e)} for e in range(6)])
    heights = [float(point.split()[1]) for point in re.split("[ML]", chart.lines[0].path)[1:]]
    steps = [b - a for a, b in itertools.pairwise(heights)]
    assert max(steps) - min(steps) < 0.3
    assert [text for _, text in chart.y_ticks] == ["0.01", "0.1", "1", "10", "100", "1000"]


def test_stages_are_named_and_the_best_epoch_is_marked():
    rows = [{"epoch": float(e), "stage": e // 3, "val/wer": [90, 50, 20, 30, 20, 40][e]} for e in range(6)]
    (chart,) = training_charts(rows)
    assert [(name, shaded) for _, _, name, shaded in chart.bands] == [("stage 0", False), ("stage 1", True)]
    assert chart.best is not None
    assert chart.best[2] == "val/wer is best at epoch 4: 20"
    assert training_charts([]) == []
