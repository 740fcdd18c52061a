"""The generalized-Gaussian (GG) toolkit.

Source: "It Takes a Good Model to Train a Good Model: Generalized Gaussian Priors for Optimized
LLMs", arXiv 2506.00486.
"""

from rf8.gg.backslash import BackSlash
from rf8.gg.distribution import cdf, logpdf, ppf, sample
from rf8.gg.fit import GGFit, fit
from rf8.gg.init import WRITERS, gg_, gg_gain, gg_scale, init_model_

__all__ = [
    "WRITERS",
    "BackSlash",
    "GGFit",
    "cdf",
    "fit",
    "gg_",
    "gg_gain",
    "gg_scale",
    "init_model_",
    "logpdf",
    "ppf",
    "sample",
]
