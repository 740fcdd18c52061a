"""Pictures of fits: a histogram of each matrix with its generalized Gaussian and a Gaussian."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rf8.files import replaced_folder
from rf8.gg.distribution import logpdf
from rf8.gg.fit import GGFit
from rf8.progress import Progress

BINS = 161
REACH = 6.0  # standard deviations to each side
PAGE = "fit.html"

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
td, th { padding: .15rem .6rem; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.plain { color: #b45309; }
figure { display: inline-block; margin: .5rem; max-width: 100%; }
img { max-width: 100%; background: white; border-radius: .3rem; }
"""


def write_report(
    folder: Path,
    title: str,
    fits: dict[str, GGFit],
    values: Callable[[str], NDArray[np.float32]],
    *,
    progress: Progress = lambda *_: None,
) -> None:
    """Write ``NAME.png`` for each fit and a self-contained ``fit.html`` into ``folder``.

    ``values`` gives a tensor's values by name, so that one is held at a time. The folder appears
    whole or not at all; only an earlier report is replaced.
    """
    with replaced_folder(folder, _is_report) as target:
        pictures: dict[str, bytes] = {}
        for number, (name, found) in enumerate(fits.items()):
            progress(name, number, len(fits))
            pictures[name] = _picture(name, found, values(name))
            (target / f"{name}.png").write_bytes(pictures[name])
        (target / PAGE).write_text(_page(title, fits, pictures))


def _is_report(folder: Path) -> bool:
    names = [entry.name for entry in folder.iterdir()]
    return PAGE in names and all(n == PAGE or n.endswith(".png") for n in names)


def _picture(name: str, found: GGFit, values: NDArray[np.float32]) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width = REACH * found.std
    edges = np.linspace(found.loc - width, found.loc + width, BINS + 1)
    counts, _ = np.histogram(values, edges)
    density = counts / (found.n * (edges[1] - edges[0]))
    x = (edges[1:] + edges[:-1]) / 2
    gaussian_scale = found.std * 2**0.5
    figure, axes = pyplot.subplots(figsize=(5.5, 3.2), layout="constrained")
    seen = density > 0
    axes.semilogy(x[seen], density[seen], ".", color="#64748b", markersize=4, label="weights")
    curve = np.exp(logpdf(x, found.shape, found.scale, found.loc))
    axes.semilogy(x, curve, color="#c2410c", label=f"GG, shape {found.shape:.3g}")
    curve = np.exp(logpdf(x, 2.0, gaussian_scale, found.loc))
    axes.semilogy(x, curve, "--", color="#2563eb", linewidth=1, label="Gaussian")
    axes.set_ylim(0.3 / (found.n * (edges[1] - edges[0])), None)
    axes.set_title(name, fontsize=9)
    axes.set_ylabel("density")
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return buffer.getvalue()


def as_row(found: GGFit) -> dict[str, Any]:
    """The figures of a fit that tables show; gains are differences of AIC per value, halved, so
    that they are in nats."""
    return found.as_dict() | {
        "std": found.std,
        "gain_over_gaussian": (found.gaussian_aic - found.aic) / (2 * found.n),
        "gain_over_laplace": (found.laplace_aic - found.aic) / (2 * found.n),
        "beats_gaussian": found.beats_gaussian,
    }


def _page(title: str, fits: dict[str, GGFit], pictures: dict[str, bytes]) -> str:
    rows, figures = [], []
    for name, found in fits.items():
        row, shown = as_row(found), html.escape(name)
        mark = "" if found.beats_gaussian else ' class="plain"'
        rows.append(
            f"<tr{mark}><td>{shown}<td>{found.n:,}<td>{found.shape:.4f} ± {found.shape_se:.4f}"
            f"<td>{found.scale:.4g}<td>{row['gain_over_gaussian']:.4f}"
            f"<td>{row['gain_over_laplace']:.4f}<td>{'yes' if found.beats_gaussian else 'no'}"
        )
        data = base64.b64encode(pictures[name]).decode()
        figures.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="Histogram of {shown} with its '
            f'generalized Gaussian of shape {found.shape:.3g}" loading="lazy"></figure>'
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>GG fits of {html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>Generalized-Gaussian fits of {html.escape(title)}</h1>"
        "<p>Gains are nats a weight by Akaike's criterion: above 0 the fit is the better "
        "description. Shape 2 is a Gaussian, 1 Laplace; errors assume independent weights.</p>"
        '<div class="wide"><table><tr><th>tensor<th>n<th>shape<th>scale<th>gain over Gaussian'
        f"<th>gain over Laplace<th>beats Gaussian</tr>{''.join(rows)}</table></div>"
        f"{''.join(figures)}</body></html>\n"
    )
