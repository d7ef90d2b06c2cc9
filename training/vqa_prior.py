"""What an image encoder's own classifier says of a head's answers, before any question about images was seen.

The network was trained to tell ImageNet's thousand classes apart, and its last layer still can: an answer whose name means
much the same as those of some classes is the likelier the more of them are seen. Names are compared by the sentence encoder.
"""

from __future__ import annotations

import torch
from timm.data import ImageNetInfo
from torch import Tensor
from torch.nn.functional import normalize

from service.models.image_encoder import CLASSES, class_weights
from service.models.sentence_encoder import SentenceEncoder

TEMPERATURE = 0.08  # of the likeness of names: the lower, the fewer classes speak for an answer


def answer_weights(image_encoder: str, sentences: SentenceEncoder, named: Tensor) -> Tensor | None:
    """What a layer from an image's embedding to the answers begins with, (answers, image); None for encoders without classes.

    ``image_encoder`` is what :func:`service.models.image_encoder.load_image_encoder` is given, ``named`` (answers, e) the
    embeddings of the answers' names.
    """
    classes = class_weights(image_encoder)
    if classes is None:
        return None
    likeness = normalize(named, dim=1) @ _class_names(sentences).T
    return (likeness / TEMPERATURE).softmax(1) @ classes


@torch.inference_mode()
def _class_names(sentences: SentenceEncoder) -> Tensor:
    """A unit vector for each class, (classes, e): the mean over its names."""
    info = ImageNetInfo("imagenet-1k")
    names = [[name.strip() for name in info.index_to_description(place).split(",")] for place in range(CLASSES)]
    embedded = normalize(sentences.embed(sentences.tokenize([name for several in names for name in several])).cpu(), dim=1)
    means = [several.mean(0) for several in embedded.split_with_sizes([len(several) for several in names])]
    return normalize(torch.stack(means), dim=1)
