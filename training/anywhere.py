"""An adapter wherever it is: a bundle in a folder, a version in a local folder of adapters, or one on a running server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer

from service.client import Client, ServerError, calls, flows
from service.client.call import Call
from service.errors import InvalidInput, QuickchangeError
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest, parse_manifest, read_bundle
from service.store.layout import CONFIG, MANIFEST
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.standalone import text_task, vqa_task
from service.tasks.text_classification import Classification, TextClassification, TextRequest
from service.tasks.vqa import VisualQuestionAnswering, VqaAnswer, VqaRequest
from training.data import DataError

T = TypeVar("T")
Scores = Mapping[str, float]
TOO_LARGE = 413
NAME = "scored"  # of a bundle's folder in a store of its own

AdaptersDir = Annotated[Path, typer.Option(help="local folder of adapter versions, for NAME, NAME:VERSION and NAME@ALIAS")]
ServerUrl = Annotated[str | None, typer.Option("--server", help="address of a running server: what is no folder is asked there")]
ApiKey = Annotated[str | None, typer.Option("--key", envvar="QUICKCHANGE_API_KEY", help="API key, where the server wants one")]
BaseModel = Annotated[str, typer.Option(help="base model to score text adapters on")]
ImageEncoderName = Annotated[str, typer.Option(help="image encoder to score VQA adapters on")]
SentenceEncoderName = Annotated[str, typer.Option(help="sentence encoder to score VQA adapters on")]


@dataclass(frozen=True, slots=True)
class Places:
    """Where adapters are looked for, and the frozen models for those that are not on a server."""

    adapters_dir: Path = Path("adapters")
    server: str | None = None
    key: str | None = None
    base_model: str = "minilm"
    image_encoder: str = "tf_efficientnet_lite0"
    sentence_encoder: str = "all-MiniLM-L6-v2"


class Adapter(Protocol):
    """One version of an adapter that can be asked; scores are by label, as the server gives them."""

    @property
    def name(self) -> str: ...

    @property
    def manifest(self) -> Manifest: ...

    def classify(self, texts: Sequence[str]) -> list[Scores]: ...

    def answer(self, images: Sequence[tuple[bytes, Sequence[str]]]) -> list[Scores]: ...


@dataclass(frozen=True)
class LocalAdapter:
    """A version in a registry, asked as the server asks it, on this thread."""

    name: str
    manifest: Manifest
    selector: str
    task: TextClassification | VisualQuestionAnswering

    def classify(self, texts: Sequence[str]) -> list[Scores]:
        """The scores of each text."""
        if not isinstance(self.task, TextClassification):
            raise self._refusal("texts")
        return [answer.scores for answer in classify(self.task, self.selector, texts)]

    def answer(self, images: Sequence[tuple[bytes, Sequence[str]]]) -> list[Scores]:
        """The scores of each question about each image, in order."""
        task, most = self.task, len(self.manifest.labels)
        if not isinstance(task, VisualQuestionAnswering):
            raise self._refusal("questions about images")
        items = [item for image, asked in images for item in task.prepare(VqaRequest(image, asked, self.selector, most))]
        return [dict(_checked(output, VqaAnswer).answers) for output in task.forward(task.collate(items))]

    def _refusal(self, asked: str) -> InvalidInput:
        return InvalidInput(f"{self.name} answers {self.manifest.task}; these are {asked}")


@dataclass(frozen=True)
class LiveAdapter:
    """A version on a running server, asked over HTTP."""

    name: str
    manifest: Manifest
    client: Client

    def classify(self, texts: Sequence[str]) -> list[Scores]:
        """The scores of each text; what is too much for one request is asked in halves."""
        try:
            return [result.scores for result in self.client.classify_many(texts, [self.name])]
        except ServerError as error:
            if error.status != TOO_LARGE or len(texts) == 1:
                raise
            half = len(texts) // 2
            return self.classify(texts[:half]) + self.classify(texts[half:])

    def answer(self, images: Sequence[tuple[bytes, Sequence[str]]]) -> list[Scores]:
        """The scores of each question about each image, in order."""
        return [scores for image, asked in images for scores in self._about(image, asked)]

    def _about(self, image: bytes, asked: Sequence[str]) -> list[Scores]:
        try:
            results = self.client.vqa_many(image, asked, self.name, top_k=len(self.manifest.labels))
        except ServerError as error:
            if error.status != TOO_LARGE or len(asked) == 1:
                raise
            half = len(asked) // 2
            return self._about(image, asked[:half]) + self._about(image, asked[half:])
        return [{answer.answer: answer.score for answer in result.answers} for result in results]


def classify(task: TextClassification, selector: str, texts: Sequence[str]) -> list[Classification]:
    """How an adapter classifies each text, computed as the server computes; raises what a row has failed with."""
    outputs = task.forward(task.collate(task.prepare(TextRequest(texts, [selector]))))
    return [_checked(output, Classification) for output in outputs]


@contextmanager
def opened(given: str, places: Places) -> Iterator[Adapter]:
    """The adapter that ``given`` names: a bundle's folder, else a selector on the server or in the local folder.

    An alias is resolved once, so that one version answers everything. Raises :class:`DataError` for what is neither, and
    :class:`QuickchangeError` as the store, the tasks and the client do.
    """
    folder = Path(given)
    if (folder / CONFIG).is_file():
        with published(read_bundle(folder), "/".join(folder.resolve().parts[-2:]), places) as adapter:
            yield adapter
    elif folder.is_dir():
        raise DataError(f"{given}: no {CONFIG} in the bundle; accepted: a bundle's folder, NAME, NAME:VERSION or NAME@ALIAS")
    elif places.server is not None:
        with Client(places.server, places.key) as client:
            yield _live(given, client)
    elif not places.adapters_dir.is_dir():
        raise DataError(f"{given}: no such folder, and no folder {places.adapters_dir} of adapters either")
    else:
        with closing(Registry.open(places.adapters_dir)) as registry:
            ref = registry.resolve(given)
            yield _local(str(ref), registry.read(ref).manifest, str(ref), registry, places)


@contextmanager
def published(bundle: Bundle, name: str, places: Places) -> Iterator[LocalAdapter]:
    """A bundle in a store of its own, which goes with the context."""
    with tempfile.TemporaryDirectory() as store, closing(Registry.open(Path(store))) as registry:
        ref, _ = registry.publish(NAME, bundle)
        yield _local(name, bundle.manifest, str(ref), registry, places)


def _local(name: str, manifest: Manifest, selector: str, registry: Registry, places: Places) -> LocalAdapter:
    if manifest.task == TEXT_CLASSIFICATION:
        return LocalAdapter(name, manifest, selector, text_task(places.base_model, registry))
    return LocalAdapter(name, manifest, selector, vqa_task(places.image_encoder, places.sentence_encoder, registry))


def _live(selector: str, client: Client) -> LiveAdapter:
    flow = flows.resolve(selector)
    step = flows.advance(flow)
    while isinstance(step, Call):
        step = flows.advance(flow, client.send(step))
    ref: Ref = step.result
    return LiveAdapter(str(ref), parse_manifest(client.send(calls.file(ref.name, ref.version, MANIFEST))), client)


def _checked(output: object, kind: type[T]) -> T:
    if not isinstance(output, kind):
        raise output if isinstance(output, QuickchangeError) else TypeError(output)
    return output
