"""Evaluation, single clip and single view: logits of every clip of a split, and Top-1 and MCA from them.

Legend: n clips, K classes, C channels, T time steps.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from taghead.data.batches import Batch
from taghead.files import written_whole
from taghead.head import TAGHead
from taghead.metrics import mca, top1
from taghead.model import VideoModel

PREDICTIONS = "predictions.npz"


@dataclass(frozen=True)
class Predictions:
    """What a model says of the clips of a split, in the order of their ids.

    Attributes:
        ids: The clips' ids.
        labels: Their classes.
        logits: One row a clip; NaN for a clip that does not decode, which therefore counts as wrong.
        embeddings: The pooled vectors that the classifier sees.
        num_read: How many of the clips decode.
        finite: Whether the logits of all those are numbers; they are not where training has diverged.
        frame_means: The mean over the sites of each time step's tokens as they enter the graph, where asked for:
            under a mean readout they are all that any graph can reach.
    """

    ids: tuple[str, ...]
    labels: Int[ndarray, " n"]
    logits: Float[ndarray, "n K"]
    embeddings: Float[ndarray, "n C"]
    num_read: int
    finite: bool
    frame_means: Float[ndarray, "n T C"] | None = None

    def metrics(self) -> dict[str, float]:
        """Top-1, MCA (fractions) and the cross-entropy over the clips that decode."""
        scores = {"top1": top1(self.logits, self.labels), "mca": mca(self.logits, self.labels)}
        read = ~np.isnan(self.logits).any(axis=1)
        if read.any():
            loss = torch.nn.functional.cross_entropy(
                torch.from_numpy(self.logits[read]), torch.from_numpy(self.labels[read])
            )
            scores["loss"] = loss.item()
        return scores

    def differs(self, ids: Sequence[str], logits: Float[ndarray, "_ _"], *, within: float) -> str | None:
        """How these are not the logits of an earlier evaluation of the same weights, in words; None where they are.

        Args:
            ids: The earlier ones'.
            logits: Likewise.
            within: How far two logits of the same clip may lie apart, as a fraction of the largest.
        """
        if tuple(ids) != self.ids or logits.shape != self.logits.shape:
            return "the test clips are not those of its predictions"
        read, before = (np.isfinite(values).all(axis=1) for values in (self.logits, logits))
        for index in np.flatnonzero(read != before)[:1]:
            now, then = ("a score", "none") if read[index] else ("no score", "one")
            return f"clip {self.ids[index]} gets {now} now and got {then} when the trial ran"
        apart = np.abs(self.logits - logits)[read].max(axis=1, initial=0)
        largest = np.abs(logits[read]).max(initial=0)
        if apart.max(initial=0) <= within * largest:
            return None
        worst = np.array(self.ids)[read][apart.argmax()]
        return (
            f"logits must be those of its predictions to {within:g} of the largest ({largest:.3g}), but those of clip "
            f"{worst} are {apart.max():.3g} off"
        )

    def save(self, folder: Path, *, keep: Iterable[str] = (), logits: bool = True) -> None:
        """Writes what is asked for.

        Args:
            folder: Where to.
            keep: Whether ``embeddings.npz`` and ``frame_means.npz``.
            logits: Whether ``predictions.npz``.
        """
        ids = np.array(self.ids)
        if logits:
            _write(folder / PREDICTIONS, ids=ids, labels=self.labels, logits=self.logits)
        for name in ("embeddings", "frame_means"):
            if name in keep and (values := getattr(self, name)) is not None:
                _write(folder / f"{name}.npz", ids=ids, labels=self.labels, **{name: values})


def _write(path: Path, **arrays: ndarray) -> None:
    with written_whole(path) as beside, beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_logits(folder: Path) -> tuple[list[str], Float[ndarray, "n K"]] | None:
    """Ids and logits of a trial's ``predictions.npz``; None where there is none or it is damaged.

    Args:
        folder: The trial's.
    """
    try:
        # opened here: numpy leaves a damaged file open
        with (folder / PREDICTIONS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return stored["ids"].tolist(), stored["logits"]
    except (FileNotFoundError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None


@torch.no_grad()
def predict(
    model: VideoModel,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    device: torch.device,
    precision: str = "float32",
    frame_means: bool = False,
) -> Predictions:
    """Runs a model over the clips of a split, in eval mode.

    Args:
        model: The model, on ``device``.
        batches: The clips in order; a batch names those that do not decode.
        num_classes: K.
        device: Where the model is.
        precision: ``float32``, or ``bfloat16`` for autocast.
        frame_means: Whether to keep the frame means too (a model with a `TAGHead` only).
    """
    model.eval()
    ids: list[str] = []
    labels: list[int] = []
    parts: dict[str, list[torch.Tensor]] = {"logits": [], "embeddings": [], "frame_means": []}
    unread: list[tuple[str, int]] = []
    for batch in batches:
        unread += [(clip.id, clip.label) for clip in batch.unreadable]
        if not batch.ids:
            continue
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            tokens = model.tokens(batch.frames)
            embeddings = model.head.embed(tokens)
            logits = model.head.classify(embeddings)
            if frame_means and isinstance(model.head, TAGHead):
                parts["frame_means"].append(model.head.encode(tokens).mean(dim=2).float().cpu())
        parts["logits"].append(logits.float().cpu())
        parts["embeddings"].append(embeddings.float().cpu())
        ids += batch.ids
        labels += batch.labels.tolist()
    arrays = {name: torch.cat(values).numpy() for name, values in parts.items() if values}
    arrays.setdefault("logits", np.zeros((0, num_classes), np.float32))
    return _in_order(ids, labels, arrays, unread)


def _in_order(
    ids: list[str], labels: list[int], arrays: dict[str, ndarray], unread: list[tuple[str, int]]
) -> Predictions:
    """Adds a row of NaN for each clip that did not decode, and sorts by id."""
    ids, labels = ids + [one for one, _ in unread], labels + [label for _, label in unread]
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=int)

    def whole(values: ndarray) -> ndarray:
        nothing = np.full((len(unread), *values.shape[1:]), np.nan, values.dtype)
        return np.concatenate([values, nothing])[order]

    return Predictions(
        ids=tuple(ids[i] for i in order),
        labels=np.array(labels, dtype=np.int64)[order],
        logits=whole(arrays["logits"]),
        num_read=len(arrays["logits"]),
        finite=bool(np.isfinite(arrays["logits"]).all()),
        embeddings=whole(arrays.get("embeddings", np.zeros((0, 0), np.float32))),
        frame_means=whole(arrays["frame_means"]) if "frame_means" in arrays else None,
    )
