"""`rf8 models`, and what is said of how a model was read."""

import json

import pytest
from command import rf8
from typer.testing import CliRunner

from rf8.checkpoint.families import FAMILIES
from rf8.cli import app
from rf8.errors import UsageError
from rf8.evaluation.samples import sample


def test_families_are_listed():
    done = CliRunner().invoke(app, ["models", "--json"])
    assert [one["model_type"] for one in json.loads(done.stdout)] == list(FAMILIES)
    done = CliRunner().invoke(app, ["models", "--only", "gpt_neox"])
    assert "Pythia" in done.stdout and "Gemma" not in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "bert"], "--only is 'bert', must be one of gpt2, llama"),
        (["-o", "page.md"], "--output and --no-rtl are of --check"),
        (["--no-rtl"], "--output and --no-rtl are of --check"),
    ],
)
def test_mistakes(options, words):
    done = CliRunner().invoke(app, ["models", *options])
    assert isinstance(done.exception, UsageError) and words in str(done.exception)


def test_page_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("rf8.report.support.KNOWN", ())
    page = tmp_path / "page.md"
    options = ["models", "--check", "--no-rtl", "--only", "qwen2", "-o", str(page)]
    done = CliRunner().invoke(app, options)
    assert done.stdout == f"wrote {page}: 1 families, 0 models\n"
    assert "| Qwen2, Qwen2.5 | `qwen2` | 0.9" in page.read_text()


def test_a_head_of_its_own_is_said(tmp_path):
    sample("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tie_word_embeddings": True}))
    done = rf8("info", tmp_path)
    assert done.returncode == 0
    assert done.stderr.strip().endswith("the file has a lm_head.weight of its own: it is used")
