"""The result record: one trial's outcome, self-contained, as ``record.json`` in the trial's folder.

Beside it lie ``history.csv`` (one row an epoch), ``predictions.npz`` (ids, labels, logits of the test split) and what
a study asked to keep: ``weights.safetensors``, ``embeddings.npz`` (ids, pooled vectors), ``frame_means.npz``.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from taghead.config import Config, Value, identity, read_versioned
from taghead.files import write_text

SCHEMA_VERSION = 1  # of record.json
RECIPE_VERSION = 2  # to be raised whenever a default or the numerics change what a config means

Status = Literal["complete", "pruned", "diverged", "failed"]
Keep = Literal["weights", "embeddings", "frame_means"]
KEPT_FILES: dict[Keep, str] = {
    "weights": "weights.safetensors",
    "embeddings": "embeddings.npz",
    "frame_means": "frame_means.npz",
}


def keepable(config: Config, keep: Iterable[Keep]) -> frozenset[Keep]:
    """What a trial can keep of what is asked for: no frame means under a linear head, which has no graph.

    Args:
        config: The experiment.
        keep: What is asked for.
    """
    return frozenset(name for name in keep if name != "frame_means" or config.model.head != "linear")


class DataFacts(Value):
    """Which clips the scores were made from."""

    dataset: str
    fingerprint: str
    synthetic: bool
    num_classes: int
    classes: tuple[str, ...] = ()  # their names, by label
    num_train: int
    train_counts: tuple[int, ...] | None = None  # training clips of each class
    num_val: int
    num_test: int
    test_classes: int | None = None  # classes that have test clips: MCA is the mean over these
    test_missing: int = 0  # clips of the test split among `missing`
    test_unreadable: int = 0  # likewise among `unreadable`
    missing: tuple[str, ...] = ()  # ids of clips that the lists name and the folder lacks
    unreadable: dict[str, str] = Field(
        default_factory=dict
    )  # ids of clips that do not decode, with the reason; counted wrong in evaluation


class WeightFacts(Value):
    """Which weights the backbone started from."""

    file: str
    fingerprint: str
    summary: str


class MachineFacts(Value):
    """What the trial ran on; the number of threads belongs to what a run states, since bits depend on it."""

    device: str
    threads: int
    python: str
    torch: str


class Record(Value):
    """One trial: what it was, what came out, and where from. Metrics are fractions; durations are seconds."""

    schema_version: int = SCHEMA_VERSION
    recipe_version: int = RECIPE_VERSION
    trial_id: str
    seed: int
    status: Status
    error: str | None = None
    config: Config
    data: DataFacts
    weights: WeightFacts | None = None
    selection: str = "last"
    epoch: int = 0  # the epoch that the scores belong to; where it diverged or failed, the epoch it reached
    metrics: dict[str, float] = Field(default_factory=dict)
    parameters: int = 0
    machine: MachineFacts
    commit: str | None = None
    attempt: int = 1
    seconds: float = 0.0


def trial_id(config: Config, *, seed: int, data: str, weights: str | None) -> str:
    """The name of an experiment: 16 hexadecimal digits of a hash over all that it is, and nothing else.

    Args:
        config: The experiment; fields that are not read, and those that equal their defaults, do not enter.
        seed: The trial's seed.
        data: The fingerprint of the clips.
        weights: The fingerprint of the weights that the backbone starts from, or None.
    """
    parts = {"config": identity(config), "data": data, "weights": weights, "recipe": RECIPE_VERSION, "seed": seed}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_record(record: Record, folder: Path) -> None:
    """Writes ``record.json`` beside and renames it, so that it is there whole or not at all."""
    write_text(folder / "record.json", text_of(record))


def text_of(record: Record) -> str:
    """What ``record.json`` holds."""
    return json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_record(folder: Path) -> Record:
    """Reads the record of a trial's folder.

    Raises:
        InputError: There is none, it is damaged, or a newer version wrote it.
    """
    return read_versioned(folder / "record.json", Record, version=SCHEMA_VERSION, what="result record")


@cache
def code_commit() -> str | None:
    """The commit of the code that runs, with ``+`` where files differ from it; None outside a git checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!../results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
