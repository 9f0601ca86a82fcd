"""Table 5: parameters and multiply-adds of each component as tables; `taghead.complexity` counts them."""

import pandas as pd

from analysis import published
from analysis.formats import Table
from taghead import complexity
from taghead.backbones import BACKBONES, grid_of
from taghead.complexity import HEAD, count_backbone, head_parameters
from taghead.config import Config, evolve
from taghead.recipes import recipe

COUNTING = (
    "multiply-adds: every product of the forward pass, attention's two included. As fvcore counts: one operation a "
    "multiply-add of convolutions and linear maps, 2 for each element of a batch norm and 5 of a layer norm, none for "
    "attention's two products. Weighting the frames, all that the graph does under the mean readout, is T products a "
    "channel, which neither counts."
)
PAPER_CLIPS = ((32, 112), (64, 112))  # frames and pixels: of HAA500, of Gym99 and Gym288
WIDTHS = (512, 1024, 2048)  # Table 2's best on HAA500 and on Gym99, and the widest


def count(config: Config, *, num_classes: int) -> pd.DataFrame:
    """Counts one clip's forward pass in evaluation, component by component.

    Args:
        config: Any experiment on a backbone of ours.
        num_classes: K of the classifier.

    Returns:
        One row a component in the order of `COMPONENTS`: ``component``, ``parameters``, ``multiply_adds`` (every
        product, attention's two included) and ``as_fvcore`` (see `taghead.complexity.fvcore_rules`).

    Raises:
        InputError: A user's own backbone.
    """
    costs = complexity.count(config, num_classes=num_classes)
    rows = [(part, cost.parameters, cost.multiply_adds, cost.as_fvcore) for part, cost in costs.items()]
    return pd.DataFrame(rows, columns=["component", "parameters", "multiply_adds", "as_fvcore"])


def _of_head(counts: pd.DataFrame, column: str) -> int:
    return int(counts.loc[counts["component"].isin(HEAD), column].sum())


def _without_classifier(counts: pd.DataFrame, column: str) -> int:
    return int(counts.loc[counts["component"] != "classifier", column].sum())


def paper_model(ffn_dim: int) -> pd.DataFrame:
    """Counts the paper's model on HAA500 (32 frames of 112 x 112, 500 classes) at one FFN width.

    Args:
        ffn_dim: The encoder's FFN width; Table 2 varies it.
    """
    return count(evolve(recipe("haa500"), {"head.ffn_dim": ffn_dim}), num_classes=500)


def table5_data() -> pd.DataFrame:
    """The paper's model at each of `WIDTHS`, as Table 5 counts: millions of parameters and 10^9 multiply-adds.

    Returns:
        Columns ``ffn_dim, backbone_m, head_m, total_m`` (without classifier), ``classifier_m``, ``gmac`` (every
        product) and ``as_fvcore_g`` (by `taghead.complexity.fvcore_rules`), both of the whole model.
    """
    rows = []
    for width in WIDTHS:
        counts = paper_model(width)
        by_component = counts.set_index("component")["parameters"]
        rows.append(
            {
                "ffn_dim": width,
                "backbone_m": by_component["backbone"] / 1e6,
                "head_m": _of_head(counts, "parameters") / 1e6,
                "total_m": _without_classifier(counts, "parameters") / 1e6,
                "classifier_m": by_component["classifier"] / 1e6,
                "gmac": counts["multiply_adds"].sum() / 1e9,
                "as_fvcore_g": counts["as_fvcore"].sum() / 1e9,
            }
        )
    return pd.DataFrame(rows)


def table5() -> Table:
    """The paper's Table 5 recounted, beside what it prints."""
    data, printed = table5_data(), published.values(5)
    rows = [
        (
            f"FFN {row.ffn_dim}",
            f"{row.backbone_m:.3f}",
            f"{row.head_m:.3f}",
            f"{row.total_m:.2f}",
            f"{row.gmac:.2f}",
            f"{row.as_fvcore_g:.1f}",
        )
        for row in data.itertuples()
    ]
    ours = "TAG-Head (Ours)"
    rows.append(
        (
            "as published",
            f"{printed['Backbone', '', 'params_m']:.3f}",
            f"{printed['TAG-Head', '', 'params_m']:.3f}",
            f"{printed[ours, '', 'params_m']:.2f}",
            "-",
            f"{printed[ours, '', 'gflops']:.1f}",
        )
    )
    header = (
        "",
        "backbone, M",
        "head, M",
        "both, M",
        "multiply-adds, G",
        "as fvcore counts, G",
    )
    title = "Table 5 recounted: R(2+1)D-34 + TAG-Head on HAA500, one clip of 32 frames of 112 x 112"
    return Table("complexity_paper", title, header, tuple(rows), data, tuple(table5_notes(data)))


def table5_notes(data: pd.DataFrame) -> list[str]:
    """What the recount says of the two printed totals, in words made from the numbers.

    Args:
        data: As from `table5_data`.
    """
    printed = published.values(5)
    size, cost = printed["TAG-Head (Ours)", "", "params_m"], printed["TAG-Head (Ours)", "", "gflops"]
    by_size = data[data["total_m"].round(2) == size]
    by_cost = data[data["as_fvcore_g"].round(1) == cost]
    notes = [
        "Parameters are counted without the classifier, as in the paper; for 500 classes it adds "
        f"{data['classifier_m'].iloc[0]:.3f} M.",
        COUNTING,
    ]
    if len(by_size) == len(by_cost) == 1:
        large, small = by_size.iloc[0], by_cost.iloc[0]
        different = large.ffn_dim != small.ffn_dim
        notes.append(
            f'The printed {size:.2f} M parameters are those of FFN {large.ffn_dim:.0f}, the printed {cost} "GFLOPs" '
            f"those of FFN {small.ffn_dim:.0f} as fvcore counts"
            + (": the recount finds them in two different heads. " if different else ". ")
            + f"FFN {large.ffn_dim:.0f} costs {large.gmac:.2f} G multiply-adds ({large.as_fvcore_g:.1f} as fvcore "
            f"counts); FFN {small.ffn_dim:.0f} has {small.total_m:.2f} M parameters and costs {small.gmac:.2f} G "
            "multiply-adds."
        )
    return notes


def backbones_data() -> pd.DataFrame:
    """Every backbone alone at the size of the clips that its public weights were trained with and at the paper's sizes.

    Returns:
        One row a backbone and size: ``backbone, channels, parameters``; ``frames, pixels`` of the clip; ``grid`` (T, H,
        W) of the features; ``multiply_adds``; ``head_narrow`` and ``head_wide``, the parameters of a head with the
        first and the last of `WIDTHS` on these features.
    """
    rows = []
    for name, backbone in BACKBONES.items():
        for frames, pixels in dict.fromkeys((backbone.weights.clip or PAPER_CLIPS[0], *PAPER_CLIPS)):
            cost, grid = count_backbone(name, num_frames=frames, crop_size=pixels), grid_of(name, frames, pixels)
            heads = [head_parameters(backbone.channels, grid, ffn_dim=width) for width in (WIDTHS[0], WIDTHS[-1])]
            rows.append((name, backbone.channels, cost.parameters, frames, pixels, grid, cost.multiply_adds, *heads))
    columns = ["backbone", "channels", "parameters", "frames", "pixels", "grid", "multiply_adds"]
    return pd.DataFrame(rows, columns=[*columns, "head_narrow", "head_wide"])


def backbones_table() -> Table:
    """What each backbone costs alone, and how large the head on it is."""
    data = backbones_data()
    rows = []
    for name, group in data.groupby("backbone", sort=False):
        sizes = {(row.frames, row.pixels): row for row in group.itertuples()}
        first, paper = group.iloc[0], sizes[PAPER_CLIPS[0]]
        texts = [f"{_times(sizes[clip].grid)}; {sizes[clip].multiply_adds / 1e9:.2f}" for clip in PAPER_CLIPS]
        native = f"{first.frames} x {first.pixels}: {_times(first.grid)}; {first.multiply_adds / 1e9:.2f}"
        heads = f"{paper.head_narrow / 1e6:.2f} to {paper.head_wide / 1e6:.2f}"
        rows.append((str(name), str(first.channels), f"{first.parameters:,}", native, *texts, heads))
    sizes_of = [f"{frames} x {pixels}" for frames, pixels in PAPER_CLIPS]
    header = ("backbone", "C", "parameters", "trained at", *sizes_of, f"head at {sizes_of[0]}, M")
    at_32 = data[(data["frames"] == PAPER_CLIPS[0][0]) & (data["pixels"] == PAPER_CLIPS[0][1])]
    larger = at_32.loc[at_32["head_narrow"] > at_32["parameters"], "backbone"]
    notes = (
        "Without classifier. Each size: the features' T x H x W; multiply-adds of the backbone for one clip, in G.",
        "trained at: frames x pixels of the clips that the public weights were trained with. head: parameters with FFN "
        f"{WIDTHS[0]} to FFN {WIDTHS[-1]}; even the smaller one is larger than the backbone on {', '.join(larger)}.",
    )
    return Table("complexity_backbones", "The backbones, without a head", header, tuple(rows), data, notes)


def _times(grid: tuple[int, int, int]) -> str:
    return " x ".join(map(str, grid))


def component_table(counts: pd.DataFrame, *, name: str, title: str, synthetic: bool = False) -> Table:
    """One model's components as a table; components that are not there are left out.

    Args:
        counts: As from `count`.
        name: The file's stem.
        title: The caption.
        synthetic: Whether the model is studied on generated data.
    """
    total = counts["parameters"].sum()
    # the graph is always shown: that it has no parameters is what the paper claims of it
    there = counts[(counts["parameters"] > 0) | (counts["multiply_adds"] > 0) | (counts["component"] == "graph")]
    rows = [
        (
            row.component,
            f"{row.parameters:,}",
            f"{100 * row.parameters / total:.1f}",
            f"{row.multiply_adds / 1e6:,.3f}",
            f"{row.as_fvcore / 1e6:,.3f}",
        )
        for row in there.itertuples()
    ]
    sums = counts[["parameters", "multiply_adds", "as_fvcore"]].sum()
    rows.append(
        ("total", f"{total:,}", "100.0", f"{sums['multiply_adds'] / 1e6:,.3f}", f"{sums['as_fvcore'] / 1e6:,.3f}")
    )
    header = ("component", "parameters", "% of all", "multiply-adds, M", "as fvcore counts, M")
    return Table(name, title, header, tuple(rows), counts, (COUNTING,), synthetic=synthetic)
