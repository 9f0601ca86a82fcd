"""How every figure looks and is saved: column widths of a paper, embedded fonts, colours that all can tell apart."""

import io
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from PIL import Image

from analysis.formats import SYNTHETIC
from analysis.places import make_folder
from taghead.files import written_whole

COLUMN = 3.3  # inches: one column of a two-column paper
PAGE = 6.9  # inches: both columns
# Okabe and Ito's colours, which people with colour-vision deficiencies can tell apart
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DASHES = ("-", "--", ":", "-.")

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # labels are the user's: a $ in them is a dollar
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType, which publishers' checks ask for
    "svg.fonttype": "path",
    "svg.hashsalt": "taghead",  # the same figure has the same bytes
}
# no dates and no versions in a file: the same figure has the same bytes
METADATA: dict[str, dict[str, Any]] = {
    "png": {},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Lets a ``draw_`` function draw in the one style, without touching matplotlib's global state."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float, *, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure and its panels, row by row; call it inside a `styled` function.

    Args:
        width: Inches, `COLUMN` or `PAGE`.
        height: Inches.
        columns: Panels side by side.
        rows: Panels above each other.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def stamp(figure: Figure, *, synthetic: bool) -> Figure:
    """Says on the figure itself that its data is synthetic, where it is."""
    if synthetic:
        figure.suptitle(SYNTHETIC, fontsize=6, color="#a33", fontweight="bold")
    return figure


def to_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as a file of one kind, the same bytes each time.

    Args:
        figure: What to render.
        kind: ``png``, ``pdf`` or ``svg``.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # `undrawn` tells it in words
        if kind == "png":
            return _png(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=METADATA[kind])
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    """In 256 colours: a third of the size, and no difference to see."""
    figure.set_dpi(mpl.rcParams["savefig.dpi"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


def undrawn(figure: Figure) -> str:
    """The characters of a figure's texts that their fonts lack, in order: they are drawn as empty boxes.

    Args:
        figure: Any.
    """
    lacking = set()
    for text in figure.findobj(Text):
        glyphs = get_font(findfont(text.get_fontproperties())).get_charmap()
        lacking |= {one for one in text.get_text() if one.isprintable() and ord(one) not in glyphs}
    return "".join(sorted(lacking))


def save(figure: Figure, folder: Path, name: str, *, kinds: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Writes ``<folder>/<name>.<kind>`` for each kind, each file whole.

    Args:
        figure: What to save.
        folder: Made if it is not there.
        name: The files' stem.
        kinds: Any of ``png``, ``pdf``, ``svg``.
    """
    make_folder(folder)
    paths = [folder / f"{name}.{kind}" for kind in kinds]
    for path, kind in zip(paths, kinds, strict=True):
        with written_whole(path) as beside:
            beside.write_bytes(to_bytes(figure, kind))
    return paths
