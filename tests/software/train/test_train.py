"""The training recipe, end to end on a few kilobytes of text made here."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from rf8.errors import DataError
from rf8.train import data, loop, texts
from rf8.train.__main__ import main
from rf8.train.data import Document
from rf8.train.recipe import Recipe

TINY = Recipe(
    steps=12, vocab_size=300, context=16, n_embd=32, n_layer=1, n_head=2, batch=4, warmup=3
)


def _document(name: str, seed: int, words: int = 400) -> Document:
    chosen = random.Random(seed).choices(
        ["the", "king", "and", "a", "man", "of", "war", "went", "up", "to", "rest"], k=words
    )
    return Document(name, " ".join(chosen) + "\n")


@pytest.fixture(scope="module")
def documents() -> tuple[list[Document], list[Document]]:
    return (
        [_document("Old: one", 1), _document("New: two", 2)],
        [_document("Old: three", 3), _document("New: four", 4, words=50)],
    )


@pytest.fixture(scope="module")
def whole_run(
    documents: tuple[list[Document], list[Document]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("whole")
    loop.train(TINY, documents, out)
    return out


def test_loss_falls(documents: tuple[list[Document], list[Document]], tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    summary = loop.train(replace(TINY, steps=60), documents, tmp_path, report=rows.append)
    assert rows[-1]["step"] == 60 and rows[-1]["val_loss"] < 0.6 * math.log(300)
    assert summary["curve"] == rows


def test_resumed_run_equals_whole_run(
    documents: tuple[list[Document], list[Document]], whole_run: Path, tmp_path: Path
) -> None:
    loop.train(TINY, documents, tmp_path, stop_at=5)
    assert not (tmp_path / "model.safetensors").exists()
    # Rows of steps after the checkpoint, as a crash leaves them, are done again.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "train_loss": 0}\n{"step": 10, "tr')
    loop.train(TINY, documents, tmp_path)
    name = "model.safetensors"
    assert (tmp_path / name).read_bytes() == (whole_run / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 12]


def test_a_run_can_start_from_a_model(
    documents: tuple[list[Document], list[Document]], whole_run: Path, tmp_path: Path
) -> None:
    again = replace(
        TINY, start=str(whole_run), optimizer="adamw", precision="float32", lr=1e-9, warmup=0
    )
    summary = loop.train(again, documents, tmp_path)
    before = json.loads((whole_run / "training.json").read_text())
    # So small a learning rate changes nothing but the last digits.
    assert summary["held_out"]["all"]["perplexity"] == pytest.approx(
        before["held_out"]["all"]["perplexity"], rel=1e-4
    )
    name = "tokenizer.json"
    assert (tmp_path / name).read_bytes() == (whole_run / name).read_bytes()
    with pytest.raises(DataError, match=r"has n_embd 32, the recipe 64$"):
        loop.train(replace(again, n_embd=64), documents, tmp_path / "other")
    bare = tmp_path / "bare"
    shutil.copytree(whole_run, bare)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        loop.train(replace(again, start=str(bare)), documents, tmp_path / "other")


def test_text_as_files(
    documents: tuple[list[Document], list[Document]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(texts, "corpus", lambda cache: documents)
    monkeypatch.setattr(texts, "MIDDLE", 20)
    monkeypatch.setattr("sys.argv", ["texts", "--data", str(tmp_path)])
    assert texts.main() == 0
    lines = [(d.text[(len(d.text) - 20) // 2 :])[:20] for d in documents[0]]
    assert (tmp_path / "calibration.txt").read_text() == "\n".join(lines)
    assert (tmp_path / "held-out.txt").read_text() == "\n".join(d.text for d in documents[1])

    def nothing(cache: Path) -> None:
        raise DataError("no network")

    monkeypatch.setattr(texts, "corpus", nothing)
    assert texts.main() == 1
    assert capsys.readouterr().err == "rf8.train.texts: no network\n"


def test_finished_run_is_not_trained_again(
    documents: tuple[list[Document], list[Document]], whole_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(whole_run, out)
    rows: list[dict[str, float]] = []
    loop.train(TINY, documents, out, report=rows.append)
    assert rows == []
    name = "model.safetensors"
    assert (out / name).read_bytes() == (whole_run / name).read_bytes()


def test_folder_loads_with_transformers(
    documents: tuple[list[Document], list[Document]], whole_run: Path
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(whole_run)
    tokenizer = AutoTokenizer.from_pretrained(whole_run)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert model.dtype == torch.float32 and model.config.activation_function == "gelu_new"
    assert model.lm_head.weight is model.transformer.wte.weight
    assert tokenizer.decode(tokenizer("the king\n").input_ids) == "the king\n"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 0

    summary = json.loads((whole_run / "training.json").read_text())
    ids = data.encode(tokenizer, documents[1])
    held_out = summary["held_out"]
    assert len(ids) == held_out["all"]["tokens"]
    ppl = loop.perplexity(model, ids, TINY.context)
    assert held_out["all"]["perplexity"] == pytest.approx(ppl, rel=1e-4)
    assert held_out["Old"]["tokens"] + held_out["New"]["tokens"] == len(ids)
    assert held_out["documents"] == ["Old: three", "New: four"]


def test_checkpoint_of_another_run_is_refused(
    documents: tuple[list[Document], list[Document]], whole_run: Path, tmp_path: Path
) -> None:
    shutil.copy(whole_run / "checkpoint.pt", tmp_path)
    with pytest.raises(DataError, match=r"differs in seed, lr|differs in lr, seed"):
        loop.train(replace(TINY, seed=1, lr=0.1), documents, tmp_path)
    with pytest.raises(DataError, match="differs in train_ids"):
        loop.train(TINY, (documents[1] * 3, documents[0]), tmp_path)


def test_damaged_checkpoint_is_named(
    documents: tuple[list[Document], list[Document]], tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"checkpoint\.pt; delete it"):
        loop.train(TINY, documents, tmp_path)


def test_learning_rate() -> None:
    recipe = replace(TINY, steps=100, warmup=10, decay=0.4)
    factors = [recipe.lr_factor(step) for step in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert all(f == 1 for f in factors[9:61])
    assert factors[80] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(1 / 40)


def test_batches_visit_each_window_once_an_epoch() -> None:
    ids = torch.arange(1000)
    per_epoch = ((1000 - 1) // 16 - 1) // 4
    epochs = []
    for epoch in range(2):
        starts = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            x, y = loop.batch_at(ids, step, TINY)
            assert x.shape == (4, 16) and torch.equal(y, x + 1)
            assert torch.equal(x, x[:, :1] + torch.arange(16))
            starts += x[:, 0].tolist()
        assert len(set(starts)) == len(starts) and len({s % 16 for s in starts}) == 1
        epochs.append(starts)
    assert epochs[0] != epochs[1]


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="needs 81 or more"):
        loop.batch_at(torch.arange(80), 0, TINY)
    loop.batch_at(torch.arange(81), 0, TINY)


class _Bigram(nn.Module):
    """Logits from the previous token alone, so that windows cannot matter."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(vocab, vocab, generator=generator))

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        assert input_ids.shape[1] <= 7
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.mark.parametrize("length", [2, 7, 8, 9, 15, 50])
def test_perplexity_counts_each_prediction_once(length: int) -> None:
    model = _Bigram(11)
    ids = torch.randint(11, (length,), generator=torch.Generator().manual_seed(1))
    log_p = model.table.log_softmax(-1)
    nll = [-log_p[a, b].item() for a, b in itertools.pairwise(ids.tolist())]
    expected = math.exp(sum(nll) / len(nll))
    assert loop.perplexity(model, ids, 7, batch=2) == pytest.approx(expected, rel=1e-5)


def test_perplexity_needs_two_tokens() -> None:
    with pytest.raises(ValueError, match="got 1"):
        loop.perplexity(_Bigram(3), torch.zeros(1, dtype=torch.int64), 7)


def test_encode_starts_each_document_with_end_of_text() -> None:
    docs = [Document("a", "the man\n"), Document("b", "and \u20ac7\n")]
    tokenizer = data.train_tokenizer([d.text for d in docs], 280, 16)
    ids = data.encode(tokenizer, docs)
    assert ids.dtype == torch.int64 and (ids == 0).sum() == 2 and ids[0] == 0
    assert tokenizer.decode(ids) == "<|endoftext|>the man\n<|endoftext|>and \u20ac7\n"


def test_missing_tool_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"apt-get download bible-kjv .*: No such file.*Debian"):
        data.corpus(tmp_path / "cache")
    assert not (tmp_path / "cache" / "bible-kjv").exists()


def test_incomplete_cache_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "jargon-text/usr/share/doc/jargon-text"
    folder.mkdir(parents=True)
    (folder / "jargon.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"cannot read .*jargon\.txt\.gz .* delete"):
        data.jargon(tmp_path)
    (folder / "jargon.txt.gz").write_bytes(gzip.compress(b"short"))
    with pytest.raises(DataError, match=r"1 parts of the Jargon File in .*, not 4; delete it"):
        data.jargon(tmp_path)


def test_prose_is_unwrapped_and_tables_dropped() -> None:
    text = "   A line\n   goes {on}.\n\n   \u250c\u2500\u2510\n\n   code:\n     x\n"
    assert data._tidy(data._unwrap(text)) == "A line goes on.\n\ncode:\n  x\n"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--steps", "0", "--out", "x"], 2, "0 is not 1 or more"),
        ([], 2, "--out"),
        (["--out", "x", "--device", "tpu"], 2, "invalid choice"),
    ],
)
def test_command_line_refusals(
    options: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(options)
    assert exit_.value.code == status
    assert words in capsys.readouterr().err


def test_command_line_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("rf8.train: apt-get download bible-kjv") and error.count("\n") == 1
