from __future__ import annotations

from loadtest.bench_vqa import QUESTION, figures, form
from loadtest.client import END
from service.routes.form import read_form


def test_a_form_is_what_a_client_sends() -> None:
    head, _, body = form(b"\xff\xd8 an image").partition(END)
    first, *headers = head.split(b"\r\n")
    assert first == b"POST /v1/vqa HTTP/1.1"
    sent = dict(line.lower().split(b": ", 1) for line in headers)
    assert int(sent[b"content-length"]) == len(body)
    assert read_form(sent[b"content-type"], body) == {"image": [b"\xff\xd8 an image"], "question": [QUESTION]}


def test_a_new_image_is_compared_within_each_repeat() -> None:
    seen, new = figures({"seen": [0.004, 0.006, 0.005], "new": [0.010, 0.024, 0.011], "bare": [0.010, 0.020, 0.010]})
    assert seen.figure == 5.0 and seen.met and seen.stretched
    assert [round(ratio, 3) for ratio in new.repeats] == [1.0, 1.2, 1.1] and new.met and new.stretched
    assert new.detail == {"new ms": 11.0, "bare ms": 10.0}
