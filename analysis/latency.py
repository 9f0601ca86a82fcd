"""Speed as measured: latency, clips a second and memory of each backbone bare and with the head; accuracy over latency.

Reads what ``taghead speed --out results/speed.json`` wrote. Command: ``taghead-analysis latency [STUDY]``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import cells
from analysis.efficiency import draw_points, front_note, legend_below, measured_cells
from analysis.figure import COLUMN, PAGE, PALETTE, new_figure, stamp, styled
from analysis.formats import Table
from analysis.places import slug
from studies.plan import Plan
from taghead.backbones.own import is_own
from taghead.config import HeadConfig
from taghead.speed import MEMORY, NUM_CLASSES, Part, Speed, Subject, read_speed, subject_of

FILE = "speed.json"  # in the results folder
FEW_TURNS = 20  # with fewer, the 95th percentile lies between the two slowest
BARE, WITH_HEAD = "bare", "with head"
LOOKS: dict[str, dict[str, Any]] = {BARE: {"color": PALETTE[5]}, WITH_HEAD: {"color": PALETTE[0]}}
SETTING = ["device", "threads", "torch", "precision"]
CLIP = ["backbone", "frames", "pixels", "batch"]
COLUMNS = [
    *SETTING, *CLIP, "head", "changes", "turns", "median_ms", "p95_ms", "low_ms", "high_ms", "clips_per_second",
    "peak_memory_mb", "ratio", "load", "error",
]  # fmt: skip
HEADER = ("", "frames x pixels", "batch", "median, ms", "95 %, ms", "clips a second", "peak memory, MB", "ratio")


def read(results: Path) -> Speed | None:
    """What was measured beside a results folder's trials; None where nothing was.

    Args:
        results: The results folder.

    Raises:
        InputError: The file is damaged, or a newer version wrote it.
    """
    path = results / FILE
    return read_speed(path) if path.exists() else None


def latency_data(speed: Speed) -> pd.DataFrame:
    """One row a measured part.

    Args:
        speed: As from `read`.

    Returns:
        The columns `COLUMNS`. ``head`` is `BARE` (mean pool and linear classifier) or `WITH_HEAD`; ``changes`` are the
        head's fields that differ from their defaults, as ``--set`` takes them. Milliseconds are of a whole batch, over
        the turns: median, 95th percentile, and the median's interval ``low_ms`` to ``high_ms`` (see `_notch`).
        ``peak_memory_mb`` is in 10^6 bytes, NaN where it was not to be had. ``ratio`` is the median with head over that
        of the bare backbone at the same setting, clips and batch; NaN for the bare one, and where that was not
        measured. ``load``: see `taghead.speed.Part`.
    """
    known = {(part.setting, part.subject): part for part in speed.parts}
    rows = []
    for (setting, subject), part in known.items():
        bare = known.get((setting, subject.model_copy(update={"head": None})))
        memory = part.peak_memory_bytes
        rows.append(
            (
                *(getattr(setting, name) for name in SETTING),
                subject.backbone,
                subject.num_frames,
                subject.crop_size,
                subject.batch_size,
                BARE if subject.head is None else WITH_HEAD,
                " ".join(_changes(subject.head)),
                len(part.seconds),
                *(1000 * value for value in (part.median, part.p95, *_notch(part))),
                part.clips_per_second,
                np.nan if memory is None else memory / 1e6,
                part.median / bare.median if bare and subject.head is not None else np.nan,
                np.nan if part.load is None else part.load,
                part.error or "",
            )
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _notch(part: Part) -> tuple[float, float]:
    """The notch of a box plot, median ± 1.57 times the quartiles' distance / sqrt(n): two apart are two medians."""
    if not part.seconds:
        return float("nan"), float("nan")
    low, high = np.percentile(part.seconds, [25, 75])
    half = 1.57 * (high - low) / np.sqrt(len(part.seconds))
    return part.median - half, part.median + half


def _changes(head: HeadConfig | None) -> list[str]:
    """The fields of a head that differ from their defaults, as words of ``taghead speed``."""
    if head is None:
        return []
    known, own = HeadConfig().model_dump(), head.model_dump()
    return [f"--set head.{name}={_text(value)}" for name, value in own.items() if value != known[name]]


def _text(value: Any) -> str:
    return (",".join(value) or "none") if isinstance(value, tuple | list) else str(value)


def command(subject: Subject, *, results: Path) -> str:
    """The command that measures a subject, bare and with its head.

    Args:
        subject: What.
        results: The results folder.
    """
    words = ["taghead speed", "--out", str(results / FILE), "--backbones", subject.backbone]
    words += ["--frames", str(subject.num_frames), "--size", str(subject.crop_size), "--batch", str(subject.batch_size)]
    return " ".join([*words, *_changes(subject.head)])


def latency_tables(speed: Speed) -> Iterator[Table]:
    """A table a setting: numbers of different devices, threads or precisions are never in one.

    Args:
        speed: As from `read`.
    """
    data = latency_data(speed)
    for number, (setting, group) in enumerate(data.groupby(SETTING, sort=False)):
        order = group.sort_values(["frames", "pixels", "batch"], kind="stable")
        rows = tuple(_texts(row) for row in order.itertuples())
        device, threads, torch, precision = setting
        title = f"Latency of a batch's forward pass on {device}, {_threads(threads)}, torch {torch}, {precision}"
        yield Table(f"latency_{number + 1}", title, HEADER, rows, order, tuple(notes(order)))


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _texts(row: Any) -> tuple[str, ...]:
    head = "" if row.head == BARE else " + TAG-Head"
    changes = f" ({row.changes.replace('--set head.', '').replace(' ', ', ')})" if row.changes else ""
    clip = (f"{row.backbone}{head}{changes}", f"{row.frames} x {row.pixels}", str(row.batch))
    if row.error:
        return (*clip, row.error, "-", "-", "-", "-")
    return (
        *clip,
        f"{row.median_ms:,.1f}",
        f"{row.p95_ms:,.1f}",
        f"{row.clips_per_second:,.1f}" if row.clips_per_second >= 10 else f"{row.clips_per_second:.2g}",
        "-" if np.isnan(row.peak_memory_mb) else f"{row.peak_memory_mb:,.0f}",
        "-" if np.isnan(row.ratio) else f"{row.ratio:.2f}",
    )


def notes(data: pd.DataFrame) -> list[str]:
    """How the numbers were taken, and which of them say little.

    Args:
        data: The rows of one setting of `latency_data`.
    """
    kind = "cpu" if data["device"].iloc[0].startswith("cpu") else "cuda"
    turns = data.loc[data["error"] == "", "turns"]
    said = [
        f"bare: mean pool and linear classifier ({NUM_CLASSES} classes) on the backbone. ratio: median with head over "
        "that of the bare backbone. Random clips that lie on the device; decoding is not in it.",
    ]
    if data["peak_memory_mb"].notna().any():
        said.append(f"Peak memory: {MEMORY[kind]}.")
    else:
        said.append("Peak memory: not to be had on this device.")
    if len(turns) and turns.min() < FEW_TURNS:
        said.append(f"The 95 % columns are of {_range(turns)} turns: they lie between the slowest two.")
    busy = data["load"] > data["threads"] + 1
    if busy.any():
        said.append(
            f"The machine was busy before {busy.sum()} of {len(data)} measurements (load up to "
            f"{data['load'].max():.1f}, with {_threads(data['threads'].iloc[0])} of ours): their times are those of a "
            "shared machine."
        )
    measured = data[data["ratio"].notna()]
    unclear = [row for row in measured.itertuples() if _overlaps(row, data)]
    if (below := measured["ratio"] < 1).any():
        said.append(
            f"The head only adds work: the ratios below 1 ({below.sum()}) are the machine's drift between the two."
        )
    if unclear:
        which = ", ".join(f"{row.backbone} at batch {row.batch}" for row in unclear)
        said.append(
            f"In {len(unclear)} of {len(measured)} ratios the turns vary too much to tell bare from with head "
            f"(notches, the median ± 1.57 times the quartiles' distance / sqrt(turns), overlap): {which}."
        )
    return said


def _range(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _overlaps(row: Any, data: pd.DataFrame) -> bool:
    same = np.logical_and.reduce([data[name] == getattr(row, name) for name in CLIP])
    bare = data[same & (data["head"] == BARE)].iloc[0]
    return bool(row.low_ms <= bare["high_ms"] and bare["low_ms"] <= row.high_ms)


def latency_figures(speed: Speed) -> Iterator[tuple[str, pd.DataFrame, Figure]]:
    """A figure for each setting and size of clips, of the head with default fields or else of the first one measured.

    Args:
        speed: As from `read`.

    Yields:
        The file's stem, the rows of `latency_data`, the figure.
    """
    data = latency_data(speed)
    there = data[data["error"] == ""]
    for number, (_, group) in enumerate(there.groupby([*SETTING, "frames", "pixels"], sort=False)):
        heads = group.loc[group["head"] == WITH_HEAD, "changes"]
        shown = "" if heads.empty or (heads == "").any() else heads.iloc[0]
        rows = group[(group["head"] == BARE) | (group["changes"] == shown)]
        yield f"latency_{number + 1}", rows, draw_latency(rows)


@styled
def draw_latency(data: pd.DataFrame) -> Figure:
    """A panel a batch size: the median of each backbone bare and with head as bars, its 95th percentile as whisker.

    Args:
        data: Of one setting and one size of clips of `latency_data`.
    """
    batches = sorted(data["batch"].unique())
    backbones = list(dict.fromkeys(data["backbone"]))
    figure, axes = new_figure(PAGE, 0.8 + 0.33 * len(backbones), columns=len(batches))
    for axis, batch in zip(axes, batches, strict=True):
        _draw_bars(axis, data[data["batch"] == batch], backbones)
        axis.set_xlabel(f"ms a batch of {batch}" if batch > 1 else "ms a clip, batch of 1")
    for axis in axes[1:]:
        axis.set_yticklabels([])
    first, changes = data.iloc[0], data["changes"].max().replace("--set ", "")
    told = (f"{first['frames']} x {first['pixels']}", first["device"], _threads(first["threads"]), first["precision"])
    figure.suptitle(", ".join([*told, *([changes] if changes else [])]), fontsize=7)
    handles: list[Any] = [axes[0].barh([0], [0], label=f"{name}, median", **look) for name, look in LOOKS.items()]
    handles += axes[0].plot([0, 0], [0, 0], color="#333333", lw=0.8, label="to the 95th percentile")
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_bars(axis: Axes, data: pd.DataFrame, backbones: list[str]) -> None:
    longest = data["p95_ms"].max()
    for row in data.itertuples():
        place = backbones.index(row.backbone) + (-0.2 if row.head == BARE else 0.2)
        axis.barh(place, row.median_ms, height=0.38, **LOOKS[row.head])
        axis.plot([row.median_ms, row.p95_ms], [place, place], color="#333333", lw=0.8)
        ratio = "" if np.isnan(row.ratio) else f" ({row.ratio:.2f} x)"
        text = f"{row.median_ms:,.{1 if row.median_ms < 100 else 0}f}{ratio}"
        axis.annotate(text, (row.p95_ms, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=5.5)
    axis.set_xlim(0, 1.35 * longest)
    axis.set_yticks(range(len(backbones)), backbones)
    axis.set_ylim(len(backbones) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def accuracy_data(results: Path, plan: Plan, speed: Speed | None) -> tuple[pd.DataFrame, list[str]]:
    """A study's accuracies beside the measured latency of one clip through each row's model.

    Args:
        results: The results folder.
        plan: The study.
        speed: As from `read`; None where nothing was measured.

    Returns:
        The cells of `analysis.tables.summary` that have a value, once for each setting in which their model was
        measured at batch 1, with the columns of `SETTING`, ``median_ms`` and ``p95_ms``; and a sentence on what was
        not measured, with the command that does.
    """
    numbers = measured_cells(plan, cells.join(results, plan))
    parts: dict[Subject, list[Part]] = {}
    for part in speed.parts if speed else ():
        if not part.error:
            parts.setdefault(part.subject, []).append(part)
    rows, missing = [], dict[Subject, list[str]]()
    for number in numbers.itertuples():
        config = plan.cell(number.row, number.dataset).config
        if is_own(config.model.backbone):
            continue
        subject = subject_of(config)
        if subject not in parts:
            missing.setdefault(subject, []).append(number.row)
        for part in parts.get(subject, ()):
            setting = {name: getattr(part.setting, name) for name in SETTING}
            rows.append({"Index": number.Index, **setting, "median_ms": 1e3 * part.median, "p95_ms": 1e3 * part.p95})
    columns = ["Index", *SETTING, "median_ms", "p95_ms"]
    found = numbers.join(pd.DataFrame(rows, columns=columns).set_index("Index"), how="inner")
    said = [
        f"The latency of {', '.join(dict.fromkeys(labels))} was not measured: {command(subject, results=results)}."
        for subject, labels in missing.items()
    ]
    return found.reset_index(drop=True), said


def accuracy_figures(data: pd.DataFrame, plan: Plan) -> Iterator[tuple[str, pd.DataFrame, Figure, str]]:
    """The figures of accuracy against latency, one a column and setting, by the study's first metric.

    Args:
        data: As from `accuracy_data`.
        plan: The study.

    Yields:
        The file's stem, the points, the figure and its Pareto front in words; nothing where fewer than two rows were
        measured.
    """
    data = data[data["metric"] == plan.metrics[0]] if len(data) else data
    for dataset in data["dataset"].unique():
        groups = data[data["dataset"] == dataset].groupby(SETTING, sort=False)
        for number, (_, points) in enumerate(groups):
            if len(points) > 1:
                figure = draw_accuracy(points, synthetic=cells.is_synthetic(plan, dataset))
                said = front_note(points, cost="median_ms", what="milliseconds a clip")
                yield f"{plan.name}_{slug(dataset)}_latency_{number + 1}", points, figure, said


@styled
def draw_accuracy(points: pd.DataFrame, *, synthetic: bool) -> Figure:
    """A point a row: accuracy with its 95 % interval over the median latency of one clip, and the Pareto front.

    Args:
        points: Those of one column, one metric and one setting of `accuracy_data`.
        synthetic: Stamps the figure.
    """
    figure, (axis,) = new_figure(COLUMN, 3.0)
    draw_points(axis, points, points["median_ms"])
    first = points.iloc[0]
    axis.set_xlabel(f"ms a clip, {first['device']},\n{_threads(first['threads'])}, {first['precision']}")
    legend_below(figure, axis)
    return stamp(figure, synthetic=synthetic)
