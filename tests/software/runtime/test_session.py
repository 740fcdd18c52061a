"""Whole models: golden against float, RTL against golden, and what users get wrong."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny_models
import torch

import rf8
from golden.config import CONFIGS
from golden.interface import RunResult
from golden.isa import ErrorCode, Opcode
from golden.machine import GoldenMachine
from rf8.checkpoint.huggingface import from_transformers, to_transformers
from rf8.checkpoint.model import RF8Tensor
from rf8.errors import DataError, MachineStopped, Mismatch, UsageError
from rf8.evaluation.approximate import approximated
from rf8.evaluation.reference import Transformer
from rf8.graph.ir import Attention, Graph
from rf8.runtime.sampler import Sampler
from rf8.runtime.session import Session, memory_image
from sim.rtl import MemoryModel

STALLS = MemoryModel(latency=23, stalls=0.2, seed=5)


def compiled(folder, config="tiny", **changes):
    model = tiny_models.save(folder, **changes)
    quantized = rf8.quantize(rf8.load_model(folder), span=CONFIGS[config].span)
    return model, quantized, rf8.compile(quantized, config=config)


LLAMAS = {
    "odd widths": {},
    "grouped heads of 8, inner width of 172": {
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "intermediate_size": 172,
    },
    "one key-value head, tied, biases": {
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
}


def llama(**changes):
    """A small random Llama in RF8."""
    return rf8.quantize(from_transformers(tiny_models.llama(**changes), "llama"))


def interleaved(model):
    """The same with rotary pairs of neighbours."""
    ops = [
        replace(op, rotary=replace(op.rotary, pairing="neighbours"))
        if isinstance(op, Attention)
        else op
        for op in model.graph.ops
    ]
    return replace(model, graph=Graph(tuple(ops), model.context))


def with_rf8_weights(model, quantized):
    """The float model with the values of the codes."""
    state = model.state_dict()
    for name, tensor in quantized.tensors.items():
        if isinstance(tensor, RF8Tensor):
            values = torch.from_numpy(tensor.decode())
            key = name if name == "lm_head.weight" else f"transformer.{name}"
            state[key].copy_(values.T if name in quantized.graph.turned() else values)
    return model


def float_logits(module, graph, ids):
    """Logits in float32, but for keys and values in RF8: their rounding is no small error."""
    with torch.no_grad(), approximated(module, graph, {"kv"}):
        return module(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": False}, {"activation_function": "gelu"}, {"n_inner": None}],
)
def test_golden_is_close_to_float(tmp_path, changes):
    model, quantized, program = compiled(tmp_path, **changes)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 100]
    ours = Session(program).forward(ids)
    exact = float_logits(with_rf8_weights(model, quantized), quantized.graph, ids)
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max() < 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize("case", LLAMAS)
def test_golden_llama_is_close_to_float(case):
    model = llama(**LLAMAS[case])
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 100]
    ours = Session(rf8.compile(model, config="tiny")).forward(ids)
    exact = float_logits(to_transformers(model), model.graph, ids)
    assert np.abs(ours - exact).max() < 1e-3 * np.abs(exact).max()


def test_both_pairings_of_rotary_positions():
    """Interleaved pairs are halves with the rows of queries and keys in another order."""
    model = llama()
    turned = interleaved(llama())
    order = np.arange(10).reshape(2, 5).T.reshape(-1)  # 0, 5, 1, 6, ...
    for name, tensor in turned.tensors.items():
        if "q_proj" in name or "k_proj" in name:
            codes = tensor.codes.reshape(-1, 10, tensor.codes.shape[1])[:, order]
            bias = tensor.bias.reshape(-1, 10)[:, order]
            turned.tensors[name] = RF8Tensor(codes.reshape(tensor.codes.shape), bias.reshape(-1))
    halves, neighbours = (
        Session(rf8.compile(m, config="tiny")).forward([5, 6, 7]) for m in (model, turned)
    )
    assert (halves == neighbours).all()


def test_engines_and_batchings_agree(image):
    program = rf8.Program.load(image)
    ids = [5, 6, 7, 8, 9, 10, 11]
    reference = Session(program, engine="numpy").forward(ids)
    assert (Session(program, engine="torch").forward(ids) == reference).all()
    one_by_one = Session(program)
    rows = [one_by_one.append([token]) for token in ids]
    assert (np.concatenate(rows) * 2.0**-16 == reference).all()


CONFIGURATIONS = {
    "odd widths": {},
    "vocabulary of 3, untied": {"vocab_size": 3, "tie_word_embeddings": False, "n_head": 3},
    "vocabulary of 1000": {"vocab_size": 1000, "n_embd": 21, "n_head": 7, "n_inner": 33},
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_rtl_equals_golden_under_stalls(tmp_path, case):
    _, _, program = compiled(tmp_path, **CONFIGURATIONS[case])
    with Session(program, "both", memory=STALLS) as session:
        session.generate([1, 2, 0], 4)
        assert session.stats.differences == 0 and session.stats.compared > 0
        assert session.stats.counters["stall_weights"] > 0
        golden, rtl = session.machines["golden"].memory, session.machines["rtl"].memory
        assert (golden == rtl).all()


def test_llama_on_rtl_equals_golden():
    program = rf8.compile(llama(**LLAMAS["grouped heads of 8, inner width of 172"]), config="tiny")
    with Session(program, "both", memory=STALLS) as session:
        session.generate([1, 2, 0], 4)
        session.check_memory()
        assert session.stats.differences == 0 and session.stats.compared > 0


WHOLE = {
    "gpt2": lambda: from_transformers(tiny_models.gpt2(), "gpt2"),
    "gpt2, exact gelu": lambda: from_transformers(
        tiny_models.gpt2(activation_function="gelu", tie_word_embeddings=False), "gpt2"
    ),
    "gpt2, relu": lambda: from_transformers(tiny_models.gpt2(activation_function="relu"), "gpt2"),
    "gpt2, 20 heads": lambda: from_transformers(tiny_models.gpt2(n_embd=40, n_head=20), "gpt2"),
    "gpt2, heads of 72": lambda: from_transformers(tiny_models.gpt2(n_embd=72, n_head=1), "gpt2"),
    **{f"llama, {name}": lambda c=changes: from_transformers(tiny_models.llama(**c), "llama")
       for name, changes in LLAMAS.items()},
    "llama, interleaved": lambda: interleaved(from_transformers(tiny_models.llama(), "llama")),
}  # fmt: skip


@pytest.mark.parametrize("config", ["tiny", "ecp5", "sim", "8 bit"])
@pytest.mark.parametrize("case", WHOLE)
def test_programs_are_the_definition_of_the_layers(case, config):
    """Every instruction of a whole model against `golden.layers`, all tokens at once: ==."""
    machine = CONFIGS["sim"].replace(act_bits=8) if config == "8 bit" else CONFIGS[config]
    model = rf8.quantize(WHOLE[case](), span=machine.span)
    ids = [5, 6, 7, 8, 9, 10, 11, 100, 1]
    whole = Transformer(model, machine)
    logits = whole.logits(whole.hidden(ids))
    assert (logits * 2.0**-16 == Session(rf8.compile(model, machine)).forward(ids)).all()


def test_generation_stops_at_any_end_token(tmp_path):
    tiny_models.save(tmp_path)
    free = Session(compiled(tmp_path)[2]).generate([7], 12)[1:]
    first = free.index(free[4])
    for eos, at in ((free[4], first), ([100, free[4], free[7]], first), (None, 11)):
        model = rf8.load_model(tmp_path)
        model.config["eos_token_id"] = eos
        program = rf8.compile(rf8.quantize(model), config="tiny")
        assert Session(program).generate([7], 12)[1:] == free[: at + 1]
    model.files["generation_config.json"] = b'{"eos_token_id": [101]}'
    with pytest.raises(DataError, match=r"generation_config.json: eos_token_id is \[101\], must"):
        rf8.compile(rf8.quantize(model), config="tiny")


@pytest.mark.parametrize("backend", ["golden", "both"])
def test_what_the_cache_holds_is_not_computed_again(image, backend):
    program = rf8.Program.load(image)
    with Session(program, backend) as fresh, Session(program, backend) as session:
        before = 0
        for ids, computed in (
            ([1, 2, 3, 4], 4 + 2),
            ([1, 2, 3, 9, 8], 2 + 2),  # the cache has 1, 2, 3, 4 and two new ones
            ([1, 2, 3, 9, 8], 1 + 2),  # all of it, but the last is needed for its logits
            ([5, 2], 2 + 2),
        ):
            found = list(session.stream(ids, 3, resume=True))
            assert found == list(fresh.stream(ids, 3))
            assert session.stats.tokens - before == computed
            before = session.stats.tokens
        session.run_at(1, [4], True)  # the key of position 1 is another's now
        assert session.position == 1


@pytest.mark.parametrize("backend", ["golden", "rtl", "both"])
def test_forward_and_generate_agree(image, backend):
    program = rf8.Program.load(image)
    with Session(program, backend) as session:
        ids = session.generate([7, 8, 9], 3)
        logits = session.forward(ids[:-1])
        assert [int(row.argmax()) for row in logits[2:]] == ids[3:]
        assert session.position == 5


def test_sampling_is_reproducible_and_follows_softmax(image):
    session = Session(rf8.Program.load(image))
    runs = [list(session.stream([7], 12, choose=Sampler(1.0, seed))) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    logits = np.array([0, 1 << 16, -(20 << 16)])
    sampler = Sampler(0.5, 3)
    share = np.mean([sampler(logits) for _ in range(4000)])
    assert abs(share - 1 / (1 + np.exp(-2))) < 0.02
    assert list(session.stream([7], 5, choose=Sampler(1e-6, 0))) == session.generate([7], 5)[1:]
    with pytest.raises(UsageError, match="temperature is -1, must be above 0"):
        Sampler(-1, 0)


def test_top_k_and_top_p():
    # Shares 0.5, 0.25, 0.125, 0.125 at temperature 1, out of order.
    logits = np.rint(np.log([0.125, 0.5, 0.25, 0.125]) * 65536).astype(np.int64)

    def chosen(**options):
        sampler = Sampler(1.0, 7, **options)
        return [sampler(logits) for _ in range(400)]

    assert set(chosen()) == {0, 1, 2, 3}
    assert set(chosen(top_k=1)) == {1} and set(chosen(top_k=3)) == {0, 1, 2}
    assert set(chosen(top_p=0.4)) == {1} and set(chosen(top_p=0.7)) == {1, 2}
    assert set(chosen(top_p=0.8)) == {0, 1, 2}
    # Two thirds are the first's share of the best two.
    assert set(chosen(top_k=2, top_p=0.6)) == {1} and set(chosen(top_k=2, top_p=0.7)) == {1, 2}
    assert chosen(top_k=4) == chosen()  # the same seed, the same tokens
    assert abs(np.mean([t == 1 for t in chosen(top_k=2)]) - 2 / 3) < 0.07


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 0}, "top-k is 0, must be 1 or more"),
        ({"top_p": 0}, "top-p is 0, must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top-p is 1.5"),
    ],
)
def test_impossible_samplers(options, words):
    with pytest.raises(UsageError, match=words):
        Sampler(1.0, 1, **options)


def test_two_sessions_in_one_process(image):
    program = rf8.Program.load(image)
    with Session(program, "rtl") as one, Session(program, "rtl") as two:
        a, b = one.append([1]), two.append([2])
        assert not np.array_equal(a, b)
        assert (one.append([5]) == Session(program).forward([1, 5])[1] * 65536).all()
        two.reset()
        assert (two.append([1]) == a).all()


def test_context_limits(image):
    program = rf8.Program.load(image)
    session = Session(program)
    context = program.context
    assert context == 24
    assert len(session.generate(list(range(context)), 1)) == context + 1
    assert len(session.generate([1], context)) == context + 1
    for prompt, new in ((context + 1, 0), (context, 2), (1, context + 1)):
        with pytest.raises(UsageError, match="context"):
            session.generate([1] * prompt, new)
    with pytest.raises(UsageError, match="token 101 is not in the vocabulary, 0 to 100"):
        session.forward([5, 101])
    with pytest.raises(UsageError, match="token -1 is not in the vocabulary"):
        session.forward([-1])
    with pytest.raises(UsageError, match="prompt is empty"):
        session.forward([])
    with pytest.raises(UsageError, match="max-new-tokens is -1"):
        session.generate([1], -1)


def test_unknown_backend(image):
    with pytest.raises(UsageError, match="no backend 'gpu'; there are: golden, rtl, both"):
        Session(rf8.Program.load(image), "gpu")


def test_a_difference_is_found_and_located(image):
    program = rf8.Program.load(image)
    with Session(program, "both") as session:
        # Flip a bit of a weight in the RTL's memory only: the golden machine keeps its copy.
        start, data = program.sections["weights"]
        at = next(i for i in range(200, data.size) if data[i] & 7 in (0, 1) and data[i] > 64)
        session.machines["rtl"].memory[start + at] ^= 2
        where = r"byte \d+ at 0x\w+: expected \d+, found \d+ \(written in cycle \d+\); \d+ bytes"
        with pytest.raises(Mismatch, match=where):
            session.append([1])


def test_a_difference_in_the_cache_names_its_layer(image):
    program = rf8.Program.load(image)
    with Session(program, "both") as session:
        region = program.regions[2]
        session.machines["golden"].memory[region.address + 9] ^= 1
        where = r"layer 1, keys and values, byte 9 at 0x\w+: expected 1, found 0"
        with pytest.raises(Mismatch, match=where):
            session.append([1])


class Board:
    """A third machine, as a board would be one: it has a clock, and a memory of its own."""

    def __init__(self, memory, config, broken=None):
        self.memory, self._inside = memory, GoldenMachine(memory, config)
        self._broken, self.closed = broken, False

    def run(self, program, position=0, tokens=()):
        result = self._inside.run(program, position, tokens)
        if self._broken is not None:
            self.memory[self._broken] ^= 1
        return RunResult(result.error, result.error_address, {"cycles": 1000})

    def written_at(self, address):
        return 77 if address == self._broken else None

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_another_machine_plugs_in(image, backend):
    program = rf8.Program.load(image)
    expected = Session(program).forward([1, 2, 3])
    with Session(program, backend, machines={"board": Board}) as session:
        assert (session.forward([1, 2, 3]) == expected).all()
        session.check_memory()
        runs, written = session.stats.runs, sum(region.size for region in program.regions)
        assert session.stats.compared == runs * written and session.stats.differences == 0
        # Of two machines that count cycles the first is told of.
        told = session.stats.counters["cycles"] == 1000 * runs
        assert told == (backend == "golden")
        board = session.machines["board"]
    assert board.closed


def test_machines_that_end_differently_do_not_agree(image):
    class Stopped(Board):
        def run(self, program, position=0, tokens=()):
            super().run(program, position, tokens)
            return RunResult(ErrorCode.WATCHDOG, 0x40)

    program = rf8.Program.load(image)
    with Session(program, machines={"board": Stopped}) as session:
        ends = r"golden ended with NONE at 0x0, board with WATCHDOG at 0x40"
        with pytest.raises(Mismatch, match=ends):
            session.append([1])


def test_values_that_saturate_are_told_and_compared(image):
    class Counting(Board):
        def run(self, program, position=0, tokens=()):
            result = super().run(program, position, tokens)
            return replace(result, counters={"saturated": 7})

    class Saturated(GoldenMachine):
        def run(self, program, position=0, tokens=()):
            result = super().run(program, position, tokens)
            return replace(result, counters={**result.counters, "saturated": 7})

    program = rf8.Program.load(image)
    with Session(program, machines={"board": Counting}) as session:
        with pytest.raises(Mismatch, match="saturated: golden counted 0 values, board 7"):
            session.append([1])
        assert session.stats.saturated == 0
    with Session(program, "rtl", machines={"board": Board}) as session:
        session.append([1])
        assert session.stats.saturated == session.stats.counters["saturated"] == 0
        session.machines = {"a": Saturated(memory_image(program), program.config)}
        session.append([1])
        session.append([1])
        assert session.stats.saturated == session.stats.as_dict()["saturated"] == 14


def test_all_machines_are_closed_where_one_fails(image):
    class Stuck(Board):
        def close(self):
            super().close()
            raise OSError("stuck")

    boards = []

    def make(kind):
        return lambda *arguments: boards.append(kind(*arguments)) or boards[-1]

    session = Session(rf8.Program.load(image), machines={"a": make(Stuck), "b": make(Stuck)})
    with pytest.raises(OSError, match="stuck"):
        session.close()
    assert [board.closed for board in boards] == [True, True]


def test_a_closed_simulation_says_so(image):
    session = Session(rf8.Program.load(image), "rtl")
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.append([1])


def test_a_difference_of_another_machine_is_found_and_located(image):
    program = rf8.Program.load(image)
    region = program.regions[2]
    board = partial(Board, broken=region.address + 9)
    with Session(program, "both", machines={"board": board}) as session:
        where = (
            rf"layer 1, keys and values, byte 9 at {region.address + 9:#x}: expected 0, found 1 "
            r"\(written in cycle 77\); 1 bytes differ between golden and board"
        )
        with pytest.raises(Mismatch, match=where):
            session.append([1])
        assert session.stats.differences == 1
        with pytest.raises(Mismatch, match=r"differ, first at 0x.*, between golden and board"):
            session.check_memory()


def test_a_machine_that_cannot_be_made_closes_the_others(image):
    program, made = rf8.Program.load(image), []

    def board(memory, config):
        made.append(Board(memory, config))
        return made[0]

    def missing(memory, config):
        raise DataError("no such board")

    with pytest.raises(DataError, match="no such board"):
        Session(program, machines={"one": board, "two": missing})
    assert made[0].closed
    with pytest.raises(UsageError, match="there is a machine 'golden' already"):
        Session(program, machines={"golden": board})


def test_stray_writes_are_found_at_the_end(image):
    program = rf8.Program.load(image)
    with Session(program, "both") as session:
        session.append([1])
        session.check_memory()
        assert session.stats.compared == sum(region.size for region in program.regions)
        session.machines["rtl"].memory[program.sections["program"][0]] ^= 1
        with pytest.raises(Mismatch, match="1 bytes of memory differ, first at 0x"):
            session.check_memory()


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_a_position_past_the_context_stops_the_machine(image, backend):
    """The host checks it first; the machine must not depend on that."""
    program = rf8.Program.load(image)
    with Session(program, backend) as session:
        good = session.append([1])
        for position in (program.context, (1 << 24) - 1):
            with pytest.raises(MachineStopped, match=r"POSITION at 0x\w+ in w[tp]e: LOAD"):
                session.run_at(position, [1], True)
        with pytest.raises(MachineStopped, match=r"POSITION at 0x\w+ in w[tp]e: LOAD"):
            session.run_at(0, [program.vocab], True)
        session.reset()
        assert (session.append([1]) == good).all()


def weight_byte(program):
    """Address of a code of the last layer's first matrix."""
    matrix = next(
        i
        for at, i in program.instructions(program.entry(1, True).address)
        if i.opcode is Opcode.MATMUL and program.place(at)[1] == "h.1.attn.c_attn"
    )
    return matrix.address + 7 * program.config.rows


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_invalid_weight_stops_and_names_the_instruction(image, backend):
    program = rf8.Program.load(image)
    with Session(program, backend) as session:
        good = session.append([1])
        machine = session.machines[backend]
        at = weight_byte(program)
        before, machine.memory[at] = machine.memory[at], 0x87
        if backend == "golden":
            machine._kept.clear()
        session.reset()
        with pytest.raises(MachineStopped, match=r"INVALID_WEIGHT at 0x\w+ in .*: MATMUL"):
            session.append([1])
        machine.memory[at] = before
        session.reset()
        assert (session.append([1]) == good).all()


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_session_goes_on_after_an_error(image, backend):
    """It holds the tokens from before the failed call: no layer keeps a half of it."""
    program = rf8.Program.load(image)
    expected = Session(program).forward([3, 4, 5, 6, 7]) * 65536
    with Session(program, backend) as session:
        session.append([3, 4])
        machine = session.machines[backend]
        at = weight_byte(program)
        before, machine.memory[at] = machine.memory[at], 0x87
        if backend == "golden":
            machine._kept.clear()
        with pytest.raises(MachineStopped):
            session.append([5, 6, 7])
        assert session.position == 2
        machine.memory[at] = before
        assert (session.append([5, 6, 7]) == expected[2:]).all()


def test_span_and_size_are_checked(checkpoint):
    model = rf8.load_model(checkpoint)
    with pytest.raises(DataError, match="is a float model: quantise it first"):
        rf8.compile(model, config="tiny")
    with pytest.raises(DataError, match="span 16, config 'ecp5' has span 8: quantise it again"):
        rf8.compile(rf8.quantize(model), config="ecp5")
    with pytest.raises(ValueError, match="no config 'big'"):
        rf8.compile(rf8.quantize(model), config="big")
    narrow = CONFIGS["tiny"].replace(max_k=40)
    with pytest.raises(DataError, match="dot products of 50 elements, config 'tiny' does 40"):
        rf8.compile(rf8.quantize(model), config=narrow)
    small = CONFIGS["tiny"].replace(scratch_words=16)
    with pytest.raises(DataError, match="more than its 16: use a config with more scratch_words"):
        rf8.compile(rf8.quantize(model), config=small)
    wide = CONFIGS["sim"].replace(rows=32)
    with pytest.raises(DataError, match="need a bus of `rows` bytes, 32; this one has 64"):
        rf8.compile(rf8.quantize(model), config=wide)
    with pytest.raises(DataError, match="the context is 25, must be 1 to 24"):
        rf8.compile(rf8.quantize(model), context=25)


def test_results_in_many_chunks(checkpoint):
    model = rf8.quantize(rf8.load_model(checkpoint))
    small = CONFIGS["tiny"].replace(scratch_words=512)
    whole = Session(rf8.compile(model, config="tiny")).forward([1, 2, 3])
    assert (Session(rf8.compile(model, config=small)).forward([1, 2, 3]) == whole).all()


def test_the_machine_finds_the_likeliest_token():
    model = rf8.quantize(from_transformers(tiny_models.gpt2(vocab_size=900), "gpt2"))
    small = tiny_models.EIGHT.replace(scratch_words=256)  # not all logits find room at once
    for config, parts in ((CONFIGS["sim"], [0]), (small, [0, 432, 864])):
        program = rf8.compile(model, config=config, argmax=True)
        assert program.argmax == parts
        ids = [5, 600, 7, 8, 9, 10]
        expected = Session(rf8.compile(model, config=config)).generate(ids, 12)
        assert Session(program).generate(ids, 12) == expected
    with pytest.raises(UsageError, match="compiled with --argmax: it gives tokens and no logits"):
        Session(program).append([1])
    with pytest.raises(DataError, match="argmax needs a bus of 8 bytes"):
        rf8.compile(model, config="tiny", argmax=True)


def test_argmax_on_rtl(checkpoint):
    model = rf8.quantize(rf8.load_model(checkpoint), span=tiny_models.EIGHT.span)
    program = rf8.compile(model, config=tiny_models.EIGHT, argmax=True)
    with Session(program, "both", memory=STALLS) as session:
        session.generate([5, 6, 7, 8, 9], 3)
        session.check_memory()
        assert session.stats.differences == 0


def test_of_equal_logits_the_first_wins(checkpoint):
    model = rf8.quantize(rf8.load_model(checkpoint), span=CONFIGS["sim"].span)
    name = "wte.weight"
    codes, biases = model.tensors[name].codes, model.tensors[name].bias
    codes[:], biases[:] = codes[:1], biases[0]
    for argmax in (True, False):
        program = rf8.compile(model, config="sim", argmax=argmax)
        assert Session(program).next_token([3]) == 0
