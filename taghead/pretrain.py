"""Pre-trains a narrow backbone on generated coarse motions, as the paper's backbones were pre-trained on other data.

    taghead pretrain --out taghead/backbones/r2plus1d_narrow.safetensors

made the weights that come with this package; their metadata, and a JSON file beside them, hold the command, the seed
and the score. The classes share nothing with the generated fine-grained ones that the small studies train on.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taghead.config import Config, evolve
from taghead.data.synthetic import Size, make_dataset
from taghead.files import write_text
from taghead.machine import Machine
from taghead.model import build_model
from taghead.recipes import recipe
from taghead.record import KEPT_FILES
from taghead.run import run
from taghead.weights import load_weights, save_weights

PRETRAIN = {
    "model.head": "linear",
    "model.pretrained": False,
    "train.epochs": 12,
    "train.batch_size": 32,
    "train.lr": 2e-3,
}


def pretrain_config() -> Config:
    """The small recipe with a linear head, from nothing."""
    return evolve(recipe("synthetic"), PRETRAIN)


def pretrain(
    out: Path,
    *,
    data: Path,
    work: Path,
    size: Size = "medium",
    seed: int = 0,
    threads: int = 1,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains on the coarse classes, and writes the backbone's weights and what they are worth.

    Args:
        out: The safetensors file; a JSON file of the same name with the facts is written beside it.
        data: Folder for the generated clips.
        work: Folder of the trial; what a killed run left there is gone on from.
        size: Of the data set.
        seed: Of the data set and of the training.
        threads: For torch.
        on_epoch: Told each epoch.

    Returns:
        The facts: command, seed, classes, clips, score.
    """
    config = pretrain_config()
    make_dataset(data, size=size, kind="coarse", seed=seed)
    machine = Machine(data_root=data, threads=threads)
    record = run(config, seed=seed, machine=machine, folder=work, keep=("weights",), on_epoch=on_epoch)
    model = build_model(config, record.data.num_classes)
    load_weights(model, work / KEPT_FILES["weights"])
    facts = {
        "command": f"taghead pretrain --size {size} --seed {seed} --threads {threads} --out FILE",
        "data": f"synthetic (generated) coarse motions, {record.data.num_classes} classes",
        "clips": {"train": record.data.num_train, "test": record.data.num_test},
        "test_top1": round(record.metrics["top1"], 4),
        "test_mca": round(record.metrics["mca"], 4),
        "epochs": record.epoch,
        "torch": record.machine.torch,
    }
    save_weights(model.backbone, out, metadata={name: json.dumps(value) for name, value in facts.items()})
    write_text(out.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    return facts
