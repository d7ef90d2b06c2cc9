"""A tiny CLIP with seeded weights, in a folder as a hub has it."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

SIDE = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_folder(folder: Path, seed: int = 0) -> Path:
    """Weights, tokenizer and preprocessing of a CLIP whose tokens are letters and whose images are 32 x 32."""
    letters = [f"{letter}{end}" for letter in string.ascii_lowercase for end in ("", "</w>")]
    vocabulary = {token: i for i, token in enumerate([*letters, START, END])}
    common = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8}
    ends = {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    config = CLIPConfig(
        text_config={**common, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 24},
        vision_config={**common, "image_size": SIDE, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], end_of_word_suffix="</w>", unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, unk_token=END)
    fast.save_pretrained(folder)
    scaling = {
        "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}, "resample": 3, "do_rescale": True,
        "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "image_processor_type": "CLIPImageProcessor",
        "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return folder
