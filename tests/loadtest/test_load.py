from __future__ import annotations

import io
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from statistics import mean

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from loadtest.images import drawing
from loadtest.load import Load, percentile
from loadtest.swap import SwapBundle, UnusableBundle
from loadtest.texts import texts
from service.models.tokenizer import TextTokenizer
from service.store.bundle import Bundle
from training.bundles import write_bundle

MIX = {"sentiment": 6.0, "classify": 3.0, "vqa": 0.0}


def test_texts_are_as_long_as_tweets() -> None:
    lengths = [len(ids) for ids in TextTokenizer("minilm")(list(islice(texts(Random(0)), 2000)))]
    assert mean(lengths) == pytest.approx(27, abs=1)
    assert np.percentile(lengths, 95) == pytest.approx(49, abs=3)


def test_the_same_seed_makes_the_same_texts_and_another_other_ones() -> None:
    first, again, other = (list(islice(texts(Random(seed)), 5)) for seed in (1, 1, 2))
    assert first == again != other


def test_drawings_are_photographs_in_form_and_all_different() -> None:
    drawn = {drawing(Random(seed)) for seed in range(5)}
    assert len(drawn) == 5
    for data in drawn:
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size, image.mode) == ("JPEG", (640, 480), "RGB")


def test_kinds_follow_the_mix_and_adapters_follow_zipf() -> None:
    load = Load(MIX, ["first", "second", "third"])
    kinds, adapters = Counter(load.kind() for _ in range(3000)), Counter(load.adapter() for _ in range(3000))
    assert kinds["sentiment"] / kinds["classify"] == pytest.approx(2, rel=0.15) and not kinds["vqa"]
    assert adapters["first"] / adapters["second"] == pytest.approx(2, rel=0.15)
    assert adapters["first"] / adapters["third"] == pytest.approx(3, rel=0.2)


def test_some_images_come_again() -> None:
    load = Load(MIX, ["one"])
    seen = Counter(load.image() for _ in range(60))
    assert 1 < len(seen) < 60 and max(seen.values()) > 1 and min(seen.values()) == 1


def test_server_times_come_from_the_headers() -> None:
    load = Load(MIX, ["one"])
    for milliseconds in range(1, 101):
        load.observe("vqa", {"x-queue-time": f"{milliseconds}.00"})
    assert load.server_times("vqa") == {"queue_p50": 50, "queue_p95": 95}
    assert load.server_times("sentiment") == {}


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (1.0, 4)])
def test_percentile_is_a_value_that_occurred(share: float, value: float) -> None:
    assert percentile([4, 3, 2, 1], share) == value


def test_versions_of_a_swap_differ_in_their_head_alone(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    write_bundle(bundles["emotion"], tmp_path)
    template = SwapBundle.read(tmp_path)
    made = [template.version(serial) for serial in range(5)]
    assert [version.label for version in made] == ["anger", "joy", "optimism", "sadness", "anger"]
    assert len({version.files["adapter_model"] for version in made}) == 5
    first, second = load(made[0].files["adapter_model"]), load(made[1].files["adapter_model"])
    assert [name for name in first if not np.array_equal(first[name], second[name])] == [template.bias]
    files = made[0].files
    parsed = Bundle.parse(files["adapter_config"], files["adapter_model"], files["manifest"])
    assert parsed.manifest.labels == bundles["emotion"].manifest.labels


def test_a_folder_without_a_text_head_is_no_template(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    with pytest.raises(UnusableBundle, match="no bundle there"):
        SwapBundle.read(tmp_path)
    write_bundle(bundles["vqa"], tmp_path)
    with pytest.raises(UnusableBundle, match="no text adapter"):
        SwapBundle.read(tmp_path)
