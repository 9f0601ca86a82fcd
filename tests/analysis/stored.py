"""Writes small results folders as studies would: plans, records, predictions, histories."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from studies.plan import Plan, make_plan, write_plan
from studies.study import Study
from taghead.config import Config
from taghead.recipes import recipe
from taghead.record import DataFacts, MachineFacts, Record, write_record

NUM_CLASSES = 4
CLIPS = 24


def identify(config: Config) -> SimpleNamespace:
    """The fingerprints of clips and weights that nobody has to read."""
    return SimpleNamespace(data="d" * 16, weights=None, synthetic=config.data.dataset == "synthetic")


class Results:
    """Writes plans and trials into a results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def plan(self, study: Study, *, seeds: Iterable[int] = (0, 1, 2), **datasets: Config) -> Plan:
        """Launches a study without running it."""
        values = {name: getattr(study, name) for name in study.__dataclass_fields__}
        values |= {"datasets": datasets or {"synthetic": recipe("synthetic")}, "seeds": tuple(seeds)}
        plan = make_plan(Study(**values), identify=identify)
        write_plan(plan, results=self.root)
        return plan

    def finish(self, plan: Plan, row: str, *, seed: int, stream: int | None = None, **facts: Any) -> Path:
        """Writes a finished trial whose logits are drawn from (stream, seed); its accuracies follow from them."""
        cell = next(cell for cell in plan.cells if cell.row == row)
        trial = cell.trials[seed]
        folder = self.root / "trials" / trial
        folder.mkdir(parents=True)
        arrays = draw(stream if stream is not None else plan.rows.index(row), seed)
        accuracy = float((arrays["logits"].argmax(1) == arrays["labels"]).mean())
        np.savez(folder / "predictions.npz", **{name: arrays[name] for name in ("ids", "labels", "logits")})
        if "embeddings" in plan.keep:
            np.savez(folder / "embeddings.npz", **{name: arrays[name] for name in ("ids", "labels", "embeddings")})
        (folder / "history.csv").write_text(HISTORY.format(seed), encoding="utf-8")
        record = Record(
            **{
                "trial_id": trial,
                "seed": seed,
                "status": "complete",
                "config": cell.config,
                "data": data_facts(cell.config.data.dataset),
                "epoch": 2,
                "metrics": {"top1": accuracy, "mca": accuracy},
                "machine": MachineFacts(device="cpu (x86_64)", threads=1, python="3.11.9", torch="2.13.0"),
                "commit": "0123456789ab",
                "seconds": 60.0,
                **facts,
            }
        )
        write_record(record, folder)
        return folder


HISTORY = (
    "epoch,loss,train_top1,val_top1,val_mca,val_loss,lr\n1,2.0,0.25,0.5,0.5,1.9,0.001\n2,1.{0},0.5,0.75,0.7,1.5,0.0\n"
)


def data_facts(dataset: str = "synthetic", **facts: Any) -> DataFacts:
    """What a record says of the clips."""
    known = {"fingerprint": "d" * 16, "synthetic": dataset == "synthetic", "num_classes": NUM_CLASSES}
    counts = {"num_train": 96, "num_val": 12, "num_test": CLIPS}
    return DataFacts(**{"dataset": dataset, **known, **counts, **facts})


def draw(stream: int, seed: int) -> dict[str, np.ndarray]:
    """Logits and pooled vectors in which the classes are somewhat apart."""
    generator = np.random.default_rng([stream, seed])
    labels = np.repeat(np.arange(NUM_CLASSES), CLIPS // NUM_CLASSES)
    ids = np.array([f"motion_{'abcd'[label]}_{number:03d}" for number, label in enumerate(labels)])
    noise = generator.normal(size=(CLIPS, NUM_CLASSES))
    logits = (np.eye(NUM_CLASSES)[labels] + noise).astype(np.float32)
    return {"ids": ids, "labels": labels, "logits": logits, "embeddings": np.repeat(logits, 2, axis=1)}
