"""Every port is described: name, direction and width in the docstring are those of the hardware."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from amaranth.hdl import Fragment, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import Signature

import hw
from golden.config import CONFIGS
from hw.control.entry import Entry
from hw.matrix.baselines import kind_of
from hw.matrix.baselines.two_term import FloatDecoder
from hw.matrix.decode import TwoTerm
from hw.matrix.drain import Drain

ROOT = Path(hw.__file__).parent
TINY = CONFIGS["tiny"]
ARGUMENTS = {
    "StreamQueue": (Entry, 4),
    "ReadAhead": (9,),
    "Row": (TwoTerm(TINY),),
    "Lane": (TwoTerm(TINY),),
    "VectorCoder": (16,),
    "VectorTables": (4,),
}
"""What components are made with that do not take a configuration."""

ENTRY = re.compile(r"((?:[\w*]+(?:, )?(?:\.\.\. )?)+) \((in|out)\b([^)]*(?:\([^)]*\))?[^)]*)\)")


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(["hw", *path.relative_to(ROOT).with_suffix("").parts])
        yield importlib.import_module(name.removesuffix(".__init__"))


def defined(kind):
    """All classes or functions of hw, each in the module that defines it."""
    return [
        member
        for module in modules()
        for _, member in inspect.getmembers(module, kind)
        if member.__module__ == module.__name__
    ]


COMPONENTS = [c for c in defined(inspect.isclass) if issubclass(c, wiring.Component)]
SIGNATURES = [
    f for f in defined(inspect.isfunction) if inspect.signature(f).return_annotation is Signature
]


def make(component):
    if component is Drain:
        return Drain(TINY, delay=1)
    if component is FloatDecoder:
        return kind_of("e4m3", rows=2, cols=1, act_bits=8, max_k=64, align=2).decoder()
    parameters = list(inspect.signature(component.__init__).parameters)[1:]
    return component(*ARGUMENTS.get(component.__name__, (TINY,) if parameters else ()))


def described(text, section):
    """Name -> (direction, what follows it in the brackets), of a section of a docstring."""
    parts = re.split(rf"\n{section}\n-+\n", inspect.cleandoc(text))
    assert len(parts) == 2, f"no section {section}"
    found = {}
    for names, direction, shape in ENTRY.findall(parts[1]):
        for name in names.replace("...", "").split(","):
            if name.strip():
                found[name.strip()] = direction, shape.lstrip(", ")
    return found


def check(members, found):
    wildcards = tuple(name.rstrip("*") for name in found if name.endswith("*"))
    for name, member in members.items():
        if (wildcards and name.startswith(wildcards)) or re.fullmatch(r"x\d+", name):
            continue
        assert name in found, f"{name} is not described"
        direction, shape = found[name]
        assert direction == member.flow.name.lower(), f"{name} is {member.flow.name}"
        assert shape, f"{name} has no width"
        if member.is_port and re.fullmatch(r"(signed )?\d+(, for each \w+)?", shape):
            wanted = Shape(int(re.search(r"\d+", shape)[0]), signed="signed" in shape)
            assert Shape.cast(member.shape) == wanted, f"{name} is {member.shape}"
        assert bool(member.dimensions) == ("for each" in shape), f"{name}: {member.dimensions}"
    extra = {name for name in found if not name.endswith("*")} - set(members)
    assert not {n for n in extra if not re.fullmatch(r"x\d+", n)}, f"no such ports: {extra}"


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: c.__qualname__)
def test_ports_are_described(component):
    part = make(component)
    Fragment.get(part, None)  # else it counts as forgotten
    check(part.signature.members, described(component.__doc__, "Ports"))


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_members_of_signatures_are_described(function):
    if "names and meaning are AXI's" not in function.__doc__:
        check(function(TINY).members, described(function.__doc__, "Members"))
