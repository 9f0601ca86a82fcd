"""Writes a results folder of many finished trials that nobody has trained, to measure reading by, or to look at.

    python benchmarks/make_records.py /tmp/many --studies 10 --rows 25 --columns 4 --seeds 10

Plans, ids and records are as a launch makes them, and the clips are marked as generated. Scores, losses and logits are
drawn at random, from the position of a trial alone: the same arguments give the same folder. In each study the last row
has the logits of the first, one trial in 97 has diverged, and one clip in each column does not decode.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from studies.plan import Cell, Plan, make_plan, write_plan
from studies.study import Study
from taghead.config import Config, evolve
from taghead.recipes import recipe
from taghead.record import DataFacts, MachineFacts, Record, text_of

NUM_CLASSES, CLIPS, EPOCHS = 12, 72, 4
LABELS = np.repeat(np.arange(NUM_CLASSES), CLIPS // NUM_CLASSES)
IDS = np.array([f"motion_of_class_{label:02d}_{number:03d}" for number, label in enumerate(LABELS)])
HEADER = "epoch,loss,train_top1,val_top1,val_mca,val_loss,lr\n"
DIVERGED = 97  # one trial in so many


def study(number: int, *, rows: int, columns: int, seeds: int) -> Study:
    """A grid over alpha and K_prop, in columns that differ in the length of training."""
    base = evolve(recipe("synthetic"), {"train.lr": 1e-4 * (1 + number)})
    labels = {
        f"alpha {alpha:g}, K {k}": {"head.alpha": alpha, "head.k_prop": k}
        for alpha, k in ((round(0.02 * (1 + row // 10), 4), 1 + row % 10) for row in range(rows))
    }
    return Study(
        name=f"grid_{number:02d}",
        title=f"Grid {number} over alpha and K_prop",
        rows=labels,
        datasets={f"{2 + column} epochs": evolve(base, {"train.epochs": 2 + column}) for column in range(columns)},
        seeds=tuple(range(seeds)),
        base_row=next(iter(labels)),
    )


def identify(config: Config) -> SimpleNamespace:
    """The fingerprints of clips and weights that nobody has to read."""
    return SimpleNamespace(data="d" * 16, weights=None, synthetic=True)


def write_trial(results: Path, plan: Plan, cell: Cell, seed: int) -> None:
    """Writes a finished trial: its record, history and predictions."""
    row, column = plan.rows.index(cell.row), plan.datasets.index(cell.dataset)
    stream = 0 if row == len(plan.rows) - 1 else row
    generator = np.random.default_rng([int(plan.name.rpartition("_")[2]), stream, column, seed])
    folder = results / "trials" / cell.trials[seed]
    folder.mkdir(parents=True)
    logits = (1.5 * np.eye(NUM_CLASSES)[LABELS] + generator.normal(size=(CLIPS, NUM_CLASSES))).astype(np.float32)
    top1 = float((logits.argmax(1) == LABELS).mean())
    diverged = (row * len(plan.datasets) + column) * len(plan.seeds) + seed
    outcome: dict[str, Any] = {"status": "complete", "epoch": EPOCHS, "metrics": {"top1": top1, "mca": top1}}
    if diverged % DIVERGED == DIVERGED - 1:
        outcome = {"status": "diverged", "epoch": 2, "error": "the loss became nan in epoch 2"}
    else:
        np.savez(folder / "predictions.npz", ids=IDS, labels=LABELS, logits=logits)
    (folder / "history.csv").write_text(history(generator, outcome["epoch"], top1), encoding="utf-8")
    record = Record(
        trial_id=cell.trials[seed],
        seed=seed,
        config=cell.config,
        data=facts(),
        parameters=442_036,
        machine=MachineFacts(device="cpu (x86_64)", threads=1, python="3.11.9", torch="2.13.0"),
        commit="0123456789ab",
        seconds=float(generator.uniform(5, 10)),
        **outcome,
    )
    # `write_record` waits for the disk, 7 ms a trial
    (folder / "record.json").write_text(text_of(record), encoding="utf-8", newline="\n")


def history(generator: np.random.Generator, epochs: int, top1: float) -> str:
    """A loss that falls and accuracies that rise to that of the record, an epoch a line."""
    lines = []
    for epoch in range(1, epochs + 1):
        loss, accuracy = 2.5 / epoch + 0.1 * generator.random(), top1 * epoch / epochs
        lines.append(f"{epoch},{loss!r},{accuracy!r},{accuracy!r},{accuracy!r},{1.1 * loss!r},{0.002 / epoch!r}\n")
    return HEADER + "".join(lines)


def facts() -> DataFacts:
    """What a record says of the clips."""
    return DataFacts(
        dataset="synthetic", fingerprint="d" * 16, synthetic=True, num_classes=NUM_CLASSES, num_train=384, num_val=24,
        num_test=CLIPS, test_classes=NUM_CLASSES, unreadable={"motion_of_class_03_900": "no frame decodes"},
    )  # fmt: skip


def make(results: Path, *, studies: int, rows: int, columns: int, seeds: int) -> list[str]:
    """Writes the folder.

    Args:
        results: A folder that is not there yet.
        studies: How many.
        rows: Of each study; at most 500, so that alpha stays below 1.
        columns: Of each study.
        seeds: Trials in a cell.

    Returns:
        The studies' names.
    """
    names = []
    for number in range(studies):
        plan = make_plan(study(number, rows=rows, columns=columns, seeds=seeds), identify=identify)
        write_plan(plan, results=results)
        names.append(plan.name)
        for cell in plan.cells:
            for seed in plan.seeds:
                write_trial(results, plan, cell, seed)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    for name, default in (("studies", 10), ("rows", 25), ("columns", 4), ("seeds", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if args.results.exists():
        parser.error(f"{args.results} is there already; name a new folder.")
    names = make(args.results, studies=args.studies, rows=args.rows, columns=args.columns, seeds=args.seeds)
    print(json.dumps({"studies": names, "trials": args.studies * args.rows * args.columns * args.seeds}))


if __name__ == "__main__":
    main()
