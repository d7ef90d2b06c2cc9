"""The files of a bundle's folder."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"
CARD = "README.md"
IMAGES = ("confusion.png", "curves.png", "reliability.png")  # that the card shows
