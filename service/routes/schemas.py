"""The bodies of the HTTP contract, version 1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from service.errors import BadRequest
from service.wording import WORDED, describe

Selector = Annotated[
    str,
    Field(
        description="`name` (its `live` alias), `name@alias` or `name:version`",
        examples=["sentiment", "sentiment@live", "sentiment:1"],
    ),
]
TopK = Annotated[
    int | None, Field(ge=1, description="how many to return, from the best down, or from the first value", examples=[3])
]
VersionKey = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
Truncate = Annotated[bool, Field(description="cut texts that are longer than the adapter reads; false refuses them with 422")]


class Body(BaseModel):
    """A request's body: unknown fields are refused, so that a misspelt option is not silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """The body in these bytes of JSON; raises :class:`BadRequest`, naming each fault."""
        try:
            return cls.model_validate_json(data, strict=True)  # "1" is no number in JSON
        except ValidationError as error:
            raise BadRequest(faults_of(error)) from None


def faults_of(error: ValidationError) -> str:
    """What is wrong with a body, in one line."""
    found = error.errors(include_url=False)
    return "the body is not JSON" if found[0]["type"] == "json_invalid" else "; ".join(describe(found))


class _Texts(Body):
    text: Annotated[str | None, Field(description="one text", examples=["I love how quickly this works"])] = None
    texts: Annotated[list[str] | None, Field(min_length=1, description="or several", examples=[None])] = None
    top_k: TopK = None
    truncate: Truncate = True

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise PydanticCustomError(WORDED, "give either text or texts")
        return self

    def all_texts(self) -> list[str]:
        """The texts, be it one or several."""
        return self.texts if self.texts is not None else [self.text or ""]


class SentimentBody(_Texts):
    """Texts to classify by the sentiment adapter, or by another."""

    adapter: Selector = "sentiment"


class ClassifyBody(_Texts):
    """Texts to classify by one adapter, or by several at once."""

    adapter: Annotated[Selector | None, Field(examples=["irony"])] = None
    adapters: Annotated[list[Selector] | None, Field(min_length=1, examples=[None])] = None

    @model_validator(mode="after")
    def _one_adapter(self) -> Self:
        if (self.adapter is None) == (self.adapters is None):
            raise PydanticCustomError(WORDED, "give either adapter or adapters")
        return self

    def all_adapters(self) -> list[str]:
        """The selectors, be it one or several."""
        return self.adapters if self.adapters is not None else [self.adapter or ""]


class TextResult(BaseModel):
    """How one text was classified by one adapter, or the values that it gave the text, in the order of their names."""

    label: Annotated[str, Field(description="the most likely label, or the name of the first value", examples=["positive"])]
    score: Annotated[float, Field(description="its probability, or the value", examples=[0.97])]
    scores: Annotated[dict[str, float], Field(description="probability of each label, the best first; or each value")]
    adapter: Annotated[str, Field(examples=["sentiment"])]
    version: Annotated[int, Field(examples=[1])]
    truncated: Annotated[bool, Field(description="whether the end of the text was cut off")]
    labels: Annotated[
        list[str] | None,
        Field(
            exclude_if=lambda labels: labels is None,
            description="the labels that reach their threshold, the best first; only of adapters that decide each for itself",
            examples=[["joy", "optimism"]],
        ),
    ] = None


class TextResults(BaseModel):
    """One result per text and adapter: all adapters of the first text, then of the second."""

    results: list[TextResult]


class VqaBody(Body):
    """A base64 image and one question about it, or several."""

    image: Annotated[str, Field(description="a JPEG, PNG or WebP file in base64")]
    question: Annotated[str | None, Field(examples=["what is on the table"])] = None
    questions: Annotated[list[str] | None, Field(min_length=1, examples=[None])] = None
    adapter: Annotated[Selector, Field(examples=["vqa"])] = "vqa"
    top_k: TopK = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.question is None) == (self.questions is None):
            raise PydanticCustomError(WORDED, "give either question or questions")
        return self

    def all_questions(self) -> list[str]:
        """The questions, be it one or several."""
        return self.questions if self.questions is not None else [self.question or ""]


class ScoredAnswer(BaseModel):
    """A possible answer and its probability."""

    answer: str
    score: float


class VqaResult(BaseModel):
    """The answer to one question."""

    answer: Annotated[str, Field(examples=["lamp"])]
    score: float
    answers: list[ScoredAnswer]
    adapter: Annotated[str, Field(examples=["vqa"])]
    version: Annotated[int, Field(examples=[1])]


class VqaResults(BaseModel):
    """One result per question, in order."""

    results: list[VqaResult]


class AliasBody(Body):
    """Where an alias is to point: at one version, or at several by their shares."""

    version: Annotated[int | None, Field(ge=1, examples=[1])] = None
    split: Annotated[
        dict[VersionKey, int] | None,
        Field(min_length=1, description="share of the requests by version, for a canary", examples=[None]),
    ] = None
    shadow: Annotated[
        int | None,
        Field(ge=1, description="a version that answers the same rows, to be compared and never returned", examples=[None]),
    ] = None
    require: Annotated[
        dict[str, str] | None,
        Field(description="rules for the metrics of whatever it points at: `>= ALIAS` or `>= NUMBER`", examples=[None]),
    ] = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.version is None) == (self.split is None):
            raise PydanticCustomError(WORDED, "give either version or split")
        return self

    def shares(self) -> dict[int, int]:
        """The split, be it of one version or of several."""
        return {self.version: 100} if self.version is not None else {int(key): share for key, share in (self.split or {}).items()}


class VersionView(BaseModel):
    """One immutable version of an adapter."""

    version: int
    digest: str
    created: datetime
    base: dict[str, str]
    metrics: dict[str, dict[str, float]]
    state: Annotated[str, Field(description="`loaded`; `stored` until a request asks for it; or `quarantined`")]
    thresholds: Annotated[
        dict[str, float] | None, Field(description="the probability from which each label applies, where that is not 0.5")
    ] = None


class AdapterView(BaseModel):
    """One adapter, its versions and where its aliases point."""

    name: str
    task: str | None
    labels: list[str]
    versions: list[VersionView]
    aliases: dict[str, int]
    problem_type: Annotated[
        str | None, Field(description="`single_label_classification`, `multi_label_classification` or `regression`")
    ] = None


class AdapterList(BaseModel):
    """Adapters by name; ``next`` is what to ask for as ``after`` where there are more."""

    adapters: list[AdapterView]
    next: str | None = None


class Published(BaseModel):
    """The version that an upload became, or already was; after a dry run it has none unless it already was one."""

    name: str
    version: Annotated[int | None, Field(description="null for a dry run of files that are no version yet")]
    digest: str
    task: str
    labels: list[str]
    aliases: dict[str, int]
    dry_run: bool = False


class Health(BaseModel):
    """Whether the process is alive."""

    status: str


class Problem(BaseModel):
    """An error (RFC 9457); ``code`` is stable, ``detail`` is one line for a person."""

    type: str = "about:blank"
    title: str
    status: int
    code: Annotated[str, Field(examples=["adapter_not_found"])]
    detail: str
    faults: Annotated[list[str] | None, Field(description="every fault of a refused adapter")] = None
