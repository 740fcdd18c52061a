"""The whole accelerator against the golden machine: programs, errors, resets.

The host writes registers over AXI4-Lite; the memory is a model of cocotbext-axi with random pauses
on every channel. After a run, all of the memory must be as the golden machine leaves it.
"""

from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiResp

from golden import isa
from golden.config import get_config
from golden.isa import ErrorCode, Flag, Instruction, Opcode
from golden.stream import stream_beats, tile_slices
from hw.top import Accelerator
from sim.benches.accelerator import HALT, MEMORY, WEIGHTS, Bench
from sim.benches.harness import Run, answer_errors_with, bench_test, watch_handshakes
from sim.benches.instructions import changed, illegal_instructions, last_address
from sim.benches.vectors import defined, random_vector

SMALL = get_config("tiny").replace(scratch_words=128, max_k=96)
CONFIGS = {
    config.name: config
    for config in (
        get_config("tiny"),
        SMALL.replace(name="one_bin", align=4, bus_bytes=8, act_bits=8, cols=1, burst_beats=16),
        SMALL.replace(name="wide_bus", align=0, span=8, bus_bytes=16, cols=3, addr_bits=20),
        SMALL.replace(name="eight_rows", align=3, span=12, rows=8, bus_bytes=8, fifo_beats=16),
        SMALL.replace(name="short_queue", align=1, span=10, act_bits=8, bus_bytes=8, queue=2),
    )
}
SHORT = [name for name, config in CONFIGS.items() if config.scratch_words == 128]  # for many runs
CONFIGURATIONS = f"{len(CONFIGS)} machines: 4 and 8 rows, 1 to 3 columns, 4 to 16 bus bytes"
PACES = [0, 0.3, 0.7]


def parts():
    return {name: Accelerator(config) for name, config in CONFIGS.items()}


@bench_test(limit=150_000, part=list(CONFIGS), pace=PACES)
async def random_programs(run: Run, pace: float) -> None:
    """Several programs, one after the other, without a reset."""
    bench = Bench(run, CONFIGS[run.part])
    await bench.start(pace)
    cocotb.start_soon(watch_handshakes(run, "m_axi_"))
    for _ in range(3):
        await bench.check_random(length=12)


@bench_test(limit=80_000, part=list(CONFIGS))
async def interleaved_memory(run: Run) -> None:
    """The memory mixes the beats of fetch, loads and weights, as AXI allows."""
    bench = Bench(run, CONFIGS[run.part])
    await bench.start(0.3, interleaved=True)
    await bench.check_random(length=16)


@bench_test(limit=60_000, part=list(CONFIGS))
async def many_small_tiles(run: Run) -> None:
    """Tiles of few slices: the array waits for its bins all the time."""
    bench = Bench(run, CONFIGS[run.part])
    author, config = bench.author, bench.config
    await bench.start()
    author.fill()
    most = config.scratch_words // 2 * config.results_per_word // config.rows
    program = list(author.all_columns(Opcode.LOAD))
    for k in (1, 2, 3, 5, 7, 11):
        program.append(author.matmul(k=k, tiles=min(most, 40)))
        words = program[-1].count * config.rows // config.results_per_word
        for column in range(program[-1].column):
            store = author.transfer(Opcode.STORE, count=words)
            program.append(replace(store, column=column, src=program[-1].dst))
    await bench.check_run(author.write([*program, HALT]))


@bench_test(limit=20_000, part=list(CONFIGS))
async def longest_dot_products(run: Run) -> None:
    """As many terms as the accumulators are made for."""
    bench = Bench(run, CONFIGS[run.part])
    author, config = bench.author, bench.config
    await bench.start(0.1)
    author.fill()
    room = config.scratch_words - isa.block_words(config.max_k, config)
    tiles = min(2, room * config.results_per_word // config.rows)
    assert tiles, "no room for results beside the longest activations"
    matmul = replace(author.matmul(k=config.max_k, tiles=tiles), column=config.cols)
    program = [*author.all_columns(Opcode.LOAD), matmul, *author.all_columns(Opcode.STORE), HALT]
    await bench.check_run(author.write(program))


REGISTERS_AT_REST = [
    *("STATUS", "ERROR_ADDRESS", "PROGRAM", "WATCHDOG", "INTERRUPT"),
    *("POSITION", "TOKEN_COLUMN", "TOKEN"),
]


@bench_test(limit=80_000, part=list(CONFIGS))
async def reset_under_way(run: Run) -> None:
    """A reset at any time leaves a machine that works; registers are as after power-up."""
    bench = Bench(run, CONFIGS[run.part])
    await bench.start(0.2)
    for _ in range(8):
        await bench.begin(bench.random_program(6))
        await ClockCycles(run.dut.clk, int(run.rng.integers(20, 1200)))
        await run.reset()
        for name in REGISTERS_AT_REST:
            run.check(await bench.host.read(name), 0, f"{name} after the reset")
        await bench.host.write("INTERRUPT", 1)
    await bench.check_random(length=6)


@bench_test(limit=80_000, part=list(CONFIGS))
async def illegal_instruction(run: Run) -> None:
    """Each stops the machine, with its address; what comes before it is done, and no more."""
    bench = Bench(run, CONFIGS[run.part])
    author, slot = bench.author, bench.config.slot_bytes
    await bench.start()
    # All of them are for the bench of the fetch.
    words = list(illegal_instructions(bench.config))
    for index in run.rng.permutation(len(words))[:40].tolist():
        broken = words[index]
        author.fill()
        before = int(run.rng.integers(0, 3))
        good = [author.transfer(Opcode.LOAD, count=2) for _ in range(before)]
        program = author.write([*good, HALT, HALT])
        place = program + before * slot
        bench.memory.bytes[place : place + 32] = np.frombuffer(broken, np.uint8)
        want = await bench.check_run(program)
        run.check(want.error, ErrorCode.ILLEGAL_INSTRUCTION, f"{broken.hex()} in the golden model")
        run.check(want.error_address, place, f"{broken.hex()} in the golden model")
    await bench.check_random(length=4)


@bench_test(limit=400_000, part=list(CONFIGS))
async def nearly_legal_instructions(run: Run) -> None:
    """One random field of a legal instruction changed: both machines judge it alike."""
    bench = Bench(run, CONFIGS[run.part])
    author, config = bench.author, bench.config
    await bench.start()
    # Any address may become a weight stream: let all of the memory hold valid codes.
    bench.memory.bytes[:] = run.rng.choice(author.codes, MEMORY)
    await bench.check_run(author.write([*author.known(), HALT]))
    seen = dict.fromkeys(ErrorCode, 0)
    for number in range(60):
        author.free = WEIGHTS
        author.settle()
        match number % 5:
            case 0:
                good = replace(author.matmul(tiles=1), src=0, dst=config.scratch_words // 2)
            case 1:
                good = author.transfer(Opcode.LOAD if run.rng.random() < 0.5 else Opcode.STORE)
            case 2:
                good = author.indexed(Opcode.LOAD if run.rng.random() < 0.5 else Opcode.STORE)
            case 3:
                good = author.lengths()
            case _:
                good = random_vector(run.rng, config, author.position)
        word = changed(run.rng, good, config)
        if not has_outcome(word, bench):
            continue
        program = author.write([HALT, HALT])
        bench.memory.bytes[program : program + 32] = np.frombuffer(word, np.uint8)
        want = await bench.check_run(program)
        seen[want.error] += 1
        if want.error in (ErrorCode.ILLEGAL_INSTRUCTION, ErrorCode.POSITION):
            await bench.check_run(author.write([*author.registers(), HALT]))
        elif want.error != ErrorCode.NONE:
            await bench.check_run(author.write([*author.known(), HALT]))
    assert seen[ErrorCode.NONE] and seen[ErrorCode.ILLEGAL_INSTRUCTION], seen


def has_outcome(word: bytes, bench: Bench) -> bool:
    """Whether it is defined what the instruction does."""
    try:
        i = isa.decode(word)
        isa.check(i, bench.config)
    except isa.IllegalInstruction:
        return True
    if i.opcode is Opcode.VECTOR:
        return defined(i, bench.config)
    author = bench.author
    last = last_address(i, author.position, author.tokens, bench.config)
    return last < 1 << bench.config.addr_bits


@bench_test(limit=80_000, part=list(CONFIGS))
async def too_far(run: Run) -> None:
    """The last position and the last token that an instruction has room for, and the next."""
    bench = Bench(run, CONFIGS[run.part])
    author, config, rng = bench.author, bench.config, run.rng
    await bench.start()
    await bench.check_run(author.write([*author.known(), HALT]))
    for number in range(36):
        author.fill()
        position, column = int(rng.integers(0, 40)), int(rng.integers(1, config.cols + 1))
        author.position, author.tokens = position, [int(rng.integers(50)) for _ in author.tokens]
        match number % 6:
            case 0:
                limited = replace(author.transfer(Opcode.LOAD, count=2), flags=Flag.LENGTH)
                author.position = 2 * config.results_per_word - limited.column - 1
            case 1 | 2:
                flag = (Flag.LENGTH, Flag.LENGTH_K)[number % 6 - 1]
                tiles = 2 * column if flag is Flag.LENGTH else 1
                author.position = (config.rows * tiles if flag is Flag.LENGTH else 48) - column
                i = Instruction(opcode=Opcode.MATMUL, column=column, count=tiles, k=48, flags=flag)
                limited = author.product(i)
            case 3 | 4:
                limited = author.indexed(Opcode.LOAD if number % 6 == 3 else Opcode.STORE)
                index = author.position + limited.column
                if limited.flags & Flag.TOKEN:
                    index = author.tokens[limited.column]
                limited = replace(limited, immediate=index + 1)
            case _:
                limited = replace(
                    random_vector(rng, config, position), flags=Flag.LENGTH, column=column,
                    segments=1, count=position + column, k=2,
                    function=isa.Function.RELU, after=isa.After.NONE, output=isa.Output.NONE, src=0,
                )  # fmt: skip
        good = [author.transfer(Opcode.LOAD, count=2) for _ in range(int(rng.integers(0, 3)))]
        program = author.write([*good, limited, HALT])
        want = await bench.check_run(program)
        run.check(want.error, ErrorCode.NONE, f"{limited} in the golden model")
        author.position += 1
        author.tokens = [token + 1 for token in author.tokens]
        want = await bench.check_run(program)
        run.check(want.error, ErrorCode.POSITION, f"{limited} in the golden model")
        place = program + len(good) * config.slot_bytes
        run.check(want.error_address, place, f"{limited} in the golden model")
    # What is illegal and too far is illegal.
    both = Instruction(opcode=Opcode.LOAD, flags=Flag.LENGTH, address=1, count=1)
    author.position = 1000
    want = await bench.check_run(author.write([both, HALT]))
    run.check(want.error, ErrorCode.ILLEGAL_INSTRUCTION, "in the golden model")
    await bench.check_random(length=4)


@bench_test(limit=80_000, part=SHORT)
async def invalid_weight(run: Run) -> None:
    """One bad byte anywhere among the codes of a stream stops the machine at its MATMUL."""
    bench = Bench(run, CONFIGS[run.part])
    author, config, memory = bench.author, bench.config, bench.memory.bytes
    bad = np.setdiff1d(np.arange(256), author.codes)
    await bench.start(0.2)
    for _ in range(12):
        author.fill()
        program = [*author.all_columns(Opcode.LOAD), author.matmul(), author.matmul(), HALT]
        victim = program[-2 - int(run.rng.integers(2))]
        slices = tile_slices(victim.k, victim.flags, config)
        tile, k = int(run.rng.integers(victim.count)), int(run.rng.integers(1, victim.k + 1))
        row = int(run.rng.integers(config.rows))
        place = victim.address + ((tile + 1) * slices - k) * config.rows + row
        memory[place] = run.rng.choice(bad)
        want = await bench.check_run(author.write(program))
        run.check(want.error, ErrorCode.INVALID_WEIGHT, "error of the golden model")
    await bench.check_random(length=4)


@bench_test(limit=200_000, part=SHORT, response=[AxiResp.SLVERR, AxiResp.DECERR])
async def memory_errors(run: Run, response: AxiResp) -> None:
    """A word that the memory refuses stops the machine at the instruction that needs it."""
    bench = Bench(run, CONFIGS[run.part])
    author, config, broken = bench.author, bench.config, bench.memory.broken
    await bench.start(0.2)
    answer_errors_with(bench.reads.r_channel, response)
    answer_errors_with(bench.writes.b_channel, response)
    for unit in ("fetch", "load", "weights", "store") * 3:
        author.fill()
        program = [
            author.transfer(Opcode.LOAD),
            *author.all_columns(Opcode.LOAD),
            author.matmul(),
            # Away from what is loaded, which must not fail.
            replace(author.transfer(Opcode.STORE, count=20), address=0xC000),
            HALT,
        ]
        start = author.write(program)
        at = {"fetch": int(run.rng.integers(len(program))), "load": 0, "weights": -3, "store": -2}
        index = at[unit] % len(program)
        if unit == "fetch":
            address, size = start + index * config.slot_bytes, config.slot_bytes
        elif unit == "weights":
            address = program[index].address
            size = stream_beats(program[index], config) * config.bus_bytes
        else:
            address, size = program[index].address, program[index].count * config.bus_bytes
        broken[address + int(run.rng.integers(size))] = True
        await bench.begin(start)
        want = ErrorCode.BUS_WRITE if unit == "store" else ErrorCode.BUS_READ
        got = await bench.stopped()
        run.check(got, [want, start + index * config.slot_bytes], f"error and address, {unit}")
        broken[:] = False
        await bench.check_random(length=1)


@bench_test(limit=120_000, part=SHORT)
async def stores_before_an_error(run: Run) -> None:
    """STOREs that wait for the bus when a later instruction fails are finished; one that the memory
    refuses comes first."""
    bench = Bench(run, CONFIGS[run.part])
    author, config, memory = bench.author, bench.config, bench.memory
    await bench.start(0.3)
    answer_errors_with(bench.writes.b_channel, AxiResp.SLVERR)
    for name in ("aw", "w"):
        bench.channels[name].set_pause_generator(run.stalls(0.8, 6))
    bad = np.setdiff1d(np.arange(256), author.codes)
    await bench.check_run(author.write([*author.known(), HALT]))
    for number in range(8):
        author.fill()
        matmul = replace(author.matmul(k=3, tiles=1), dst=config.scratch_words // 2, src=0)
        kind, refused = number % 4, number >= 4
        if kind == 0:
            memory.bytes[matmul.address + config.rows :][: 3 * config.rows] = run.rng.choice(bad)
            last = replace(matmul, flags=0)
        elif kind == 1:
            last = replace(matmul, k=0)
        elif kind == 2:
            author.position = 50
            last = replace(matmul, flags=Flag.LENGTH, column=1)
        else:
            last = replace(HALT, opcode=Opcode.FENCE)
        stores = [author.transfer(Opcode.STORE, count=40) for _ in range(3)]
        stores = [replace(s, address=0xC000 + 0x400 * n) for n, s in enumerate(stores)]
        program = [*stores, *([matmul] if run.rng.random() < 0.5 and kind else []), last, HALT]
        start = author.write(program)
        if refused:
            victim = int(run.rng.integers(3))
            memory.broken[stores[victim].address + 20 * config.bus_bytes] = True
            await bench.begin(start)
            got = await bench.stopped()
            want = [ErrorCode.BUS_WRITE, start + victim * config.slot_bytes]
            run.check(got, want, "error and address of the STORE")
            memory.broken[:] = False
            await bench.check_run(author.write([*author.known(), HALT]))
            continue
        before = memory.bytes.view("<u4").copy()
        want = await bench.check_run(start)
        codes = [ErrorCode.INVALID_WEIGHT, ErrorCode.ILLEGAL_INSTRUCTION, ErrorCode.POSITION]
        run.check(want.error, [*codes, ErrorCode.NONE][kind], "error in the golden model")
        bench.check_memory(before)
        await bench.check_run(author.write([*author.known(), HALT]))


@bench_test(limit=60_000, part=list(CONFIGS))
async def beyond_the_memory(run: Run) -> None:
    """Programs, data and weights that run past the end of the memory, as the golden model says."""
    bench = Bench(run, CONFIGS[run.part])
    author, config = bench.author, bench.config
    await bench.start()
    last = MEMORY - config.bus_bytes
    valid = author.weights(3, 1, bias=False)[: config.bus_bytes]
    for instruction in (
        replace(author.transfer(Opcode.LOAD, count=3), address=last),
        replace(author.transfer(Opcode.STORE, count=3), address=last),
        replace(author.matmul(k=60, tiles=1), address=last),
        replace(author.transfer(Opcode.LOAD, count=3), address=MEMORY),
        replace(author.transfer(Opcode.STORE, count=1), address=MEMORY),
    ):
        bench.memory.bytes[last:] = np.frombuffer(valid, np.uint8)
        want = await bench.check_run(author.write([instruction, HALT]))
        run.check(want.error != ErrorCode.NONE, True, f"{instruction} fails in the golden model")
    # A program without an end.
    slots = 3
    start = MEMORY - slots * config.slot_bytes
    fences = isa.encode_program([Instruction(opcode=Opcode.FENCE)] * slots, config)
    bench.memory.bytes[start:] = np.frombuffer(fences, np.uint8)
    want = await bench.check_run(start)
    run.check(want.error_address, MEMORY, "address in the golden model")
    await bench.check_random(length=4)


@bench_test(limit=120_000, part=SHORT)
async def watchdog(run: Run) -> None:
    """A channel of the memory falls silent. The machine gives up, waits until the bus has answered
    what it owes, and stops; then it works again."""
    bench = Bench(run, CONFIGS[run.part])
    author, config, dut = bench.author, bench.config, run.dut
    await bench.start()
    # Longer than a VECTOR may compute without reading or writing.
    await bench.host.write("WATCHDOG", 300)
    # The channel, the read client whose beats must have come before, and who is stuck then.
    for silent, client, stuck in (
        ("ar", "", 0),
        ("r", "", 0),
        ("r", "load", 1),
        ("r", "weights", 3),
        ("aw", "", 4),
        ("w", "", 4),
        ("b", "", 4),
    ):
        author.fill()
        program = [
            author.transfer(Opcode.LOAD, count=1),
            author.transfer(Opcode.LOAD, count=100),
            Instruction(opcode=Opcode.FENCE),
            author.matmul(k=60, tiles=7),
            author.transfer(Opcode.STORE, count=30),
            HALT,
        ]
        start = author.write(program)
        if not client:
            bench.channels[silent].pause = True
        await bench.begin(start)
        if client:
            await bench.beats_of(client, 10)
            bench.channels[silent].pause = True
        # Programs as short as this take less than 1000 cycles, the watchdog not included.
        await ClockCycles(dut.clk, 1800)
        run.check(int(dut.irq.value), 0, f"interrupt while {silent} is silent")
        run.check(await bench.host.read("STATUS"), 0x501 | 4, "STATUS while a word is owed")
        bench.channels[silent].pause = False
        got = await bench.stopped()
        if stuck == 4 and got[1] == start + 5 * config.slot_bytes:
            stuck = 5  # all that the STORE sends is in its buffer: HALT waits for its end
        want = [ErrorCode.WATCHDOG, start + stuck * config.slot_bytes]
        run.check(got, want, f"error and address, {silent} silent after {client or 'the start'}")
        await bench.check_random(length=2)


@bench_test(limit=300_000, part=["one_bin", "wide_bus"])
async def abort(run: Run) -> None:
    """The host stops the machine, in any cycle of a program; the next run is right."""
    bench = Bench(run, CONFIGS[run.part])
    author, dut = bench.author, run.dut
    await bench.start()
    await bench.check_random(length=1)  # both scratchpads are now alike
    author.fill()
    matmul = author.matmul(k=2, tiles=1)
    words = bench.config.rows // bench.config.results_per_word
    store = replace(author.transfer(Opcode.STORE, count=words), column=0, src=matmul.dst)
    load = author.transfer(Opcode.LOAD, count=1)
    program = [load, Instruction(opcode=Opcode.FENCE), matmul, store, HALT]
    start = author.write(program)
    places = [start + index * bench.config.slot_bytes for index in range(len(program))]
    seen = []
    for delay in range(1000):
        await bench.begin(start)
        await ClockCycles(dut.clk, delay + 1)
        write = cocotb.start_soon(bench.host.write("CONTROL", 2))
        await RisingEdge(dut.s_axi_wvalid)
        await ClockCycles(dut.clk, 2)  # it is taken, then done
        late = bool(int(dut.irq.value))
        await write
        code, address = await bench.stopped()
        run.check(code, ErrorCode.NONE if late else ErrorCode.ABORTED, f"error, delay {delay}")
        if late:
            break
        seen.append(address)
        if delay % 4 == 0:
            await bench.check_run(start)
    run.check(late, True, "the last program was let finish")
    run.check(np.unique(seen), places, "addresses that were stopped at")
    run.check(seen, np.sort(seen), "addresses in the order of the program")


@bench_test(limit=20_000, part=SHORT, unit=["ar", "aw"])
async def abort_begins_nothing(run: Run, unit: str) -> None:
    """After an abort, bursts that were on their way to the bus come through, and no others."""
    bench = Bench(run, CONFIGS[run.part])
    author, dut = bench.author, run.dut
    await bench.start(0.5)
    cocotb.start_soon(watch_handshakes(run, "m_axi_"))
    author.fill()
    transfer = author.transfer(Opcode.LOAD if unit == "ar" else Opcode.STORE, count=120)
    start = author.write([transfer, HALT])
    bursts = 0

    async def watch() -> None:
        nonlocal bursts
        while True:
            await RisingEdge(dut.clk)
            valid, ready = getattr(dut, f"m_axi_{unit}valid"), getattr(dut, f"m_axi_{unit}ready")
            bursts += int(valid.value) and int(ready.value)

    await bench.begin(start)
    await RisingEdge(dut.m_axi_awvalid if unit == "aw" else dut.m_axi_rvalid)
    await ClockCycles(dut.clk, 50)
    await bench.host.write("CONTROL", 2)
    cocotb.start_soon(watch())
    got = await bench.stopped()
    run.check(got, [ErrorCode.ABORTED, start], "error and address")
    run.check(bursts <= 1, True, "at most the burst whose address was already there")
    await bench.check_random(length=2)
