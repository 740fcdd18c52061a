"""The disassembler: whole programs as text, and what is wrong with broken ones."""

import dataclasses
import json

import pytest
import tiny_models

import rf8
from golden.isa import Opcode
from rf8.checkpoint.huggingface import from_transformers
from rf8.errors import DataError, UsageError
from rf8.program.disassembler import listing


@pytest.fixture(scope="module")
def program():
    return rf8.compile(rf8.quantize(from_transformers(tiny_models.gpt2(), "gpt2")), config="tiny")


def test_every_program_ends_with_its_halt(program):
    lines = list(listing(program))
    halts = [line for line in lines if line.text == Opcode.HALT.name]
    assert len(halts) == len(program.entries) and lines[-1].text == "HALT"
    first = {(line.columns, line.head): line.address for line in reversed(lines)}
    assert first == {(e.columns, e.head): e.address for e in program.entries}


def test_choice_of_part_and_columns(program):
    lines = list(listing(program, "h.1.attn", 1))
    assert {(line.part, line.columns) for line in lines} == {
        ("h.1.attn.c_attn", 1),
        ("h.1.attn: keys", 1),
        ("h.1.attn: values", 1),
        ("h.1.attn: attention", 1),
        ("h.1.attn.c_proj", 1),
    }
    assert any(line.text.startswith("MATMUL ") for line in lines)
    assert any("function=EXP2 after=RECIPROCAL" in line.text for line in lines)
    with pytest.raises(UsageError, match="--part is 'k', must be the beginning of one of: wte, "):
        next(listing(program, "k"))
    with pytest.raises(UsageError, match="--columns is 99, must be one of: 1, 2"):
        next(listing(program, columns=99))


def test_broken_instructions_are_named(program):
    address = program.entries[0].address
    sections = dict(program.sections)
    name = next(n for n, (start, d) in sections.items() if start <= address < start + d.size)
    start, data = sections[name]
    data = data.copy()
    data[address - start] = 0xEE
    broken = dataclasses.replace(program, sections=sections | {name: (start, data)})
    with pytest.raises(DataError, match=rf"program of 1 columns, {address:#x}: opcode 0xee"):
        list(listing(broken))
    sections.pop(name)
    with pytest.raises(DataError, match="runs out of the image"):
        list(listing(dataclasses.replace(program, sections=sections)))


def test_command(program, tmp_path, capsys):
    from rf8.cli import app

    program.save(tmp_path / "m.rf8")
    app(["disasm", str(tmp_path / "m.rf8"), "--columns", "1"], standalone_mode=False)
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "wte (1 columns, with logits):"
    app(["disasm", str(tmp_path / "m.rf8"), "--columns", "1", "--json"], standalone_mode=False)
    records = json.loads(capsys.readouterr().out)
    assert [set(r) for r in records[:1]] == [{"columns", "head", "part", "address", "text"}]
    assert all(record["text"] in text for record in records)
