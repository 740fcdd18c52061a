"""Tokenizers, compared with the AutoTokenizer of transformers; end tokens."""

import json

import pytest
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from rf8.checkpoint.tokenizer import TOKENIZER_FILES, end_tokens, make_tokenizer
from rf8.errors import DataError

CORPUS = ["the king went unto the house of the people, and they said: go out of it\n"] * 9
TEXTS = [
    "the king went",
    "",
    " \n the  people<|end|> said",
    "</s>the king  went </s> said",
    "<|start|>user\ngo out<|end|>\n<s>the <mask> [X]it</s>",
    "naïve — 王 🙂",
]


def byte_level(**options):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def with_bos():
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def with_added():
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|start|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True), AddedToken("king", single_word=True)])
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def older_llama():
    """Spaces by the normalizer, which knows no start of a text; single bytes for the rest."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    tokenizer.normalizer = normalizers.Sequence(spaces)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special + single, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(special)]
    return Tokenizer.from_str(json.dumps(content))


def truncating():
    tokenizer = with_bos()
    tokenizer.enable_truncation(max_length=5, stride=1)
    return tokenizer


def padding():
    tokenizer = byte_level()
    tokenizer.enable_padding(length=40, pad_token="<pad>")
    return tokenizer


START = {"content": "<|start|>", "special": True, "normalized": False, "lstrip": False,
         "rstrip": True, "single_word": False}  # fmt: skip

CASES = {
    "plain": (byte_level, {}),
    "prefix space": (lambda: byte_level(add_prefix_space=True), {}),
    "begins and ends": (with_bos, {"bos_token": "<s>", "eos_token": "</s>"}),
    "the file decides on a start": (with_bos, {"add_bos_token": False, "bos_token": "<s>"}),
    "which is no business of the config": (byte_level, {"add_bos_token": True, "bos_token": "<s>"}),
    "added tokens": (with_added, {"eos_token": "<|end|>"}),
    "added tokens become special": (with_added, {"mask_token": "<mask>"}),
    "tokens of the config alone": (byte_level, {"added_tokens_decoder": {"301": START},
                                                "eos_token": "<|end|>"}),
    "extra tokens": (byte_level, {"additional_special_tokens": ["<|end|>", "[X]"]}),
    "special tokens are split": (with_added, {"split_special_tokens": True}),
    "unigram": (unigram, {"unk_token": "<unk>", "bos_token": {
        **START, "__type": "AddedToken", "content": "<s>",
    }}),
    **{
        f"{name}, {options}": (older_llama, {"tokenizer_class": name} | options)
        for name, options in (
            ("LlamaTokenizer", {}),
            ("LlamaTokenizerFast", {"legacy": True}),
            ("LlamaTokenizer", {"legacy": False, "add_prefix_space": False}),
            ("PreTrainedTokenizerFast", {"legacy": None}),
        )
    },
    "a class that the file overrules": (byte_level, {"tokenizer_class": "LlamaTokenizer"}),
    "gpt2": (byte_level, {"tokenizer_class": "GPT2Tokenizer"}),
    "truncation": (truncating, {}),
    "padding": (padding, {"pad_token": "<pad>"}),
}  # fmt: skip


def saved(folder, tokenizer, config, **files):
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(folder, files):
    ours, theirs = make_tokenizer(files), transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special).ids
            assert ids == theirs(text, add_special_tokens=special)["input_ids"]
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("case", CASES)
def test_what_transformers_gives(tmp_path, case):
    make, config = CASES[case]
    assert_same(tmp_path, saved(tmp_path, make(), config))


def test_files_of_older_tools(tmp_path):
    files = saved(
        tmp_path, byte_level(), {"eos_token": "</s>"},
        special_tokens_map={"eos_token": {**START, "content": "<|end|>"}},
        added_tokens={"<|end|>": 300, "[X]": 301},
    )  # fmt: skip
    assert_same(tmp_path, files)
    assert make_tokenizer(files).token_to_id("[X]") == 301


def test_all_files_travel():
    assert {"generation_config.json", "chat_template.jinja"} <= set(TOKENIZER_FILES)
    assert make_tokenizer({"vocab.json": b"{}"}) is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", b"{", "tokenizer.json is broken"),
        ("tokenizer.json", b"\xff", "tokenizer.json is broken"),
        ("tokenizer_config.json", b"{", "tokenizer_config.json is no JSON"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json holds no JSON object"),
        ("tokenizer_config.json", b'{"eos_token": 3}', "has tokens that are none"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": 5}}', "that are none"),
        ("added_tokens.json", b"\xff", "added_tokens.json is no JSON"),
    ],
)
def test_broken_files(name, content, words):
    good = {"tokenizer.json": byte_level().to_str().encode()}
    with pytest.raises(DataError, match=words):
        make_tokenizer(good | {name: content})


@pytest.mark.parametrize(
    ("config", "generation", "tokens"),
    [
        ({}, None, ()),
        ({"eos_token_id": None}, {}, ()),
        ({"eos_token_id": 0}, None, (0,)),
        ({"eos_token_id": [4, 2, 4]}, {"top_k": 3}, (4, 2)),
        ({"eos_token_id": 3}, {"eos_token_id": [5, 6]}, (5, 6)),
        ({"eos_token_id": [3, 4]}, {"eos_token_id": 9}, (9,)),
        ({"eos_token_id": 3}, {"eos_token_id": None}, ()),
    ],
)
def test_end_tokens(config, generation, tokens):
    files = (
        {} if generation is None else {"generation_config.json": json.dumps(generation).encode()}
    )
    assert end_tokens(config, files, 10) == tokens


@pytest.mark.parametrize("value", [True, 2.0, "2", -1, 10, [3, 10], [None], [[3]], {"id": 3}])
def test_end_tokens_that_are_none(value):
    words = r": eos_token_id is .*, must be null or tokens of the vocabulary, 0 to 9"
    with pytest.raises(DataError, match="^the model's config" + words):
        end_tokens({"eos_token_id": value}, {}, 10)
    files = {"generation_config.json": json.dumps({"eos_token_id": value}).encode()}
    with pytest.raises(DataError, match="^generation_config.json" + words):
        end_tokens({"eos_token_id": 3}, files, 10)
