"""Questions about images in every layout, and what is said of data that cannot be used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.vqa import COLOURS, daquar, easy, vqa_v2
from training.data import DataError
from training.vqa_data import kind_of, load_vqa_data


def sizes(folder: Path) -> dict[str, int]:
    return {name: len(split) for name, split in load_vqa_data(folder).splits.items()}


def test_a_folder_of_daquars_layout(tmp_path: Path) -> None:
    data = load_vqa_data(daquar(tmp_path / "daquar"))
    assert data.answers == (*COLOURS, "chair", "2")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 36, "validation": 4}
    examples = [e for split in data.splits.values() for e in split]
    assert all(data.answers[e.answer] == COLOURS[int(e.image.stem[-1])] == e.accepted[0] for e in examples)
    assert all(e.accepted[1:] == ("chair",) and e.kind == "colour" for e in examples)


def test_daquars_evaluation_questions_are_the_test_split(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / "data_eval.csv").write_text("question,answer,image_id\nwhat,red,image0\nwhat,mauve,image1")
    data = load_vqa_data(folder)
    assert [e.answer for e in data.splits["test"]] == [0, -1]


def test_easy_vqa_has_its_own_test_split(tmp_path: Path) -> None:
    data = load_vqa_data(easy(tmp_path / "easy"))
    assert data.answers == (*COLOURS, "yes", "no")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 36, "validation": 4, "test": 40}
    assert {e.kind for e in data.splits["test"]} == {"colour", "yes_no"}
    assert all(e.image.parts[-3] == "test" for e in data.splits["test"])


def test_easy_vqa_loads_by_name_where_its_package_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as hidden:
        hidden.setitem(sys.modules, "easy_vqa", None)  # it may be installed here
        with pytest.raises(
            DataError, match="easy-vqa: the package is not installed; pip install easy-vqa, or name its data folder"
        ):
            load_vqa_data(Path("easy-vqa"))
    easy(tmp_path / "easy_vqa" / "data")
    (tmp_path / "easy_vqa" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert len(load_vqa_data(Path("easy-vqa")).splits["test"]) == 40


def test_vqa_v2_joins_questions_and_annotations_by_their_number(tmp_path: Path) -> None:
    data = load_vqa_data(vqa_v2(tmp_path / "v2"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "validation": 20}
    first = data.splits["validation"][1]
    assert (first.image.name, first.accepted, first.kind) == ("COCO_val2014_000000000001.jpg", ("green", "grey"), "other")


def test_a_csv_with_paths_and_no_answer_list(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    rows = (folder / "data_train.csv").read_text().replace("image_id", "path").replace(",image", ",images/image")
    (folder / "mine.csv").write_text(rows)
    data = load_vqa_data(folder / "mine.csv")
    assert set(data.answers) == set(COLOURS)
    assert len(load_vqa_data(folder / "mine.csv", max_answers=2, min_coverage=0.4).answers) == 2


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


def test_answers_outside_the_list_train_nothing_but_count_as_wrong(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / "answer_space.txt").write_text("red\nchair")
    data = load_vqa_data(folder, min_coverage=0.25)
    assert all(e.answer == 0 for e in data.splits["train"])
    assert data.dropped == 36 - len(data.splits["train"])
    assert len(data.splits["validation"]) == 4


def test_a_list_that_leaves_too_much_out_is_refused_with_its_share(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / "answer_space.txt").write_text("red\nchair")
    with pytest.raises(DataError) as caught:
        load_vqa_data(folder)
    assert "its list of 2 answers has those of 25.0% of the questions, at least 80.0% are asked for" in str(caught.value)
    assert "--min-coverage 0.25" in str(caught.value) and "\n" not in str(caught.value)


def test_bad_rows_are_listed_with_their_lines_or_left_out(tmp_path: Path) -> None:
    folder = daquar(tmp_path / "daquar")
    with (folder / "data_train.csv").open("a") as table:
        table.write('\n"a question\nof two lines",,image0\n,red,image1\nwhat,red,image9\nwhat,red,')
    with pytest.raises(DataError) as caught:
        load_vqa_data(folder)
    assert str(caught.value) == (
        "daquar: 4 of 44 rows cannot be used (data_train.csv line 43: answer empty; "
        "data_train.csv line 44: question empty; data_train.csv line 45: no image 'image9' and 1 more); "
        "--skip-bad leaves them out"
    )
    data = load_vqa_data(folder, skip_bad=True)
    assert sizes(daquar(tmp_path / "good")) == {name: len(split) for name, split in data.splits.items()}
    assert [row.line for row in data.bad] == [43, 44, 45, 46]


def test_bad_entries_of_json_are_listed_by_their_number(tmp_path: Path) -> None:
    folder = easy(tmp_path / "easy")
    rows = json.loads((folder / "train" / "questions.json").read_text())
    (folder / "train" / "questions.json").write_text(json.dumps([*rows, "what", ["what", "red", 7]]))
    with pytest.raises(
        DataError,
        match=r"questions\.json line 41: not a list of question, answer and image number; questions\.json line 42: no image",
    ):
        load_vqa_data(folder)
    v2 = vqa_v2(tmp_path / "v2")
    file = next(v2.glob("*train2014_annotations.json"))
    file.write_text(json.dumps({"annotations": json.loads(file.read_text())["annotations"][1:]}))
    with pytest.raises(DataError, match=r"questions\.json line 20: no annotation for question_id 19"):
        load_vqa_data(v2)
    file.write_text("[]")
    with pytest.raises(DataError, match="no list of objects under 'annotations'"):
        load_vqa_data(v2)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("data_train.csv", "question,answer\na,b", "it has the columns question, answer; expected question, answer and image_id"),
        ("data_train.csv", "question,answer,image_id\nwhat,red,image0", "1 questions are too few"),
        ("answer_space.txt", "red", "1 distinct answers; at least two are needed"),
        ("data_train.csv", b"\xff\xfe\x00", "data_train.csv is not a CSV file in UTF-8"),
    ],
)
def test_unusable_data_is_one_clear_line(tmp_path: Path, name: str, content: str | bytes, fault: str) -> None:
    folder = daquar(tmp_path / "daquar")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        load_vqa_data(folder)
    assert fault in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_source_says_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no such data; accepted: a folder with data_train\.csv and images/ \(DAQUAR\), one with"
    ):
        load_vqa_data(tmp_path)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("12", "number"), ("red", "colour"), ("orange_juicer", "object"), ("black_white", "colour"), ("no", "yes_no")],
)
def test_kinds_of_answers(answer: str, kind: str) -> None:
    assert kind_of(answer) == kind
