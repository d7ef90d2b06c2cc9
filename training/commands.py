"""What training adds to the command ``quickchange``: where each command is, and a line of help. Imports nothing heavy."""

from __future__ import annotations

COMMANDS = {
    "train": ("training.train_text_adapter:main", "Train a text adapter and write it as a bundle."),
    "train-vqa": ("training.train_vqa_head:main", "Train a visual question answering head and write it as a bundle."),
    "evaluate": ("training.evaluate:main", "Score any adapter, on disk or live, on labelled data."),
    "compare": ("training.compare:main", "Say whether one adapter is better than another on the same data."),
    "inspect": ("training.inspect_data:main", "Look data over before training: classes, lengths, duplicates, unusable rows."),
    "publish": ("training.publish:main", "Put a bundle into a local adapters folder, checked as the server checks it."),
}
