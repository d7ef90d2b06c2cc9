from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.run import CannotRun, parse_mix, parse_p99, table
from loadtest.summary import Endpoint, Summary, Thresholds, missed

SENTIMENT = Endpoint("sentiment", 100, 0, 10.0, 20.0, 30.0, 40.0, {"queue_p50": 1.0, "queue_p95": 2.0})
PUBLISH = Endpoint("swap publish", 5, 0, 0.5, 50.0, 60.0, 70.0)
TOTAL = Endpoint("Aggregated", 105, 0, 10.5, 20.0, 35.0, 60.0)
GOOD = Summary([SENTIMENT, PUBLISH], TOTAL)
BARS = Thresholds(0.0, 10.0, {"sentiment": 40.0, "swap": 70.0}, ["sentiment", "swap publish"])


def test_figures_at_their_thresholds_pass() -> None:
    assert missed(GOOD, BARS) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"total": replace(TOTAL, failures=1)}, "1 of 105 requests failed; the threshold is a ratio of 0"),
        ({"total": replace(TOTAL, rate=9.9)}, "9.9 requests/s; the threshold is 10"),
        ({"endpoints": [SENTIMENT]}, "no swap publish request was answered; the mix asks for them"),
        ({"endpoints": [SENTIMENT, replace(PUBLISH, failures=5)]}, "no swap publish request was answered; the mix asks for them"),
        ({"endpoints": [replace(SENTIMENT, p99=41.2), PUBLISH]}, "sentiment: p99 41 ms; the threshold is 40 ms"),
        ({"endpoints": [SENTIMENT, replace(PUBLISH, p99=71)]}, "swap publish: p99 71 ms; the threshold is 70 ms"),
        ({"crashes": ["1 x KeyError"]}, "the script failed: 1 x KeyError"),
    ],
)
def test_a_missed_threshold_is_named(change: dict[str, Any], line: str) -> None:
    assert missed(replace(GOOD, **change), BARS) == [line]


def test_a_summary_survives_its_file(tmp_path: Path) -> None:
    GOOD.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == replace(GOOD, errors=[], crashes=[])


def test_the_table_has_a_row_for_each_kind_and_the_total() -> None:
    made = table(GOOD)
    assert list(made.columns[0].cells) == ["sentiment", "swap publish", "all"]
    assert list(made.columns[7].cells) == ["1.0/2.0", "", ""]


def test_the_mix_needs_a_weight_for_each_kind() -> None:
    assert parse_mix("6,3,0") == [6, 3, 0]
    for wrong in ("6,3", "a,b,c", "0,0,0", "1,-1,1"):
        with pytest.raises(CannotRun, match="sentiment, classify, vqa"):
            parse_mix(wrong)


def test_given_percentiles_replace_the_defaults() -> None:
    assert parse_p99(["vqa=12.5"])["vqa"] == 12.5
    assert parse_p99([])["sentiment"] == 500
    for wrong in ("vqa", "other=1", "vqa=fast"):
        with pytest.raises(CannotRun, match="KIND=MS"):
            parse_p99([wrong])
