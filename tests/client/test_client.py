"""The clients against the real server: predictions, uploads, downloads, and what their one error says."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.client import AsyncClient, Client, ServerError
from service.errors import AdapterNotFound, InvalidInput
from service.store.bundle import Bundle, read_bundle
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from service.store.problem_types import MULTI_LABEL, REGRESSION
from tests.client.conftest import Ask
from tests.support.bundles import text_bundle
from tests.support.contract import ContractServer, Reply
from tests.support.images import image_file
from tests.support.server import Server
from training.bundles import write_bundle

if TYPE_CHECKING:
    from tests.conftest import Start


def test_texts_are_classified(server: Server, ask: Ask) -> None:
    one = ask(server.url, "sentiment", "I love it", top_k=1)
    assert (one.adapter, one.version, list(one.scores)) == ("sentiment", 1, [one.label])
    many = ask(server.url, "sentiment_many", ["I love it", "I do not"])
    assert [many[0].label, many[0].score] == [one.label, pytest.approx(one.score, abs=1e-5)] and len(many) == 2
    canary = ask(server.url, "classify", "well done", "irony@canary", routing_key="ann")
    assert (canary.adapter, canary.version) == ("irony", 1)
    mixed = ask(server.url, "classify_many", ["a", "b"], ["irony", "emotion"])
    assert [result.adapter for result in mixed] == ["irony", "emotion", "irony", "emotion"]
    with pytest.raises(ServerError) as caught:
        ask(server.url, "classify", "word " * 100, "short", truncate=False)
    assert (caught.value.status, caught.value.code) == (422, "invalid_input")


def test_several_labels_and_values_are_told(start: Start, ask: Ask, tiny_base: Path) -> None:
    live = start()
    live.publish("topics", text_bundle(tiny_base, ["art", "law"], problem_type=MULTI_LABEL, thresholds=(0.0001, 0.0001)))
    live.publish("stars", text_bundle(tiny_base, ["stars"], problem_type=REGRESSION))
    topics, stars = ask(live.url, "classify_many", ["I love it"], ["topics", "stars"])
    assert topics.labels == list(topics.scores) and set(topics.labels) == {"art", "law"}
    assert stars.labels is None and stars.scores == {"stars": stars.score}
    shown = ask(live.url, "adapter", "topics")
    assert (shown.problem_type, shown.versions[0].thresholds) == (MULTI_LABEL, {"art": 0.0001, "law": 0.0001})


def test_questions_are_answered(server: Server, ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "room.png"
    file.write_bytes(image_file())
    one = ask(server.url, "vqa", file, "what is it", top_k=2)
    assert one.adapter == "vqa" and len(one.answers) == 2
    many = ask(server.url, "vqa_many", image_file(), ["what is it", "how many"])
    assert many[0].answer == one.answer and len(many) == 2
    with pytest.raises(InvalidInput, match="no-such-file: no readable file there"):
        ask(server.url, "vqa", Path("no-such-file"), "what is it")


def test_adapters_are_listed_and_shown(server: Server, ask: Ask) -> None:
    assert [adapter.name for adapter in ask(server.url, "adapters")] == ["emotion", "irony", "sentiment", "short", "vqa"]
    irony = ask(server.url, "adapter", "irony")
    assert [version.version for version in irony.versions] == [1, 2] and irony.aliases == {"canary": 1, "live": 2}
    assert ask(server.url, "ready").status == "ready"


def test_a_version_goes_up_and_away(start: Start, ask: Ask, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    live = start()
    write_bundle(bundles["irony-2"], tmp_path / "sarcasm")
    pushed = ask(live.url, "push", tmp_path / "sarcasm", alias="live")
    assert (pushed.name, pushed.version, pushed.aliases) == ("sarcasm", 1, {"live": 1})
    stored = {file.name: file.read_bytes() for file in (live.adapters / "sarcasm" / "1").iterdir()}
    assert stored == {file.name: file.read_bytes() for file in (tmp_path / "sarcasm").iterdir()} and set(IMAGES) < set(stored)
    assert ask(live.url, "push", tmp_path / "sarcasm", "other").version == 1
    with pytest.raises(ServerError) as caught:
        ask(live.url, "delete", "sarcasm", 1)
    assert (caught.value.status, caught.value.code) == (409, "version_conflict")
    ask(live.url, "remove_alias", "sarcasm", "live")
    ask(live.url, "delete", "sarcasm", 1)
    with pytest.raises(ServerError, match=r"^410 adapter_deleted: "):
        ask(live.url, "classify", "a", "sarcasm:1")
    config = json.loads((tmp_path / "sarcasm" / CONFIG).read_text())
    (tmp_path / "sarcasm" / CONFIG).write_text(json.dumps({**config, "peft_type": "IA3", "use_dora": True}))
    (tmp_path / "sarcasm" / MANIFEST).unlink()
    with pytest.raises(ServerError) as caught:
        ask(live.url, "push", tmp_path / "sarcasm")
    assert caught.value.code == "adapter_incompatible" and any("IA3" in fault for fault in caught.value.faults)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.faults, copied.status) == (str(caught.value), caught.value.faults, 422)


def test_what_is_pulled_is_what_was_pushed(
    server: Server, ask: Ask, bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for selector, bundle, folder in (
        ("irony", "irony-2", "irony-2"),
        ("irony@canary", "irony", "irony-1"),
        ("vqa:1", "vqa", "vqa-1"),
    ):
        assert ask(server.url, "pull", selector) == Path(folder)
        assert read_bundle(Path(folder)).manifest.digest == bundles[bundle].manifest.digest
        contents = {name: bytes(data) for name, data in bundles[bundle].contents.items()}
        assert {file.name: file.read_bytes() for file in Path(folder).iterdir()} == contents
    assert ask(server.url, "pull", "emotion", tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "irony-1", "irony-2", "vqa-1"]


def test_nothing_is_pulled_over_what_is_there(server: Server, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    for there in (tmp_path, tmp_path / "dangling", tmp_path / "file"):
        with pytest.raises(InvalidInput, match="is there already"):
            ask(server.url, "pull", "irony", there)
    with pytest.raises(InvalidInput, match="cannot be written"):
        ask(server.url, "pull", "irony", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("irony@nope", "has no alias 'nope'; it has canary, live"),
        ("irony:x", "has no version 'x'"),
        ("irony:9", "404 adapter_not_found"),
        ("irony:3", "410 adapter_deleted"),
        ("nope", "404 adapter_not_found"),
        ("../x", "is not valid"),
    ],
)
def test_what_cannot_be_pulled_leaves_nothing(server: Server, ask: Ask, tmp_path: Path, selector: str, said: str) -> None:
    with pytest.raises((ServerError, AdapterNotFound, InvalidInput), match=said):
        ask(server.url, "pull", selector, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def files(sums: object, **contents: bytes) -> list[Reply]:
    """Answers to the requests for a manifest with these ``sums``, and then for its files in turn."""
    described = json.dumps({"files": sums}).encode()
    return [Reply(200, data, {"repr-digest": f"sha-256=:{_base64(data)}:"}) for data in (described, *contents.values())]


def _base64(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def test_a_file_that_is_not_the_manifests_is_refused(contract: ContractServer, ask: Ask, tmp_path: Path) -> None:
    right = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    contract.first = files({CONFIG: right, WEIGHTS: right}, config=b"{}", weights=b"other")
    with pytest.raises(ServerError, match=f"{WEIGHTS} of irony:1 is not the file that its {MANIFEST} describes"):
        ask(contract.url, "pull", "irony:1", tmp_path / "new")
    cut = files({CONFIG: right, WEIGHTS: right, CARD: right, **dict.fromkeys(IMAGES, right)})[0]
    contract.first = [Reply(200, cut.body[:-1], cut.headers)]
    with pytest.raises(ServerError, match="did not arrive whole"):
        ask(contract.url, "pull", "irony:1", tmp_path / "new")
    wrong: list[object] = [
        {"../evil": right, CONFIG: right, WEIGHTS: right},
        {"other.png": right, CONFIG: right, WEIGHTS: right},
        {CONFIG: right},
        [],
        None,
        3,
    ]
    for sums in wrong:
        contract.first = files(sums)
        with pytest.raises(ServerError, match="does not describe a version's files"):
            ask(contract.url, "pull", "irony:1", tmp_path / "new")
    assert not list(tmp_path.iterdir()) and not contract.first


def test_what_is_no_quickchange_server_is_named(contract: ContractServer, ask: Ask) -> None:
    for reply in (Reply(200, b"<html>"), Reply(200, {"name": 3}), Reply(500, b"oops"), Reply(302, b"", {"location": "/"})):
        contract.first = [reply]
        with pytest.raises(
            ServerError, match=f"^{contract.url} answered {reply.status}, but is no Quickchange server$"
        ) as caught:
            ask(contract.url, "adapter", "irony")
        assert (caught.value.code, caught.value.status) == ("bad_answer", reply.status)


def test_an_address_where_nobody_listens_is_named(ask: Ask) -> None:
    with pytest.raises(ServerError, match=r"^no server answers at http://127.0.0.1:9; ") as caught:
        ask("http://127.0.0.1:9", "adapter", "irony")
    assert (caught.value.code, caught.value.status) == ("unreachable", None)


def test_what_cannot_be_sent_is_refused_here(ask: Ask, tmp_path: Path) -> None:
    for url in ("not an address", "http://a:b", "ftp://a", "http://", ""):
        with pytest.raises(InvalidInput, match="is not the address of a server"):
            ask(url, "ready")
    for key in ("schlüssel", "two\nlines"):
        with pytest.raises(InvalidInput, match="API key"):
            ask("http://127.0.0.1:9", "ready", key=key)
    for name in ("../x", "Upper", "", "a/b", "a?b"):
        with pytest.raises(InvalidInput, match="is not valid"):
            ask("http://127.0.0.1:9", "adapter", name)
    for routing_key in ("ä", "a\nb", " a"):
        with pytest.raises(InvalidInput, match="routing key"):
            ask("http://127.0.0.1:9", "sentiment", "a", routing_key=routing_key)
    with pytest.raises(InvalidInput, match=f"no {CONFIG} in that folder"):
        ask("http://127.0.0.1:9", "push", tmp_path)


def test_both_clients_offer_the_same_and_say_how_it_is_called() -> None:
    offered = [{name for name in vars(client) if not name.startswith("_")} for client in (Client, AsyncClient)]
    assert offered[0] == offered[1] >= {"sentiment", "classify", "vqa", "adapters", "push", "pull", "rollback", "audit"}
    for client in (Client, AsyncClient):
        assert list(signature(client.push).parameters) == ["self", "folder", "name", "alias", "dry_run"]
        assert client.push.__name__ == "push" and str(client.push.__doc__).startswith("Upload the bundle")
