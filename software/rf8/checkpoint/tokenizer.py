"""What travels with a model's tensors: its tokenizer, chat template and end tokens."""

from __future__ import annotations

import json
from typing import Any

from rf8.errors import DataError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def make_tokenizer(files: dict[str, bytes]) -> Any:
    """The `tokenizers.Tokenizer` among a model's files, or None.

    It gives what the AutoTokenizer of transformers gives when it is called with a text alone:
    truncation and padding that tokenizer.json asks for are off, and the tokens that
    tokenizer_config.json and its older companions declare are known, special ones as special.

    Raises
    ------
    DataError
        For a broken file; the message names it.
    """
    if "tokenizer.json" not in files:
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(f"tokenizer.json is broken: {error}") from error
    config = _config(files)
    if str(config.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer":
        _as_llama(tokenizer, config)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
    try:
        _declare(tokenizer, config, read_object(files, "added_tokens.json"))
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"tokenizer_config.json has tokens that are none: {error}") from error
    return tokenizer


def _as_llama(tokenizer: Any, config: dict[str, Any]) -> None:
    """The LlamaTokenizer of transformers has its own way with spaces, whatever tokenizer.json says:
    older files put one behind every special token."""
    from tokenizers import decoders, models, pre_tokenizers

    pipeline = f"{tokenizer.pre_tokenizer!r} {tokenizer.decoder!r}"
    if not isinstance(tokenizer.model, models.BPE) or "ByteLevel" in pipeline:
        return
    prefix = config.get("add_prefix_space") is not False
    scheme = "never" if not prefix else "always" if config.get("legacy") else "first"
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)


def _declare(tokenizer: Any, config: dict[str, Any], added: dict[str, Any]) -> None:
    """Add the tokens that tokenizer_config.json lists and names.

    One that is known keeps its id; what is named, for instance as the end of a text, is special.
    """
    from tokenizers import AddedToken

    def token(value: Any) -> Any:
        if isinstance(value, str):
            return AddedToken(value, special=True)
        return AddedToken(**{key: field for key, field in value.items() if key != "__type"})

    named, extra = _special(config)
    names = {str(token(value).content) for value in named}
    if "added_tokens_decoder" in config:
        listed = {int(at): token(value) for at, value in config["added_tokens_decoder"].items()}
    else:
        listed = {int(at): AddedToken(name, special=name in names) for name, at in added.items()}
        listed |= tokenizer.get_added_tokens_decoder()
    tokens = [listed[at] for at in sorted(listed)]
    for known in tokens:
        known.special = known.special or known.content in names
    contents = {known.content for known in tokens}
    contents |= {known.content for known in tokenizer.get_added_tokens_decoder().values()}
    tokens += [new for new in map(token, [*named, *extra]) if new.content not in contents]
    tokenizer.add_tokens(tokens)


def _special(config: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The special tokens of a tokenizer_config.json, as text or as an object: those with the usual
    names, and further ones."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    named = [config[key] for key in NAMED if config.get(key) is not None]
    own = [v for k, v in config.items() if k.endswith("_token") and k not in NAMED]
    own = [value for value in own if isinstance(value, str)]
    return named, [*(extra.values() if isinstance(extra, dict) else extra), *own]


def named_tokens(files: dict[str, bytes]) -> dict[str, str]:
    """Special tokens by the names that chat templates know: bos_token, eos_token, ..."""
    config = _config(files)
    found = {key: config[key] for key in NAMED if config.get(key) is not None}
    return {k: str(v["content"] if isinstance(v, dict) else v) for k, v in found.items()}


def _config(files: dict[str, bytes]) -> dict[str, Any]:
    """tokenizer_config.json; one without its list of tokens is completed by
    special_tokens_map.json, as older tools wrote it."""
    config = read_object(files, "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config = config | read_object(files, "special_tokens_map.json")
    return config


def read_object(files: dict[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in a file, empty without the file; DataError where it holds none."""
    if name not in files:
        return {}
    try:
        found = json.loads(files[name].decode())
    except ValueError as error:
        raise DataError(f"{name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{name} holds no JSON object")
    return found


def end_tokens(config: dict[str, Any], files: dict[str, bytes], vocab: int) -> tuple[int, ...]:
    """The tokens that end a text: ``eos_token_id``, which is a token, a list of them or null.

    That of generation_config.json counts where it has one, else that of the model's config.
    ``vocab``: how many tokens there are.

    Raises
    ------
    DataError
        For anything that is no token of the vocabulary; the message names file and value.
    """
    generation = read_object(files, "generation_config.json")
    if "eos_token_id" in generation:
        where, value = "generation_config.json", generation["eos_token_id"]
    else:
        where, value = "the model's config", config.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        # A bool is an int to Python, and no token.
        if type(token) is not int or not 0 <= token < vocab:
            raise DataError(
                f"{where}: eos_token_id is {value!r}, must be null or tokens of the vocabulary, "
                f"0 to {vocab - 1}: mend it there"
            )
    return tuple(dict.fromkeys(ids))
