"""The form of an uploaded adapter version: its parts, and how the API's page describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from litestar import Request
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from service.errors import BadRequest
from service.routes.asgi import header
from service.routes.form import File, read_form_from
from service.store.bundle import Bundle
from service.store.layout import IMAGES as IMAGE_FILES
from service.wording import shown

FILES = {
    "adapter_config": "adapter_config.json, as PEFT writes it",
    "adapter_model": "adapter_model.safetensors, as PEFT writes it",
    "manifest": "manifest.json: labels, base model, metrics",
    "card": "README.md",
}
REQUIRED = ("adapter_config", "adapter_model")
IMAGES = "images"
ALIAS = "alias"
MOST = 10  # faults listed


@dataclass
class UploadOperation(Operation):
    """The handler reads its form itself, which the framework cannot tell from its signature."""

    def __post_init__(self) -> None:
        text = OpenAPIType.STRING
        parts = {name: Schema(type=text, format=OpenAPIFormat.BINARY, description=what) for name, what in FILES.items()}
        image = Schema(type=text, format=OpenAPIFormat.BINARY)
        described = f"PNG files that the card shows: {', '.join(IMAGE_FILES)}"
        images = Schema(type=OpenAPIType.ARRAY, items=image, description=described)
        alias = Schema(type=text, description="an alias to point at the version", examples=["live"])
        form = Schema(type=OpenAPIType.OBJECT, required=[*REQUIRED], properties={**parts, IMAGES: images, ALIAS: alias})
        self.request_body = RequestBody(content={"multipart/form-data": OpenAPIMediaType(schema=form)}, required=True)


@dataclass(frozen=True, slots=True)
class Upload:
    """The files of an adapter version as they came, its images by name, and the alias that is to point at it."""

    files: Mapping[str, bytes]
    images: Mapping[str, bytes]
    alias: str | None

    @classmethod
    async def read(cls, request: Request[Any, Any, Any]) -> Upload:
        """The parts of the request's form.

        Raises :class:`BadRequest`, naming the part, when one is missing, unknown, there twice or of the wrong kind.
        """
        parts = await read_form_from(header(request.scope, b"content-type"), request.stream())
        missing = [name for name in REQUIRED if name not in parts]
        faults = [f"{name} is required, as a file of the form" for name in missing]
        faults += [fault for name, values in parts.items() if (fault := _fault(name, values))]
        if faults:
            raise BadRequest("; ".join(faults[:MOST]))
        files = {name: cast("File", parts[name][0]) for name in FILES if name in parts}
        images = {image.filename: image for image in cast("Sequence[File]", parts.get(IMAGES, ()))}
        return cls(files, images, cast("str", parts[ALIAS][0]) or None if ALIAS in parts else None)

    def bundle(self) -> Bundle:
        """The bundle in the files; raises :class:`AdapterIncompatible` when they cannot be read."""
        card = self.files.get("card", b"").decode("utf-8", "replace")
        manifest = self.files.get("manifest")
        return Bundle.parse(self.files["adapter_config"], self.files["adapter_model"], manifest, card, self.images)


def _fault(name: str, values: Sequence[str | File]) -> str:
    shown_name = shown(name)[1:-1]
    if name not in (*FILES, IMAGES, ALIAS):
        return f"{shown_name} is not a known field"
    if len(values) > 1 and name != IMAGES:
        return f"{shown_name} is given more than once"
    if any(isinstance(value, str) != (name == ALIAS) for value in values):
        return f"{shown_name} must be a {'string, not a file' if name == ALIAS else 'file'}"
    return _image_fault([value.filename for value in values if isinstance(value, File)]) if name == IMAGES else ""


def _image_fault(filenames: Sequence[str]) -> str:
    for filename in filenames:
        if filename not in IMAGE_FILES:
            return f"{IMAGES} has a file named {shown(filename)}; accepted: {', '.join(IMAGE_FILES)}"
        if filenames.count(filename) > 1:
            return f"{IMAGES} has {filename} more than once"
    return ""
