"""The command as users call it: in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command import rf8

from rf8.cli.common import _models
from rf8.cli.run import Backend, _summary
from rf8.program.image import Program
from rf8.runtime.session import Stats


def test_quantize_compile_info_run(checkpoint, tmp_path):
    quantized, image = tmp_path / "q", tmp_path / "m.rf8"
    done = rf8("quantize", checkpoint, "-o", quantized, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tensors"]) == 10
    assert rf8("compile", quantized, "-o", image, "--config", "tiny").returncode == 0
    about = json.loads(rf8("info", image, "--json").stdout)
    assert about["config"]["name"] == "tiny"
    logits = tmp_path / "l.npy"
    run = ["run", image, "--prompt-ids", "1,2,3", "--max-new-tokens", "2", "--json"]
    golden = json.loads(rf8(*run, "--backend", "golden", "--logits", logits).stdout)
    both = rf8(*run, "--backend", "both", "--stalls", "0.1")
    assert both.returncode == 0, both.stderr
    result = json.loads(both.stdout)
    assert result["ids"] == golden["ids"] and result["stats"]["differences"] == 0
    values = np.load(logits)
    assert values.shape == (4, 101) and int(values[2].argmax()) == result["ids"][0]


def test_explain_and_profile(checkpoint, image, tmp_path):
    target = tmp_path / "m.rf8"
    done = rf8("compile", checkpoint, "-o", target, "--config", "tiny", "--explain")
    assert done.returncode == 0, done.stderr
    for word in ("h.1", "lm_head", "predicted", "2 column(s)"):
        assert word in done.stdout
    picture = tmp_path / "roofline.png"
    done = rf8("profile", image, "--position", "5", "--plot", picture, "--json")
    assert done.returncode == 0, done.stderr
    total = json.loads(done.stdout)["total"]
    assert abs(total["predicted"] / total["measured"] - 1) < 0.01
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "measured" in rf8("profile", image, "--columns", "2", "--no-head").stdout


def test_text_in_text_out():
    done = rf8("run", "default", "--prompt", "The king", "--max-new-tokens", "4",
               "--backend", "golden")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The king") and "tokens/s" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "IMAGE", "--prompt-ids", "1,x"], 2, "--prompt-ids is '1,x'"),
        (["run", "IMAGE", "--prompt-ids", "999"], 2, "token 999 is not in the vocabulary"),
        (["run", "IMAGE"], 2, "give either --prompt TEXT or --prompt-ids"),
        (["run", "IMAGE", "--prompt", "hello"], 1, "has no tokenizer.json: use --prompt-ids"),
        (["run", "IMAGE", "--prompt-ids", "1", "--config", "sim"], 1, "not 'sim'"),
        (["run", "IMAGE", "--prompt-ids", "1", "--max-new-tokens", "99"], 2, "the context of 24"),
        (["run", "IMAGE", "--prompt-ids", "1", "--latency", "-1"], 2, "memory latency is -1"),
        (["run", "IMAGE", "--prompt-ids", "1", "--backend", "gpu"], 2, "gpu"),
        (["run", "/none", "--prompt-ids", "1"], 1, "no model '/none'"),
        (["run", "default", "--prompt", ""], 2, "prompt is empty"),
        (["run", "default", "--prompt", "a", "--config", "huge"], 2, "no config 'huge'"),
        (["quantize", "default", "-o", "/proc/x/y"], 1, "cannot write /proc/x/y"),
        (["quantize", "default", "-o", "q", "--span", "9"], 2, "--span is 9, must be one of"),
        (["compile", "default", "-o", "/proc/x.rf8"], 1, "cannot write /proc/x.rf8"),
        (["compile", "default", "-o", "x.rf8", "--config", "ecp5"], 1, "--span 8"),
        (["run", "IMAGE", "--prompt-ids", "1", "--seed", "-1"], 2, "--seed is -1"),
        (
            ["run", "IMAGE", "--prompt-ids", "1", "--max-new-tokens", "1", "--logits", "/proc/x"],
            1,
            "cannot write /proc/x",
        ),
        (["run", "IMAGE", "--prompt-ids", "1", "--temperature", "-1"], 2, "temperature is -1"),
        (["run", "IMAGE", "--prompt-ids", "1", "--top-k", "3"], 2, "need a --temperature"),
        (["eval", "default", "--text", "/none", "--tokens", "9"], 2, "at least a window: 256"),
        (["compile", "default", "-o", "x", "--argmax", "--flat", "y"], 2, "use --flat without it"),
        (["run", "IMAGE", "--prompt-ids", "1", "--argmax"], 2, "was compiled for logits"),
        (["profile", "IMAGE", "--columns", "3"], 2, "columns is 3, must be one of: 1, 2"),
        (["profile", "IMAGE", "--position", "24"], 2, "position is 24, must be 0 to 23"),
        (["profile", "IMAGE", "--plot", "x.exe"], 2, "--plot is x.exe, must end in one of: .png"),
        (["profile", "/none"], 1, "/none is missing"),
        (["info", ""], 1, "the name of the model is empty"),
        (["info", "x" * 300], 1, "xxx: File name too long"),
        (["info", "/none"], 1, "no model '/none'"),
        (["frobnicate"], 2, "No such command"),
        (["run", "--frobnicate"], 2, "No such option"),
    ],
)
def test_mistakes_get_one_line(image, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    given = [image if argument == "IMAGE" else argument for argument in arguments]
    golden = ["--backend", "golden"] if given[0] == "run" and "gpu" not in given else []
    done = rf8(*given, *golden)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_arguments_that_are_no_text_and_terminals_that_know_little():
    command = [sys.executable, "-m", "rf8.cli", "run", "default", "--prompt"]
    more = ["--backend", "golden", "--max-new-tokens", "1"]
    done = subprocess.run([*command, b"abc\xff", *more], capture_output=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert b"argument 4 is no UTF-8: b'abc\\xff'" in done.stderr
    done = rf8("run", "default", "--prompt", "naïve", *more, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("na\\xefve")


def test_a_gguf_file_is_a_model(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    for command in (["info", path], ["run", path, "--prompt-ids", "1", "--backend", "golden"]):
        done = rf8(*command)
        assert done.returncode == 1 and "is no GGUF file" in done.stderr


def test_a_shell_completes_models(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "mine.gguf").touch()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "model").symlink_to(checkpoint)
    assert _models("m") == ["mine.gguf", "model", "my/"]
    assert _models("") == ["default", "smollm2-135m", "mine.gguf", "model", "my/"]
    assert _models(f"{tmp_path}/mo") == [f"{tmp_path}/model"]
    assert _models("d") == ["default"] and _models("none/") == []
    words = {"_RF8_COMPLETE": "complete_bash", "COMP_WORDS": "rf8 run def", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['rf8']; from rf8.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **words}
    )
    assert done.stdout.split() == ["default"]


def test_saturated_values_are_told(image, capsys):
    program, stats = Program.load(image), Stats(tokens=1)
    for count, told in ((0, ""), (3, "3 values saturated at +-32,768"), (12345, "12,345 values")):
        stats.saturated = count
        _summary(stats, Backend.golden, program, [])
        shown = capsys.readouterr().out
        assert told in shown and ("range" in shown) == bool(count)


def test_perplexity_of_a_text_goes_on_where_it_was(tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "done.json"
    text.write_text("And the king said unto the people, that they should go out. " * 40)
    run = ["run", "default", "--perplexity", text, "--tokens", "512", "--json", "--out", out]
    done = rf8(*run)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["tokens"] == 2 * 255 and 1 < result["perplexity"] < 100
    kept = json.loads(out.read_text())
    kept["runs"]["window 1"] = {"loss": kept["runs"]["window 0"]["loss"]}
    out.write_text(json.dumps(kept))
    again = json.loads(rf8(*run).stdout)
    assert again["perplexity"] != result["perplexity"]  # the windows were not run again
    failed = rf8(*run, "--prompt", "x")
    assert failed.returncode == 2 and "leave the prompt out" in failed.stderr


def test_no_new_tokens_is_no_error(image):
    done = rf8("run", image, "--prompt-ids", "1", "--max-new-tokens", "0", "--backend", "golden")
    assert done.returncode == 0 and "0 of them generated" in done.stdout


def test_version_and_no_command():
    version = rf8("--version")
    assert version.returncode == 0 and version.stdout.startswith("rf8 0.")
    nothing = rf8()
    assert nothing.returncode == 2 and "Usage" in nothing.stdout and not nothing.stderr


def test_help_has_examples():
    for command in ("quantize", "compile", "run", "info", "verilog", "profile"):
        assert "Example" in rf8(command, "--help").stdout
