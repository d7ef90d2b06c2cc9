"""VQA heads: the served form equals torch's layers, and a wrong adapter is refused with every fault at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import AdapterIncompatible
from service.models import product_kernel
from service.models.vqa_head import Tower, VqaHead

IMAGE, SENTENCE = Tower((6,), "sha256:image"), Tower((4, 8), "sha256:sentence")
CPU = torch.device("cpu")
LABELS = ("chair", "red", "2")


def config(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": None,
        "task_type": "VQA",
        "image_encoder": {"name": "eye", "fingerprint": IMAGE.fingerprint, "size": 6},
        "sentence_encoder": {"name": "ear", "fingerprint": SENTENCE.fingerprint, "size": 4},
        "hidden_size": 5,
        "answers": list(LABELS),
        **changes,
    }


def tensors(**changes: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden.weight": (5, 10), "hidden.bias": (5,), "output.weight": (3, 5), "output.bias": (3,)}
    named = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**named, **{name.replace("__", "."): tensor for name, tensor in changes.items()}}


def faults(made: dict[str, Any], given: dict[str, Tensor], labels: tuple[str, ...] = LABELS) -> tuple[str, ...]:
    with pytest.raises(AdapterIncompatible) as caught:
        VqaHead.parse(made, given, labels, IMAGE, SENTENCE)
    return caught.value.faults


def test_logits_equal_the_plain_layers() -> None:
    given = tensors()
    head = VqaHead.parse(config(), given, LABELS, IMAGE, SENTENCE).to(CPU)
    plain = nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 3))
    plain.load_state_dict(dict(zip(("0.weight", "0.bias", "2.weight", "2.bias"), given.values(), strict=True)))
    image, question = torch.randn(7, 6), torch.randn(7, 4)
    assert torch.allclose(head.logits(image, question), plain(torch.cat([image, question], 1)), atol=1e-6)


def test_the_missions_shape_is_2432_to_512() -> None:
    given = {"hidden.weight": torch.zeros(512, 2432), "hidden.bias": torch.zeros(512), "output.weight": torch.zeros(3, 512)}
    towers = {"image_encoder": {"fingerprint": "a", "size": 2048}, "sentence_encoder": {"fingerprint": "b", "size": 384}}
    head = VqaHead.parse(
        config(hidden_size=512, **towers),
        {**given, "output.bias": torch.zeros(3)},
        LABELS,
        Tower((2048,), "a"),
        Tower((384,), "b"),
    ).to(CPU)
    assert head.logits(torch.zeros(1, 2048), torch.zeros(1, 384)).shape == (1, 3)


def test_a_head_reads_as_much_of_the_questions_embedding_as_it_says() -> None:
    detailed = config(sentence_encoder={"name": "ear", "fingerprint": SENTENCE.fingerprint, "size": 8})
    given = tensors(hidden__weight=torch.randn(5, 14))
    wide, narrow = (VqaHead.parse(*one, LABELS, IMAGE, SENTENCE).to(CPU) for one in ((detailed, given), (config(), tensors())))
    image, question = torch.randn(7, 6), torch.randn(7, 8)
    assert torch.equal(narrow.logits(image, question), narrow.logits(image, question[:, :4]))
    assert not torch.allclose(wide.logits(image, question), wide.logits(image, question * torch.tensor([1.0] * 4 + [0.0] * 4)))
    other = config(sentence_encoder={"name": "ear", "fingerprint": SENTENCE.fingerprint, "size": 5})
    assert faults(other, tensors()) == ("sentence_encoder.size is 5; this server's has 4 or 8",)


def test_half_precision_is_stored_and_float32_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: tensor.half() for name, tensor in prior().items()}
    stored, widened = (
        VqaHead.parse(config(), some, LABELS, IMAGE, SENTENCE)
        for some in (given, {name: tensor.float() for name, tensor in given.items()})
    )
    image, question = torch.randn(7, 6), torch.randn(7, 4)
    logits = stored.to(CPU).logits(image, question)
    assert logits.dtype == torch.float32 and torch.equal(logits, widened.to(CPU).logits(image, question))
    if product_kernel.float32_available:
        assert stored.nbytes_on(CPU) < widened.nbytes_on(CPU)
    monkeypatch.setattr(product_kernel, "float32_available", False)
    torch.testing.assert_close(stored.to(CPU).logits(image, question), logits, atol=1e-5, rtol=1e-5)
    assert stored.nbytes_on(CPU) == widened.nbytes_on(CPU) == 4 * sum(tensor.numel() for tensor in given.values())


def test_every_fault_is_listed_at_once() -> None:
    given = tensors(hidden__weight=torch.zeros(5, 9), hidden__bias=torch.zeros(5, dtype=torch.int64), extra=torch.zeros(1))
    given["output.weight"][0, 0] = float("nan")
    del given["output.bias"]
    wrong = config(task_type="SEQ_CLS", answers=["chair"], image_encoder={"name": "old", "fingerprint": "sha256:old", "size": 7})
    found = faults(wrong, given)
    expected = (
        "task_type is 'SEQ_CLS'; expected 'VQA'",
        "answers has 1 entries, but the manifest has 3 labels",
        "image_encoder.size is 7; this server's has 6",
        "image_encoder is 'old' ('sha256:old'); this server's has the fingerprint 'sha256:image'",
        "tensor 'output.bias' is missing",
        "tensor 'extra' belongs to nothing in a VQA head",
        "tensor 'hidden.weight' has the shape (5, 9); expected (5, 10)",
        "tensor 'hidden.bias' has the type int64; expected a floating point type",
        "tensor 'output.weight' has values that are not finite",
    )
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"peft_type": "LORA"}, "peft_type is 'LORA'; a VQA adapter has none (null)"),
        ({"answers": ["chair", "blue", "2"]}, "answers and the manifest's labels differ, first at 1: 'blue' and 'red'"),
        (
            {"activation": "gelu"},
            "option 'activation' is not known; a VQA adapter has answers, hidden_size, image_encoder, "
            "peft_type, sentence_encoder, task_type",
        ),
        ({"answers": "chair"}, "answers is not a list of strings"),
        ({"answers": [1, 2, 3]}, "answers is not a list of strings"),
        ({"sentence_encoder": None}, "sentence_encoder is missing; expected its name, fingerprint and size"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000; expected a whole number from 1 to 8192"),
        ({"hidden_size": "5"}, "hidden_size is '5'; expected a whole number from 1 to 8192"),
        ({"hidden_size": True}, "hidden_size is True; expected a whole number from 1 to 8192"),
    ],
)
def test_a_wrong_configuration_is_named(changes: dict[str, Any], fault: str) -> None:
    assert faults(config(**changes), tensors()) == (fault,)


def test_an_answer_count_unlike_the_labels_is_a_fault_of_shape_too() -> None:
    found = faults(config(answers=["chair", "red"]), tensors(), ("chair", "red"))
    assert found == (
        "tensor 'output.weight' has the shape (3, 5); expected (2, 5)",
        "tensor 'output.bias' has the shape (3,); expected (2,)",
    )


def test_every_unknown_tensor_is_named() -> None:
    assert faults(config(), tensors(y=torch.zeros(1), x=torch.zeros(1))) == (
        "tensor 'x' belongs to nothing in a VQA head",
        "tensor 'y' belongs to nothing in a VQA head",
    )


def test_the_tensors_are_checked_even_where_their_size_is_not_known() -> None:
    given = tensors(hidden__weight=torch.zeros(5, 9), output__bias=torch.full((3,), float("inf")))
    assert faults(config(hidden_size=0), given) == (
        "hidden_size is 0; expected a whole number from 1 to 8192",
        "tensor 'hidden.weight' has the shape (5, 9); expected (*, 10)",
        "tensor 'output.bias' has values that are not finite",
    )


def prior(**changes: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"prior.weight": (3, 6), "prior.bias": (3,), "gate.weight": (1, 4), "gate.bias": (1,)}
    return tensors() | {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | changes


def test_a_prior_from_the_image_is_added_as_much_as_the_question_says() -> None:
    given = prior()
    head, plain = (VqaHead.parse(config(), some, LABELS, IMAGE, SENTENCE) for some in (given, tensors()))
    image, question = torch.randn(7, 6), torch.randn(7, 4)
    gate = question @ given["gate.weight"].T + given["gate.bias"]
    expected = plain.to(CPU).logits(image, question) + gate * (image @ given["prior.weight"].T + given["prior.bias"])
    assert torch.allclose(head.to(CPU).logits(image, question), expected, atol=1e-5)
    assert list(head.tensors) == list(given) and list(plain.tensors) == list(tensors())


def test_half_a_prior_is_a_fault() -> None:
    given = prior(**{"prior.bias": torch.zeros(2)})
    del given["gate.bias"]
    assert faults(config(), given) == (
        "tensor 'gate.bias' is missing",
        "tensor 'prior.bias' has the shape (2,); expected (3,)",
    )
