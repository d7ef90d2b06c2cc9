"""The sentence encoder equals sentence-transformers on the same texts, whatever the folder's own modules do."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from service.errors import StartupError
from service.models.base_weights import load_base
from service.models.sentence_encoder import LibrarySentenceEncoder, PackedSentenceEncoder, SentenceEncoder, load_sentence_encoder
from service.models.sources import locate
from service.models.text_encoder import TextEncoder

CPU = torch.device("cpu")
TEXTS = ["what is on the table", "  How many\tchairs?\n", "", "long " * 400, "WHAT colour is it", "🙂 [SEP] é"]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return load_sentence_encoder("minilm", CPU)


def reference(source: str) -> torch.Tensor:
    model = SentenceTransformer(source, device="cpu")
    return torch.from_numpy(model.encode(TEXTS, normalize_embeddings=False))


def test_embeddings_equal_the_librarys(minilm: SentenceEncoder) -> None:
    embeddings = minilm.embed(minilm.tokenize(TEXTS))
    assert embeddings.shape == (len(TEXTS), 384) and embeddings.dtype == torch.float32
    assert torch.allclose(embeddings, reference(locate("minilm", "TEST")), atol=1e-5)


@pytest.mark.parametrize(("mode", "kind"), [("cls_token", PackedSentenceEncoder), ("max_tokens", LibrarySentenceEncoder)])
def test_pooling_and_normalising_are_the_folders_own(tmp_path: Path, mode: str, kind: type) -> None:
    folder = tmp_path / "model"
    shutil.copytree(locate("minilm", "TEST"), folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    pooling |= {"pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    encoder = load_sentence_encoder(str(folder), CPU)
    assert isinstance(encoder, kind)
    embeddings = encoder.embed(encoder.tokenize(TEXTS))
    assert not torch.allclose(embeddings.norm(dim=1), torch.ones(len(TEXTS)), atol=0.01)
    assert torch.allclose(embeddings, reference(str(folder)), atol=1e-5)


def test_an_encoder_of_the_same_folder_is_shared(minilm: SentenceEncoder) -> None:
    source = locate("minilm", "TEST")
    encoder = TextEncoder(load_base("minilm"), CPU)
    sharing = load_sentence_encoder("minilm", CPU, {source: encoder})
    assert torch.equal(sharing.embed([[101, 2054, 102]]), minilm.embed([[101, 2054, 102]]))
    assert sharing.fingerprint == encoder.fingerprint


def test_the_names_of_the_packaged_model_mean_the_same(minilm: SentenceEncoder) -> None:
    other = load_sentence_encoder("all-MiniLM-L6-v2", CPU)
    assert (minilm.name, minilm.size, minilm.fingerprint) == (other.name, other.size, other.fingerprint)
    assert (minilm.name, minilm.size) == ("all-MiniLM-L6-v2", 384)


def test_in_detail_there_is_the_mean_of_the_states_halfway_behind_the_embedding(minilm: SentenceEncoder) -> None:
    source = locate("minilm", "TEST")
    model, tokenizer = AutoModel.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    rows = minilm.tokenize(TEXTS)
    found = minilm.embed_in_detail(rows)
    assert found.shape == (len(TEXTS), minilm.detail) == (len(TEXTS), 2 * minilm.size)
    assert torch.equal(found[:, : minilm.size], minilm.embed(rows))
    with torch.inference_mode():
        for row, text in zip(found, TEXTS, strict=True):
            given = tokenizer(text, truncation=True, max_length=minilm.max_length, return_tensors="pt")
            halfway = model(**given, output_hidden_states=True).hidden_states[3]  # of six layers
            torch.testing.assert_close(row[minilm.size :], halfway[0].mean(0), atol=1e-5, rtol=0)


def test_a_row_does_not_depend_on_its_batch(minilm: SentenceEncoder) -> None:
    rows = minilm.tokenize(TEXTS)
    alone = torch.cat([minilm.embed([row]) for row in rows])
    assert torch.allclose(alone, minilm.embed(rows), atol=1e-5)


def test_long_texts_are_cut_to_the_models_length(minilm: SentenceEncoder) -> None:
    assert len(minilm.tokenize(["word " * 1000])[0]) == minilm.max_length == 256


def test_many_threads_may_tokenise_at_once(minilm: SentenceEncoder) -> None:
    expected = minilm.tokenize(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        assert all(rows == expected for rows in pool.map(lambda _: minilm.tokenize(TEXTS), range(64)))


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"QUICKCHANGE_SENTENCE_ENCODER=.*: no model there") as caught:
        load_sentence_encoder(str(tmp_path), CPU)
    assert "\n" not in str(caught.value)


def test_a_hub_model_that_is_nowhere_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StartupError, match="QUICKCHANGE_SENTENCE_ENCODER=nobody/nothing: not a local folder") as caught:
        load_sentence_encoder("nobody/nothing", CPU)
    assert "\n" not in str(caught.value)
