"""What training adds to the command ``quickchange``: where each command is, and a line of help. Imports nothing heavy."""

from __future__ import annotations

COMMANDS = {
    "train": ("training.train_text_adapter:main", "Train a text adapter and write it as a bundle."),
    "train-vqa": ("training.train_vqa_head:main", "Train a visual question answering head and write it as a bundle."),
    "evaluate": ("training.evaluate:main", "Score any adapter, on disk or live, on labelled data."),
    "compare": ("training.compare:main", "Say whether one adapter is better than another on the same data."),
    "study": ("training.study:main", "Train full fine-tuning and LoRA on the same data, and report what each gives and costs."),
    "study-vqa": ("training.study_vqa:main", "Train the same VQA head on several pairs of frozen towers, and compare them."),
    "tune": ("training.tune:main", "Search for the recipe of the best adapter, and write its bundle."),
    "extract": ("training.extract:main", "Turn a fully fine-tuned checkpoint into a LoRA adapter with its head."),
    "merge": ("training.merge:main", "Make a new adapter of several: weighted, TIES or DARE."),
    "inspect": ("training.inspect_data:main", "Look data over before training: classes, lengths, duplicates, unusable rows."),
    "publish": ("training.publish:main", "Put a bundle into a local adapters folder, checked as the server checks it."),
}
