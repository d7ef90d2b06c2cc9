"""Training a VQA head on embeddings: features from the frozen encoders, the head, its fit, and its export."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.tasks.images import decode
from training.vqa_data import Example

MAX_PIXELS = 100_000_000
IMAGE_BATCH, TEXT_BATCH = 16, 128
EMBEDDINGS = "embeddings"
EOF = None
