"""New versions of an adapter, made from a bundle by changing its head, and the removal of all that was uploaded.

Nothing here imports torch, since locust's process shares the processor with the server that it measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from service.store.layout import CONFIG, MANIFEST, WEIGHTS

NAME = "loadtest-swap"
CERTAIN = 100.0  # a bias that outweighs whatever the head makes of a text
BIASES = ("classifier.bias", "classifier.out_proj.bias")
KEPT = ("format_version", "task", "labels", "problem_type", "base", "max_length")


class UnusableBundle(Exception):
    """The folder holds no text adapter whose head can be changed; the text says why."""


@dataclass(frozen=True, slots=True)
class Version:
    """The files to upload, and the label with which this version answers every text."""

    files: Mapping[str, bytes]
    label: str


@dataclass(frozen=True, slots=True)
class SwapBundle:
    """A text adapter's bundle as a template for any number of versions that can be told apart by their answers."""

    config: bytes
    tensors: Mapping[str, NDArray[np.generic]]
    manifest: Mapping[str, object]
    labels: tuple[str, ...]
    bias: str

    @classmethod
    def read(cls, folder: Path) -> SwapBundle:
        """Read a bundle; raises :class:`UnusableBundle`."""
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            config = (folder / CONFIG).read_bytes()
            tensors = load((folder / WEIGHTS).read_bytes())
        except OSError:
            raise UnusableBundle(f"{folder}: no bundle there; name a text adapter's folder by --swap-bundle") from None
        biases = [name for name in tensors if name.endswith(BIASES)]
        if len(biases) != 1:
            raise UnusableBundle(f"{folder}: no text adapter with one head; name another folder by --swap-bundle")
        kept = {key: manifest[key] for key in KEPT if key in manifest}
        return cls(config, tensors, kept, tuple(manifest["labels"]), biases[0])

    def version(self, serial: int) -> Version:
        """The version that answers with label number ``serial``, counted round; two serials give two digests."""
        winner = serial % len(self.labels)
        old = self.tensors[self.bias]
        bias = np.full(old.shape, -serial / 100)
        bias[winner] = CERTAIN
        weights = save({**self.tensors, self.bias: bias.astype(old.dtype)}, {"format": "pt"})
        files = {
            "adapter_config": self.config,
            "adapter_model": weights,
            "manifest": json.dumps(self.manifest).encode(),
        }
        return Version(files, self.labels[winner])


def clean(http: httpx.Client, name: str = NAME) -> None:
    """Remove the adapter ``name`` from the server: its aliases, then its versions. Without it, nothing is done."""
    answer = http.get(f"/v1/adapters/{name}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return
    adapter = answer.raise_for_status().json()
    for alias in adapter["aliases"]:
        http.delete(f"/v1/adapters/{name}/aliases/{alias}").raise_for_status()
    for version in adapter["versions"]:
        http.delete(f"/v1/adapters/{name}/versions/{version['version']}").raise_for_status()
