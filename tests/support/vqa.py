"""Small data sets of questions about images of one colour each, in every layout that training reads."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "white")


def daquar(folder: Path, questions: int = 40) -> Path:
    """A folder laid out as DAQUAR's: questions for an image's colour, with a second answer."""
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


def easy(folder: Path, questions: int = 40) -> Path:
    """A folder laid out as the data of the package easy-vqa."""
    for split in ("train", "test"):
        (folder / split / "images").mkdir(parents=True)
        for i, colour in enumerate(COLOURS):
            Image.new("RGB", (16, 16), colour).save(folder / split / "images" / f"{i}.png")
        rows = [["is it red?" if i % 2 else f"what is {i}?", "yes" if i % 2 else COLOURS[i % 4], i % 4] for i in range(questions)]
        (folder / split / "questions.json").write_text(json.dumps(rows))
    (folder / "answers.txt").write_text("\n".join((*COLOURS, "yes", "no")))
    return folder


def vqa_v2(folder: Path, questions: int = 20) -> Path:
    """A folder with the official files' names and keys, and images as COCO calls them."""
    for subset in ("train2014", "val2014"):
        (folder / subset).mkdir(parents=True)
        for i, colour in enumerate(COLOURS):
            Image.new("RGB", (16, 16), colour).save(folder / subset / f"COCO_{subset}_{i:012d}.jpg")
        asked = [{"question_id": i, "image_id": i % 4, "question": f"what colour is wall {i}?"} for i in range(questions)]
        answered = [
            {
                "question_id": i, "image_id": i % 4, "question_type": "what colour", "answer_type": "other",
                "multiple_choice_answer": COLOURS[i % 4],
                "answers": [{"answer": answer} for answer in (COLOURS[i % 4], "grey", COLOURS[i % 4])],
            }
            for i in reversed(range(questions))
        ]  # fmt: skip
        (folder / f"v2_OpenEnded_mscoco_{subset}_questions.json").write_text(
            json.dumps({"data_subtype": subset, "questions": asked})
        )
        (folder / f"v2_mscoco_{subset}_annotations.json").write_text(
            json.dumps({"data_subtype": subset, "annotations": answered})
        )
    return folder
