"""Training a VQA head: exact export, repeatable fits, what guessing reaches, and a bundle that answers as it was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from typer import Typer
from typer.testing import CliRunner

from service.models.image_encoder import ImageEncoder, class_weights
from service.models.sentence_encoder import SentenceEncoder
from service.models.vqa_head import VqaHead
from service.store.alias import Target
from service.store.bundle import read_bundle
from service.store.registry import Registry
from service.tasks.standalone import vqa_task
from service.tasks.vqa import VqaAnswer, VqaRequest
from tests.support.clip import clip_folder
from tests.support.vqa import COLOURS, daquar, easy, vqa_v2
from tests.support.wordnet import dict_folder
from training.bundles import write_bundle
from training.train_vqa_head import main, train
from training.vqa_data import load_vqa_data
from training.vqa_features import Features
from training.vqa_folds import cross_validated
from training.vqa_model import Heads, Inputs, Recipe, export, predict, similar_answers
from training.vqa_prior import answer_weights
from training.vqa_run import CPU, Run, everything, fit

TINY = Recipe(members=2, member_size=8, epochs=3, batch_size=8, refit=False)
QUIET = Progress(disable=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"clip:{clip_folder(tmp_path_factory.mktemp('models') / 'tiny-clip')}"


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    images, questions = torch.randn(6, 10, generator=generator) * 3 + 1, torch.randn(9, 4, generator=generator)
    rows = torch.stack([torch.randint(high, (64,), generator=generator) for high in (6, 9, 3)], dim=1)
    return Features(images, questions, {"train": rows[:48], "validation": rows[48:]})


def test_inputs_are_standardised_over_the_training_rows() -> None:
    given = features()
    rows = given.rows["train"]
    joined = Inputs(given, TINY)(rows)
    assert torch.allclose(joined.mean(0), torch.zeros(14), atol=1e-5)
    assert torch.allclose(joined.std(0), torch.tensor([TINY.image_scale] * 10 + [1.0] * 4), atol=1e-5)
    assert torch.allclose(Inputs(given, TINY, ("question",))(rows), joined[:, 10:])
    assert torch.allclose(Inputs(given, TINY, ("image",))(rows), joined[:, :10])


def test_heads_side_by_side_give_the_mean_of_their_logits() -> None:
    given = features()
    inputs = Inputs(given, TINY)
    torch.manual_seed(0)
    heads = Heads(inputs.size, 3, replace(TINY, members=3))
    served = VqaHead.of(export(heads, inputs)).to(CPU)
    rows = given.rows["validation"]
    logits = served.logits(given.images[rows[:, 0]], given.questions[rows[:, 1]])
    assert export(heads, inputs)["hidden.weight"].shape == (24, 14)
    assert torch.allclose(logits, predict(heads, inputs, rows).mean(0), atol=1e-5)


def test_a_prior_is_standardised_gated_by_the_question_and_exported_exactly() -> None:
    given = features()
    given.images[:, 3] = 0.5
    answers = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    inputs = Inputs(given, TINY, answers=answers)
    rows = given.rows["train"]
    assert inputs.prior is not None
    said = inputs(rows)[:, :10] @ inputs.prior
    assert torch.allclose(said.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(said.std(0), torch.ones(3), atol=1e-4)
    torch.manual_seed(0)
    heads = Heads(inputs.size, 3, TINY, inputs.prior)
    torch.nn.init.normal_(heads.gate_weight)
    served = VqaHead.of(export(heads, inputs)).to(CPU)
    logits = served.logits(given.images[rows[:, 0]], given.questions[rows[:, 1]])
    assert torch.allclose(logits, predict(heads, inputs, rows).mean(0), atol=1e-4)


def test_the_prior_speaks_for_answers_that_are_called_as_the_classes_are(towers: tuple[ImageEncoder, SentenceEncoder]) -> None:
    sentences, answers = towers[1], ["table lamp", "folding chair", "toilet seat"]
    named = sentences.embed(sentences.tokenize(answers)).clone()
    weights = answer_weights("tf_efficientnet_lite0", sentences, named)
    classes = class_weights("tf_efficientnet_lite0")
    assert weights is not None and classes is not None and weights.shape == (3, 1280)
    own = torch.stack([classes[place] for place in (846, 559, 861)])  # these three classes of ImageNet
    near = torch.nn.functional.normalize(weights - classes.mean(0)) @ torch.nn.functional.normalize(own - classes.mean(0)).T
    assert torch.equal(near.argmax(1), torch.arange(3))
    assert answer_weights("clip:nowhere", sentences, named) is None


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    heads = Heads(4, 3, TINY).train()
    dropped = heads._dropped(torch.ones(100_003), 0.3)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(heads.eval()._dropped(torch.ones(5), 0.3), torch.ones(5))


def test_a_constant_feature_is_left_out() -> None:
    given = features()
    given.questions[:, 1] = 0.25
    inputs = Inputs(given, TINY)
    weight = export(Heads(inputs.size, 3, TINY), inputs)["hidden.weight"]
    assert bool(weight.half().isfinite().all())
    assert bool((weight[:, 11] == 0).all())


def test_targets_are_softened_by_meaning() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    targets = similar_answers(embeddings, TINY)
    assert torch.allclose(targets.sum(1), torch.ones(3))
    assert targets[0, 0] > targets[0, 1] > targets[0, 2]


def test_training_is_repeatable_learns_and_its_members_differ() -> None:
    given, recipe = features(), replace(TINY, epochs=60, input_dropout=0.0, hidden_dropout=0.0)
    given.rows["train"][:, 2] = given.rows["train"][:, 1] % 3
    tensors, curve = fit(given, torch.eye(3), recipe, QUIET)
    again, _ = fit(given, torch.eye(3), recipe, QUIET)
    assert all(torch.equal(tensors[name], again[name]) and tensors[name].dtype == torch.float16 for name in tensors)
    assert not torch.equal(tensors["hidden.weight"][:8], tensors["hidden.weight"][8:])
    assert [point["epoch"] for point in curve] == list(range(1, 61))
    rows = given.rows["train"]
    head = VqaHead.of(tensors).to(CPU)
    answers = head.logits(given.images[rows[:, 0]], given.questions[rows[:, 1]]).argmax(-1)
    assert float((answers == rows[:, 2]).float().mean()) > 0.9


def test_the_bundle_is_served_by_the_real_task_as_it_was_measured(tmp_path: Path, clip: str) -> None:
    data = load_vqa_data(daquar(tmp_path / "daquar", 120))
    recipe = replace(TINY, image_encoder=clip, sentence_encoder=clip, epochs=40, image_scale=1.0)
    write_bundle(train(data, recipe, "walls", "daquar", tmp_path / "cache"), tmp_path / "out")
    bundle = read_bundle(tmp_path / "out")
    registry = Registry.open(tmp_path / "adapters")
    registry.set_alias("walls", "live", Target.at(registry.publish("walls", bundle)[0].version))
    task = vqa_task(clip, clip, registry)
    right = 0
    for example in data.splits["validation"]:
        items = task.prepare(VqaRequest(example.image.read_bytes(), [example.question], "walls"))
        (answer,) = task.forward(task.collate(items))
        assert isinstance(answer, VqaAnswer)
        right += answer.answer == example.accepted[0]
    figures = bundle.manifest.metrics["validation"]
    assert right / len(data.splits["validation"]) == pytest.approx(figures["accuracy"], abs=1e-4)
    assert figures["accuracy"] > figures["accuracy_question_only"]
    assert bundle.manifest.base["image_encoder"].name == "clip:tiny-clip"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "What it must not be used for" in card and "accuracy_image_only" in card and str(tmp_path) not in card


def test_refitting_learns_from_all_questions_and_keeps_the_figures_of_before(tmp_path: Path, clip: str) -> None:
    data = load_vqa_data(daquar(tmp_path / "daquar"))
    recipe = replace(TINY, image_encoder=clip, sentence_encoder=clip)
    measured = train(data, recipe, "walls", "daquar", tmp_path / "cache")
    refitted = train(data, replace(recipe, refit=True), "walls", "daquar", tmp_path / "cache")
    assert refitted.manifest.metrics == measured.manifest.metrics
    assert refitted.weights != measured.weights
    card = " ".join(bytes(refitted.files["README.md"]).decode().split())
    assert "cannot be measured again on these weights" in card
    assert len(everything(features()).rows["train"]) == 64


@pytest.mark.parametrize(("grouped", "twins_tell"), [(False, True), (True, False)])
def test_in_cross_validation_no_heads_have_seen_what_they_answer(tmp_path: Path, *, grouped: bool, twins_tell: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.randint(3, (80,), generator=generator)  # which nothing tells but the question itself
    rows = torch.stack([torch.zeros(80, dtype=torch.int64), torch.arange(80), answers], dim=1)
    given = Features(
        torch.zeros(1, 4),
        torch.randn(80, 32, generator=generator),
        {"train": rows[8:].repeat(2, 1), "validation": rows[:8]},  # each of them asked twice
    )
    recipe = replace(TINY, epochs=60, member_size=32, input_dropout=0.0, hidden_dropout=0.0, answer_similarity=0.0)
    tensors, curve = fit(given, torch.eye(3), recipe, QUIET)
    data = load_vqa_data(daquar(tmp_path / "daquar"))
    done = Run(data, given, torch.eye(3), None, tensors, curve, {}, {})
    found = cross_validated(done, recipe, 4, QUIET, grouped=grouped)
    assert found["questions"] == len(rows) + 72
    assert (found["accuracy"] > 0.65) == twins_tell
    assert found["standard_error"] == pytest.approx((found["accuracy"] * (1 - found["accuracy"]) / 152) ** 0.5, abs=1e-4)


def test_the_command_cross_validates_and_says_where_there_is_too_little(tmp_path: Path, clip: str) -> None:
    folder = str(daquar(tmp_path / "data"))
    encoders = ("--image-encoder", clip, "--sentence-encoder", clip, "--members", "1", "--member-size", "8", "--epochs", "1")
    places = ("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    code, printed = command(folder, "--name", "walls", *encoders, *places, "--folds", "3")
    assert code == 0, printed
    bundle = read_bundle(tmp_path / "out")
    data = load_vqa_data(Path(folder))
    assert bundle.manifest.metrics["cross-validation"]["questions"] == sum(map(len, data.splits.values()))
    assert bundle.manifest.recipe["folds"] == 3
    assert "Cross-validation has the share of all questions" in " ".join(bytes(bundle.files["README.md"]).decode().split())
    code, printed = command(folder, "--name", "walls", *encoders, *places, "--folds", "9999")
    assert code == 1 and "error: --folds 9999: fold" in printed and "expected fewer folds" in printed


def command(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("layout", [daquar, easy, vqa_v2])
def test_the_command_trains_on_every_layout(tmp_path: Path, clip: str, layout: object) -> None:
    assert callable(layout)
    folder, output = layout(tmp_path / "data"), tmp_path / "out"
    encoders = ("--image-encoder", clip, "--sentence-encoder", clip, "--members", "2", "--member-size", "8", "--epochs", "2")
    places = ("--output", str(output), "--cache", str(tmp_path / "cache"), "--wordnet", str(dict_folder(tmp_path / "dict")))
    code, printed = command(str(folder), "--name", "walls", *encoders, *places)
    assert code == 0, printed
    figures = read_bundle(output).manifest.metrics["validation"]
    assert {"accuracy", "accuracy_question_only", "accuracy_image_only", "wups_0.9", "wups_0.0"} <= set(figures)
    assert "accuracy_image_only" in printed
    assert ("test" in read_bundle(output).manifest.metrics) == (layout is easy)


def test_without_wordnet_the_command_says_so_and_leaves_wups_out(
    tmp_path: Path, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.vqa_measure.find_wordnet", lambda _: None)
    encoders = ("--image-encoder", clip, "--sentence-encoder", clip, "--members", "1", "--member-size", "8", "--epochs", "1")
    places = ("--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    code, printed = command(str(daquar(tmp_path / "data")), "--name", "walls", *encoders, *places)
    assert code == 0 and "WUPS is left out: no WordNet found; apt-get install wordnet-base" in printed
    assert not any(name.startswith("wups") for name in read_bundle(tmp_path / "out").manifest.metrics["validation"])


def test_bad_data_is_one_line_and_nothing_is_written(tmp_path: Path, clip: str) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / "images" / "image1.png").write_bytes(b"\xff\xd8\xffcut")
    arguments = (str(folder), "--name", "walls", "--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    code, printed = command(*arguments, "--image-encoder", clip, "--sentence-encoder", clip)
    assert code == 1
    assert "error: 1 of 4 images cannot be read (image1.png: the image is broken or truncated); --skip-bad leaves out" in printed
    assert not (tmp_path / "out").exists()
    assert COLOURS[0] not in printed
