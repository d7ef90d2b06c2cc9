"""Training a VQA head: data in both layouts, cached embeddings, exact export, a bundle that the server's head accepts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.progress import Progress

from service.models.image_encoder import ENCODERS, ImageEncoder, load_image_encoder, random_image_encoder
from service.models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from service.models.vqa_head import VqaHead
from service.store.bundle import read_bundle
from training.bundles import write_bundle
from training.data import DataError
from training.train_vqa_head import everything, fit, measure, train
from training.vqa_data import kind_of, load_vqa_data
from training.vqa_features import Features, embed_images, embed_texts
from training.vqa_model import HeadModule, Inputs, Recipe, export, predict, similar_answers

CPU = torch.device("cpu")
COLOURS = ("red", "green", "blue", "white")
TINY = Recipe(members=2, member_size=8, epochs=3, batch_size=8, refit=False)


def daquar(folder: Path, questions: int = 40) -> Path:
    """A folder laid out as DAQUAR's: images of one colour each, and questions for their colour."""
    (folder / "images").mkdir(parents=True)
    lines = ["question,answer,image_id"]
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (32, 24), colour).save(folder / "images" / f"image{i}.png")
    for i in range(questions):
        place = i % len(COLOURS)
        lines.append(f'what colour is wall {i},"{COLOURS[place]}, chair",image{place}')
    (folder / "data_train.csv").write_text("\n".join(lines))
    (folder / "answer_space.txt").write_text("\n".join((*COLOURS, "chair", "2")))
    return folder


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    images, questions = torch.randn(6, 10, generator=generator) * 3 + 1, torch.randn(9, 4, generator=generator)
    rows = torch.stack([torch.randint(high, (64,), generator=generator) for high in (6, 9, 3)], dim=1)
    return Features(images, questions, {"train": rows[:48], "validation": rows[48:]})


def test_a_folder_of_daquars_layout(tmp_path: Path) -> None:
    data = load_vqa_data(daquar(tmp_path / "daquar"))
    assert data.answers == (*COLOURS, "chair", "2")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 36, "validation": 4}
    assert all(data.answers[e.answer] == COLOURS[int(e.image.stem[-1])] for split in data.splits.values() for e in split)


def test_the_held_out_tenth_follows_the_seed(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    first, again, other = load_vqa_data(folder, 1), load_vqa_data(folder, 1), load_vqa_data(folder, 2)
    assert first.digest == again.digest != other.digest


def test_equal_questions_about_one_image_stay_on_one_side_when_grouped(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    table = folder / "data_train.csv"
    table.write_text(table.read_text() + "\n" + "\n".join(table.read_text().splitlines()[1:]))
    by_row, grouped = load_vqa_data(folder), load_vqa_data(folder, grouped=True)
    assert by_row.repeated > 0 == grouped.repeated
    for data in (by_row, grouped):
        assert {name: len(split) for name, split in data.splits.items()} == {"train": 72, "validation": 8}


def test_a_csv_with_paths_and_no_answer_list(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    rows = (folder / "data_train.csv").read_text().replace("image_id", "path").replace(",image", ",images/image")
    (folder / "mine.csv").write_text(rows)
    data = load_vqa_data(folder / "mine.csv")
    assert set(data.answers) == set(COLOURS)


def test_answers_outside_the_list_train_nothing_but_count_as_wrong(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / "answer_space.txt").write_text("red\nchair")
    data = load_vqa_data(folder)
    assert all(e.answer == 0 for e in data.splits["train"])
    assert data.dropped == 36 - len(data.splits["train"])
    assert len(data.splits["validation"]) == 4


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("data_train.csv", "question,answer\na,b", "it has the columns question, answer; expected question, answer and image_id"),
        ("data_train.csv", "question,answer,image_id\nwhat,,image0", "question, answer or image is empty in line 2"),
        ("data_train.csv", "question,answer,image_id\nwhat,red,image9", "1 of 1 images are missing, the first image9"),
        ("data_train.csv", "question,answer,image_id\nwhat,red,image0", "1 questions are too few"),
        ("answer_space.txt", "red", "1 distinct answers; at least two are needed"),
    ],
)
def test_unusable_data_is_one_clear_line(tmp_path: Path, name: str, content: str, fault: str) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / name).write_text(content)
    with pytest.raises(DataError) as caught:
        load_vqa_data(folder)
    assert fault in str(caught.value)


def test_a_missing_source_says_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file, and no folder with data_train\.csv and images/"):
        load_vqa_data(tmp_path)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("12", "number"), ("red", "colour"), ("orange_juicer", "object"), ("black_white", "colour"), ("tv", "object")],
)
def test_kinds_of_answers(answer: str, kind: str) -> None:
    assert kind_of(answer) == kind


class Counting:
    """An image encoder that counts the images it embeds."""

    def __init__(self, inner: ImageEncoder) -> None:
        self._inner, self.name, self.size, self.fingerprint, self.embedded = inner, inner.name, inner.size, inner.fingerprint, 0

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self._inner.preprocess(image)

    def embed(self, batch: torch.Tensor) -> torch.Tensor:
        self.embedded += len(batch)
        return self._inner.embed(batch)


def test_embeddings_are_cached_by_content(tmp_path: Path) -> None:
    folder, encoder = daquar(tmp_path / "daquar"), Counting(random_image_encoder("tf_efficientnet_lite0", 0, CPU))
    paths = sorted((folder / "images").iterdir())
    copy = folder / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    with Progress(disable=True) as progress:
        first = embed_images(encoder, [*paths, copy], tmp_path / "cache", progress)
        assert encoder.embedded == len(paths)
        assert torch.equal(first[0], first[-1])
        assert torch.equal(embed_images(encoder, [*paths, copy], tmp_path / "cache", progress), first)
        assert encoder.embedded == len(paths)
        Image.new("RGB", (8, 8), "black").save(paths[0])
        assert not torch.equal(embed_images(encoder, paths, tmp_path / "cache", progress)[0], first[0])
    assert encoder.embedded == len(paths) + 1


def test_a_broken_cache_is_made_anew_and_a_broken_image_is_named(tmp_path: Path) -> None:
    folder, encoder = daquar(tmp_path / "daquar"), random_image_encoder("tf_efficientnet_lite0", 0, CPU)
    paths = sorted((folder / "images").iterdir())[:1]
    with Progress(disable=True) as progress:
        first = embed_images(encoder, paths, tmp_path / "cache", progress)
        next((tmp_path / "cache").iterdir()).write_bytes(b"cut off")
        assert torch.equal(embed_images(encoder, paths, tmp_path / "cache", progress), first)
        paths[0].write_bytes(b"GIF89a")
        with pytest.raises(DataError, match=r"image0\.png: not an image that is read here"):
            embed_images(encoder, paths, tmp_path / "cache", progress)


@pytest.fixture(scope="module")
def sentences() -> SentenceEncoder:
    return load_sentence_encoder("minilm", CPU)


def test_texts_come_back_in_their_own_order(tmp_path: Path, sentences: SentenceEncoder) -> None:
    texts = ["a much longer question than the others is this one", "short", "what colour is it"]
    with Progress(disable=True) as progress:
        found = embed_texts(sentences, texts, tmp_path, progress)
    assert torch.allclose(found, sentences.embed(sentences.tokenize(texts)), atol=1e-5)


def test_members_side_by_side_give_the_mean_of_their_logits() -> None:
    given = features()
    inputs = Inputs(given, TINY)
    torch.manual_seed(0)
    members = [HeadModule(inputs.size, 3, TINY) for _ in range(3)]
    served = VqaHead(*(tensor.clone() for tensor in export(members, inputs).values()))
    rows = given.rows["validation"]
    logits = served.logits(given.images[rows[:, 0]], given.questions[rows[:, 1]])
    assert served.hidden_weight.shape == (24, 14)
    assert torch.allclose(logits, torch.stack([predict(member, inputs, rows) for member in members]).mean(0), atol=1e-5)


def test_a_constant_feature_is_left_out() -> None:
    given = features()
    given.questions[:, 1] = 0.25
    inputs = Inputs(given, TINY)
    weight = export([HeadModule(inputs.size, 3, TINY)], inputs)["hidden.weight"]
    assert bool(weight.half().isfinite().all())
    assert bool((weight[:, 11] == 0).all())


def test_targets_are_softened_by_meaning() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    targets = similar_answers(embeddings, TINY)
    assert torch.allclose(targets.sum(1), torch.ones(3))
    assert targets[0, 0] > targets[0, 1] > targets[0, 2]


def test_training_is_repeatable_and_its_members_differ() -> None:
    given = features()
    with Progress(disable=True) as progress:
        tensors, curve = fit(given, torch.eye(3), TINY, progress)
        again, _ = fit(given, torch.eye(3), TINY, progress)
    assert all(torch.equal(tensors[name], again[name]) and tensors[name].dtype == torch.float16 for name in tensors)
    assert not torch.equal(tensors["hidden.weight"][:8], tensors["hidden.weight"][8:])
    assert [point["epoch"] for point in curve] == [1, 2, 3]


def test_figures_are_those_of_the_served_head_by_kind_of_answer() -> None:
    given = features()
    held = given.rows["validation"]
    always = VqaHead(torch.zeros(2, 14), torch.zeros(2), torch.zeros(3, 2), torch.tensor([0.0, 1.0, 0.0]))
    found = measure(always, given, ("red", "2", "chair"))
    assert found["accuracy"] == pytest.approx(float((held[:, 2] == 1).float().mean()), abs=1e-4)
    assert (found["accuracy_number"], found["accuracy_colour"], found["accuracy_object"]) == (1.0, 0.0, 0.0)


def test_the_bundle_is_whole_and_served_as_measured(tmp_path: Path, sentences: SentenceEncoder) -> None:
    data = load_vqa_data(daquar(tmp_path / "daquar"))
    bundle = train(data, TINY, "walls", "daquar", tmp_path / "cache")
    write_bundle(bundle, tmp_path / "out")
    read = read_bundle(tmp_path / "out")
    image = load_image_encoder("tf_efficientnet_lite0", CPU)
    head = VqaHead.parse(
        read.config, read.tensors, read.manifest.labels, (image.size, image.fingerprint), (sentences.size, sentences.fingerprint)
    )
    assert head.hidden_weight.shape == (16, ENCODERS["tf_efficientnet_lite0"].size + 384)
    assert read.manifest.recipe["members"] == 2
    assert set(read.manifest.metrics["validation"]) == {"accuracy", "accuracy_colour", "accuracy_question_only"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "What it must not be used for" in card
    assert str(tmp_path) not in card


def test_refitting_learns_from_all_questions_and_keeps_the_figures_of_before(tmp_path: Path) -> None:
    data = load_vqa_data(daquar(tmp_path / "daquar"))
    measured = train(data, TINY, "walls", "daquar", tmp_path / "cache")
    refitted = train(data, replace(TINY, refit=True), "walls", "daquar", tmp_path / "cache")
    assert refitted.manifest.metrics == measured.manifest.metrics
    assert refitted.weights != measured.weights
    card = " ".join(bytes(refitted.files["README.md"]).decode().split())
    assert "cannot be measured again on these weights" in card
    assert len(everything(features()).rows["train"]) == 64
