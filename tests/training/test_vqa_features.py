"""Embeddings are computed once: the store grows, survives being killed and shared, and is keyed by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from service.models.sentence_encoder import load_sentence_encoder
from tests.support.vqa import daquar
from training.data import DataError
from training.vqa_data import load_vqa_data
from training.vqa_features import embed, embed_images, embed_texts
from training.vqa_store import KEYS, VALUES, EmbeddingStore

CPU = torch.device("cpu")
QUIET = Progress(disable=True)


class Tints:
    """An image encoder that gives the mean colour, counts what it embeds, and may be killed after so many batches."""

    name, size, fingerprint = "tints", 3, "sha256:tints"

    def __init__(self, batches: int = 1000, side: int = 8) -> None:
        self.embedded, self._batches, self._side = 0, batches, side

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.frombuffer(bytearray(image.resize((self._side, self._side)).tobytes()), dtype=torch.uint8).view(
            self._side, self._side, 3
        )

    def embed(self, batch: Tensor) -> Tensor:
        if not self._batches:
            raise KeyboardInterrupt
        self._batches -= 1
        self.embedded += len(batch)
        return batch.float().mean((1, 2))


def pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (8, 8), (i, 2 * i, 255 - i)).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(count)]


def colours(encoder: Tints, paths: Sequence[Path], cache: Path) -> list[list[float]]:
    table, row, unreadable = embed_images(encoder, paths, cache, QUIET)
    assert not unreadable
    return [table[row[path]].tolist() for path in paths]


def test_embeddings_are_kept_by_content(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "images", 4)
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[1].read_bytes())
    encoder = Tints()
    first = colours(encoder, [*paths, copy], tmp_path / "cache")
    assert first == [[float(i), 2.0 * i, 255.0 - i] for i in (0, 1, 2, 3, 1)]
    assert encoder.embedded == 4
    assert colours(encoder, [*paths, copy], tmp_path / "cache") == first and encoder.embedded == 4
    Image.new("RGB", (8, 8), "black").save(paths[1])
    assert colours(encoder, paths, tmp_path / "cache")[1] == [0.0, 0.0, 0.0] and encoder.embedded == 5


def test_another_preprocessing_has_a_store_of_its_own(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "images", 2)
    colours(Tints(), paths, tmp_path / "cache")
    other = Tints(side=4)
    colours(other, paths, tmp_path / "cache")
    assert other.embedded == 2 and len(list((tmp_path / "cache").iterdir())) == 2


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "images", 40)
    with pytest.raises(KeyboardInterrupt):
        colours(Tints(batches=2), paths, tmp_path / "cache")
    folder = next((tmp_path / "cache").iterdir())
    with (folder / VALUES).open("ab") as values, (folder / KEYS).open("ab") as keys:
        values.write(b"\x01" * 7)  # what a kill in the middle of writing leaves
        keys.write(b"abc")
    rest = Tints()
    assert colours(rest, paths, tmp_path / "cache") == [[float(i), 2.0 * i, 255.0 - i] for i in range(40)]
    assert rest.embedded == 40 - 32


def test_two_processes_may_fill_one_store(tmp_path: Path) -> None:
    here, there = EmbeddingStore(tmp_path, 2), EmbeddingStore(tmp_path, 2)
    a, b = "a" * 64, "b" * 64
    here.add([a], torch.tensor([[1.0, 2.0]]))
    there.add([b], torch.tensor([[3.0, 4.0]]))
    assert there.rows == {a: 0, b: 1} == EmbeddingStore(tmp_path, 2).rows
    assert there.table().tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_texts_keep_their_own_embedding_whatever_the_order(tmp_path: Path) -> None:
    sentences = load_sentence_encoder("minilm", CPU)
    texts = ["a much longer question than the others is this one", "short", "what colour is it", "short"]
    for _ in range(2):
        table, row = embed_texts(sentences, texts, tmp_path, QUIET)
        found = table[[row[text] for text in texts]]
        assert torch.allclose(found, sentences.embed_in_detail(sentences.tokenize(texts)), atol=1e-5)
    assert len(table) == 3


def test_images_that_cannot_be_read_are_named_or_left_out(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / "images" / "image0.png").write_bytes(b"GIF89a")
    (folder / "images" / "image2.png").write_bytes((folder / "images" / "image1.png").read_bytes()[:60])
    data, sentences = load_vqa_data(folder), load_sentence_encoder("minilm", CPU)
    with pytest.raises(
        DataError, match=r"2 of 4 images cannot be read \(.*image0\.png: not an image that is read here.*--skip-bad"
    ):
        embed(data, Tints(), sentences, tmp_path / "cache", QUIET)
    left, features = embed(data, Tints(), sentences, tmp_path / "cache", QUIET, skip_bad=True)
    assert {e.image.stem for split in left.splits.values() for e in split} == {"image1", "image3"}
    assert {name: len(rows) for name, rows in features.rows.items()} == {name: len(s) for name, s in left.splits.items()}
    first = left.splits["train"][0]
    red, green, blue = features.images[features.rows["train"][0, 0]].tolist()
    assert ((red, green, blue) == (255.0, 255.0, 255.0)) == (first.image.stem == "image3")
