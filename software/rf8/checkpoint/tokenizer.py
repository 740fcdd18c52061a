"""Tokenizer files that travel with a model."""

from __future__ import annotations

from typing import Any

from rf8.errors import DataError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def make_tokenizer(files: dict[str, bytes]) -> Any:
    """The `tokenizers.Tokenizer` among a model's files, or None."""
    if "tokenizer.json" not in files:
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(files["tokenizer.json"].decode())
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(f"tokenizer.json is broken: {error}") from error
