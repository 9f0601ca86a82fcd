"""The studies of the paper (Tables 1 to 4, Figure 3) and ours, by the name that the command line takes.

Table 5 and Figure 3's pictures train nothing of their own: the first counts, the second reads `stages`.
"""

from typing import Any

from studies.space import Choice, Range
from studies.study import Rows, Search, Study, axis, leave_one_out, product
from taghead.backbones import BACKBONES
from taghead.config import Config
from taghead.errors import InputError, nearest
from taghead.recipes import recipe

NO_EDGES: tuple[str, ...] = ()
IF_FC = ("intra_frame",)
TAT = ("time_aligned",)
LINEAR: dict[str, Any] = {"model.head": "linear"}
# One edge kind alone has nothing to combine, its union and its block are one graph: five graphs, not eight.
GRAPHS: Rows = {
    "no edges": {"head.edges": NO_EDGES},
    "IF-FC": {"head.edges": IF_FC},
    "TAT": {"head.edges": TAT},
    "IF-FC + TAT, union": {"head.edges": (*IF_FC, *TAT), "head.edge_combination": "union"},
    "IF-FC + TAT, block": {"head.edges": (*IF_FC, *TAT), "head.edge_combination": "block"},
}
READOUTS = axis("head.readout", ("mean", "norm_mean", "max", "attention"))
TABLE_3 = {"I3D": "i3d_r50", "Slow": "slow_r50", "CSN": "csn_r101"}  # the paper's word: our backbone


def _bases(*datasets: str) -> dict[str, Config]:
    return {name: recipe(name) for name in datasets}


MAIN = Study(
    name="main",
    title="TAG-Head on the three data sets",
    rows={"TAG-Head": {}},
    datasets=_bases("gym99", "gym288", "haa500"),
    keep=("weights", "frame_means"),
    table=1,
    text="Table 1's last row: Top-1 and MCA of the full model.",
)

COMPONENTS = Study(
    name="components",
    title="What each component adds",
    rows={
        "B": LINEAR,
        "B + TE": {"head.edges": NO_EDGES},
        "B + TE + IF-FC": {"head.edges": IF_FC},
        "B + TE + TAT": {"head.edges": TAT},
        "Full": {},
    },
    datasets=_bases("haa500", "gym288"),
    base_row="B",
    table=4,
    text="Table 4. B: backbone, mean pooling, linear classifier; TE: positional encoding and Transformer encoder; "
    "IF-FC: intra-frame edges; TAT: time-aligned edges. The paper prints Top-1.",
)

FFN_WIDTH = Study(
    name="ffn_width",
    title="The encoder's MLP width",
    rows=axis("head.ffn_dim", (2048, 1024, 512, 256), label="FFN"),
    datasets=_bases("gym99", "haa500"),
    base_row="FFN 2048",
    table=2,
    text="Table 2.",
)

STAGES = Study(
    name="stages",
    title="Transfer learning, fine-tuning, TAG-Head",
    rows={"TL": {"model.freeze_backbone": True, **LINEAR}, "FT": LINEAR, "TAG": {}},
    datasets=_bases("gym99", "gym288", "haa500"),
    keep=("embeddings",),
    base_row="TL",
    text="Figure 3's three stages, for its t-SNE. TL: frozen backbone, linear classifier; FT: the same, fine-tuned.",
)

ALPHA = Study(
    name="alpha",
    title="The teleport probability of APPNP",
    rows=axis("head.alpha", (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)),
    datasets=_bases("haa500"),
    base_row="alpha 0.1",
    text="Ours: Eq. 2's alpha, which the paper does not give. At 1 the graph does nothing.",
)

K_PROP = Study(
    name="k_prop",
    title="The number of propagation steps",
    rows=axis("head.k_prop", (0, 1, 2, 5, 10, 20)),
    datasets=_bases("haa500"),
    base_row="k_prop 10",
    text="Ours: Eq. 2's K_prop, which the paper does not give. At 0 the graph does nothing.",
)

EDGES = Study(
    name="edges",
    title="Which edges, and how two kinds combine",
    rows=GRAPHS,
    datasets=_bases("haa500"),
    base_row="no edges",
    text="Ours: every subset of the edges; the paper's 'blockdiag' read as one graph over all tokens (union) and as "
    "two propagations side by side (block).",
)

READOUT = Study(
    name="readout",
    title="Does the graph matter once the readout is not linear?",
    rows=product(READOUTS, {graph: GRAPHS[graph] for graph in ("no edges", "IF-FC + TAT, union")}),
    datasets=_bases("haa500"),
    base_row="readout mean, no edges",
    text="Ours: under the paper's mean the graph can only reweight frames; other readouts see the whole of it.",
)

WIDTH = Study(
    name="width",
    title="The head's own width",
    rows={"width C": {}, **axis("head.width", (256, 128, 64))},
    datasets=_bases("haa500"),
    base_row="width C",
    text="Ours: tokens projected to fewer channels before the head; 'width C' is the paper, without a projection.",
)

GRAPH = Study(
    name="graph",
    title="The graph's settings, crossed",
    rows=product(GRAPHS, axis("head.alpha", (0.05, 0.1, 0.2)), axis("head.k_prop", (2, 10)), READOUTS),
    datasets=_bases("haa500"),
    text="Ours: edges x alpha x K_prop x readout. Rows without edges are one experiment for each readout.",
)


LEAVE_ONE_OUT = Study(
    name="leave_one_out",
    title="What the full model loses without each component",
    rows=leave_one_out(
        {},
        {
            "positional encoding": {"head.positional_encoding": False},
            "encoder": {"head.num_layers": 0},
            "IF-FC": {"head.edges": TAT},
            "TAT": {"head.edges": IF_FC},
            "propagation": {"head.edges": NO_EDGES},
        },
    ),
    datasets=_bases("haa500"),
    base_row="Full",
    text="Ours: the other end of Table 4, one component taken away from the full model at a time. Without propagation "
    "no token is mixed with another after the encoder; without TAT it is the same function under the mean readout.",
)

_REWIRED = {f"random graph {seed}": {"head.rewiring": seed} for seed in (0, 1)}
_WITHOUT: Rows = {"no graph": {"head.edges": NO_EDGES}, **_REWIRED}
_NORM_MEAN = {"head.readout": "norm_mean"}

CONTROLS = Study(
    name="controls",
    title="Is it the component, or only its size?",
    rows={
        "Full": {},
        "graph step by step": {"head.propagation": "step_by_step"},
        **_WITHOUT,
        "MLP for attention": {"head.encoder": "mlp"},
        "Full, norm_mean": _NORM_MEAN,
        **{f"{name}, norm_mean": {**_NORM_MEAN, **row} for name, row in _WITHOUT.items()},
    },
    datasets=_bases("haa500"),
    base_row="Full",
    text="Ours: each control keeps the size and takes the idea away. Step by step: products with the adjacency where "
    "Full has one fixed weight a frame; what differs is rounding, and grows in training as that of another number of "
    "threads does. No graph: what propagation adds at all. Random graph: any neighbours of the same number, so a gain "
    "that stays is not of frames and time. MLP for attention: as many parameters but for D a layer, and no token sees "
    "another before the graph. The mean readout sees of a graph its weights alone; norm_mean sees the graph itself, so "
    "the graph's controls stand there again.",
)


def backbones() -> Study:
    """Table 3: three backbones pre-trained on Kinetics-400, each with a linear classifier and with the head.

    Raises:
        InputError: A backbone that is not there.
    """
    if missing := [name for name in TABLE_3.values() if name not in BACKBONES]:
        raise InputError(f"study backbones (Table 3) needs backbones that are not there: {', '.join(missing)}.")
    rows: dict[str, dict[str, Any]] = {}
    for word, name in TABLE_3.items():
        rows[word] = {"model.backbone": name, **LINEAR}
        rows[f"{word} + TAG-Head"] = {"model.backbone": name}
    return Study(
        name="backbones",
        title="The head on other backbones",
        rows=rows,
        datasets=_bases("haa500", "gym99"),
        table=3,
        text="Table 3. The paper names no sizes; these are PyTorchVideo's I3D-R50, Slow-R50 and CSN-R101.",
    )


# Under the mean readout alpha and K_prop only move the frames' weights, by parts in a thousand: they are held fixed.
_SEES_THE_GRAPH = {"head.readout": ("norm_mean", "max", "attention"), "head.edges": (IF_FC, TAT, (*IF_FC, *TAT))}

HEAD_SEARCH = Search(
    name="head_search",
    title="The head's settings, searched",
    space={
        "model.backbone": Choice(("r2plus1d_34", "r2plus1d_18")),
        "head.ffn_dim": Choice((256, 512, 1024, 2048)),
        "head.num_layers": Range(1, 4),
        "head.dropout": Range(0.0, 0.5, step=0.1),
        "train.lr": Range(3e-6, 3e-3, log=True),
        "head.readout": Choice(("mean", "norm_mean", "max", "attention")),
        "head.edges": Choice((NO_EDGES, IF_FC, TAT, (*IF_FC, *TAT))),
        "head.edge_combination": Choice(("union", "block"), only_if={"head.edges": ((*IF_FC, *TAT),)}),
        "head.alpha": Range(0.05, 0.5, only_if=_SEES_THE_GRAPH),
        "head.k_prop": Choice((1, 2, 5, 10, 20), only_if=_SEES_THE_GRAPH),
    },
    datasets=_bases("haa500"),
    pruner="median",
    pruner_options={"n_startup_trials": 5, "n_warmup_steps": 1},
    text="Ours: FFN width, layers, dropout, learning rate, readout, the graph and the backbone at once, by validation "
    "Top-1; alpha and K_prop only where the readout can see them. A key given by --set is fixed.",
)

HEAD_COST = Search(
    name="head_cost",
    title="Accuracy against multiply-adds",
    space={
        "head.width": Choice((None, 256, 128, 64)),
        "head.ffn_dim": Choice((256, 512, 1024, 2048)),
        "head.num_layers": Range(0, 4),
        "train.lr": Range(3e-6, 3e-3, log=True),
    },
    datasets=_bases("haa500"),
    objectives=("val_top1", "multiply_adds"),
    sampler="nsga2",
    sampler_options={"population_size": 10},
    num_trials=50,
    text="Ours: how much head the accuracy needs; two objectives, and all that no other candidate beats in both.",
)

SEARCHES: dict[str, Search] = {search.name: search for search in (HEAD_SEARCH, HEAD_COST)}
_PLAIN = (MAIN, FFN_WIDTH, COMPONENTS, STAGES, ALPHA, K_PROP, EDGES, READOUT, WIDTH, GRAPH, LEAVE_ONE_OUT, CONTROLS)
STUDIES: dict[str, Study] = {study.name: study for study in _PLAIN}
if all(name in BACKBONES for name in TABLE_3.values()):
    STUDIES["backbones"] = backbones()


def find(name: str) -> Study | Search:
    """A study or a search of the catalog.

    Raises:
        InputError: No such name; tells the nearest one.
    """
    if name in SEARCHES:
        return SEARCHES[name]
    if name == "backbones":
        return backbones()
    if name not in STUDIES:
        raise InputError(f"no study {name!r}{nearest(name, [*STUDIES, *SEARCHES])}")
    return STUDIES[name]
