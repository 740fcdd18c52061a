"""RF8: run language models in an 8-bit format whose multiplications are shifts and one add.

>>> import rf8
>>> model = rf8.quantize(rf8.load_model("openai-community/gpt2"))  # doctest: +SKIP
>>> program = rf8.compile(model, config="sim")                     # doctest: +SKIP
>>> rf8.Session(program, backend="golden").generate([464], 8)      # doctest: +SKIP
"""

from rf8 import quantize
from rf8.checkpoint.load import load_model
from rf8.checkpoint.model import Model
from rf8.compiler.driver import compile
from rf8.errors import DataError, MachineStopped, Mismatch, UsageError
from rf8.program.image import Program
from rf8.quantize import sqnr_db
from rf8.runtime.session import Session

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "MachineStopped",
    "Mismatch",
    "Model",
    "Program",
    "Session",
    "UsageError",
    "compile",
    "load_model",
    "quantize",
    "sqnr_db",
]
