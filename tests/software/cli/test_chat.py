"""Prompts, conversations and what is shown of them."""

import json
import os
import pty
import subprocess
import sys
from itertools import takewhile

import pytest
import tiny_models
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import rf8 as library
from rf8.checkpoint.huggingface import from_transformers
from rf8.checkpoint.tokenizer import TOKENIZER_FILES
from rf8.cli import main
from rf8.cli.chat import Conversation
from rf8.cli.generate import Generated, Text
from rf8.errors import DataError, UsageError

TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """Directory of a model with a chat template, whose first token ends a text."""
    folder = tmp_path_factory.mktemp("talker")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=265, special_tokens=["<end>", "<u>", "<a>", "<s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["the king the king"], trainer)
    tiny_models.gpt2(vocab_size=265, n_positions=48, eos_token_id=0).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def program(talker):
    return library.compile(library.quantize(library.load_model(talker)), config="tiny")


RUN = ["--backend", "golden", "--config", "tiny"]


@pytest.fixture
def here(monkeypatch, capsys):
    """The command in this process: arguments to exit code, standard output and error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rf8", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_a_question_is_put_as_transformers_does(talker, here):
    code, out, err = here("run", talker, *RUN, "--chat", "--prompt", "the king", "--system", "x",
                          "--json", "--max-new-tokens", "5")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    theirs = transformers.AutoTokenizer.from_pretrained(talker).apply_chat_template(
        [{"role": "system", "content": "x"}, {"role": "user", "content": "the king"}],
        add_generation_prompt=True,
    )["input_ids"]
    assert found["prompt_ids"] == theirs
    assert len(found["ids"]) <= 5 and found["first_token_seconds"] > 0
    assert ("tokens_per_second" in found) and found["stats"]["tokens"] >= len(theirs)


def test_an_answer_stops_at_an_end_token(program):
    with library.Session(program) as session:
        talk = Conversation(program, None)
        ids = talk.ids("the king")
        free = list(session.stream(ids, 9))
        program.eos = (free[2],)
        try:
            found = talk.answer(session, "the king", None, quiet=True)
        finally:
            program.eos = (0,)
        assert found.ids == free[: free.index(free[2]) + 1]
        # What was computed is not computed again.
        before, more = session.stats.tokens, talk.ids("and")
        pairs = zip([*ids, *found.ids[:-1]], more, strict=False)
        shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        talk.answer(session, "and", 1, quiet=True)
        assert session.stats.tokens - before == len(more) - shared and shared >= len(ids)
        talk.reset()
        assert talk.ids("the king") == ids


def test_the_conversation_must_fit(program):
    talk = Conversation(program, None)
    with library.Session(program) as session:
        found = talk.answer(session, "the king " * 3, None, quiet=True)
        assert len(found.ids) == program.context - len(found.prompt_ids) + 1 or 0 in found.ids
    with pytest.raises(UsageError, match=r"conversation has \d+ tokens, the context 48: shorten"):
        talk.ids("king " * 40)
    assert talk.reset() is None and talk.ids("king")


def test_lines_of_a_pipe_are_turns(talker):
    command = [sys.executable, "-m", "rf8.cli", "run", talker, *RUN, "--chat", "--json",
               "--max-new-tokens", "2"]  # fmt: skip
    lines = "the\n\nking\n/reset\nthe\n/exit\nnever\n"
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *turns, end = map(json.loads, done.stdout.splitlines())
    assert len(turns) == end["turns"] == 3 and end["config"] == "tiny"
    assert turns[0]["ids"] == turns[2]["ids"]
    assert turns[1]["prompt_ids"][: len(turns[0]["prompt_ids"])] == turns[0]["prompt_ids"]
    broken = subprocess.run(command, input=b"a\n\xff\n", capture_output=True)
    assert broken.returncode == 1 and b"standard input, line 2, is no UTF-8" in broken.stderr


def on_terminal(command, typed=b""):
    """All that a command writes to a terminal of its own, standard output and error together."""
    main, side = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=env)
    os.close(side)
    os.write(main, typed)
    found = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        found += part
    os.close(main)
    return process.wait(timeout=60), found.decode()


def test_a_terminal_sees_the_speed_and_a_log_does_not(talker):
    command = [sys.executable, "-m", "rf8.cli", "run", str(talker), *RUN, "--prompt", "the",
               "--max-new-tokens", "3"]  # fmt: skip
    code, shown = on_terminal(command)
    assert code == 0 and "\x1bD\x1bM\x1b7" in shown and "reading " in shown
    assert shown.count("first token after") == 4  # for each token, and in the summary
    done = subprocess.run(command, capture_output=True, text=True)
    assert "\x1b" not in done.stdout + done.stderr and done.stdout.count("first token after") == 1


def test_a_conversation_on_a_terminal(talker):
    command = [sys.executable, "-m", "rf8.cli", "run", str(talker), *RUN, "--chat",
               "--max-new-tokens", "2"]  # fmt: skip
    long = b"king " * 40
    code, shown = on_terminal(command, b"the\n" + long + b"\n/reset\nking\n/exit\n")
    assert code == 0, shown
    assert shown.count("> ") >= 5 and "/reset forgets the conversation" in shown
    assert "the context 48: shorten it" in shown  # and goes on
    assert "generated" in shown


def test_prompts_from_files(talker, tmp_path, here):
    text = tmp_path / "text"
    text.write_text("the king\n\n")
    run = ["run", talker, *RUN, "--max-new-tokens", "1", "--json"]
    expected = json.loads(here(*run, "--prompt", "the king\n")[1])["prompt_ids"]
    assert json.loads(here(*run, "--prompt-file", text)[1])["prompt_ids"] == expected
    command = [sys.executable, "-m", "rf8.cli", *map(str, run), "--prompt-file", "-"]
    piped = subprocess.run(command, input=text.read_bytes(), capture_output=True)
    assert json.loads(piped.stdout)["prompt_ids"] == expected


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--chat", "--prompt-ids", "1"], 2, "--chat puts text in a template"),
        (["--prompt", "a", "--system", "b"], 2, "--system belongs to --chat"),
        (["--prompt", "a", "--prompt-file", "b"], 2, "give one of --prompt TEXT, --prompt-ids"),
        (["--chat", "--logits", "x.npy"], 2, "--logits with --chat needs one question"),
        (["--chat", "--max-new-tokens", "-1"], 2, "--max-new-tokens is -1, must be 0 or more"),
        (["--prompt-file", "/none"], 1, "/none: No such file"),
        (["--prompt-file", "MODEL"], 1, "Is a directory"),
        (["--prompt-file", "BYTES"], 1, "is no UTF-8 text"),
    ],
)
def test_mistakes_get_one_line(talker, tmp_path, here, arguments, code, words):
    (tmp_path / "bytes").write_bytes(b"a\xff")
    names = {"MODEL": talker, "BYTES": tmp_path / "bytes"}
    found, _, err = here("run", talker, *RUN, *(names.get(a, a) for a in arguments))
    assert found == code and words in err and len(err.splitlines()) == 1


def test_models_that_cannot_talk(here):
    code, _, err = here("run", "default", "--chat", "--prompt", "a", "--backend", "golden")
    assert code == 1 and len(err.splitlines()) == 1
    assert "default has no chat template: leave --chat out" in err
    bare = library.compile(library.quantize(from_transformers(tiny_models.gpt2(), "m")), "tiny")
    bare.files = {"chat_template.jinja": TEMPLATE.encode()}
    with pytest.raises(DataError, match=r"m has no tokenizer\.json, and a chat needs one"):
        Conversation(bare, None)


def test_template_and_end_tokens_travel(talker, tmp_path, program):
    model = library.load_model(talker)
    library.quantize(model).save(tmp_path / "q")
    again = library.load_model(tmp_path / "q")
    assert again.files == model.files and "chat_template.jinja" in again.files
    assert set(again.files) <= set(TOKENIZER_FILES)
    assert program.eos == (0,)
    program.save(tmp_path / "m.rf8")
    assert library.Program.load(tmp_path / "m.rf8").files == program.files


def test_text_waits_for_whole_characters(program, capsys):
    ids = program.tokenizer().encode("a王b").ids
    text = Text(program, quiet=False)
    shown = []
    for token in ids:
        text.show([token])
        shown.append(capsys.readouterr().out)
    assert "".join(shown) == "a王b" and "" in shown
    text.show(ids[1:2])
    text.end()
    assert capsys.readouterr().out == "\N{REPLACEMENT CHARACTER}\n"


def test_speed_in_words():
    assert Generated([1], [], "", None, None).speed == ""
    assert Generated([1], [2], "", 0.51, None).speed == "first token after 0.5 s"
    found = Generated([1], [2, 3], "", 1.0, 2.345)
    assert found.speed == "first token after 1.0 s, then 2.35 tokens/s"
