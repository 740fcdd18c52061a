"""The command that tells held-out perplexity, on two short verses that it is given."""

import sys

import pytest

from rf8.errors import DataError
from rf8.train import held_out
from rf8.train.data import Document

VERSES = [
    Document("bible: Genesis", "In the beginning God created the heaven and the earth.\n" * 3),
    Document("jargon: F", "foo: the canonical sample name for anything.\n" * 3),
]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["held_out", *arguments])
    return held_out.main()


def test_a_row_for_each_kind_of_text(monkeypatch, capsys):
    monkeypatch.setattr(held_out, "corpus", lambda cache: ([], VERSES))
    assert run(monkeypatch, "default") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    found = {row[2]: float(row[4]) for row in rows if row[:1] == ["default"]}
    assert found.keys() == {"all", "bible", "jargon"}
    # The verse is of the default model's training text, the other is not.
    assert 1 < found["bible"] < found["all"] < found["jargon"]


@pytest.mark.parametrize("model", ["no-such-folder/model", ""])
def test_a_missing_model_gets_one_line(monkeypatch, capsys, model):
    monkeypatch.setattr(held_out, "corpus", lambda cache: ([], VERSES))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(monkeypatch, model) == 1
    assert capsys.readouterr().err.startswith("rf8.train.held_out: ")


def test_text_that_is_not_to_be_had(monkeypatch, capsys):
    def corpus(cache):
        raise DataError("no network")

    monkeypatch.setattr(held_out, "corpus", corpus)
    assert run(monkeypatch, "default") == 1
    assert "no network" in capsys.readouterr().err
