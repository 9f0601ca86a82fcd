"""Base configs by recipe and data set: the paper as written, the authors' released code as it runs, and a small one.

Where the paper (arXiv 2604.11498, Section 4) gives no value, ours stands here: epochs and batch size as in the released
code, alpha = 0.1 and K_prop = 10 as APPNP's authors use them, no dropout, the normalisation that the backbone's
weights were trained with, positional encodings that start at zero, the last epoch's model.
"""

from taghead.config import Config, DataConfig, HeadConfig, ModelConfig, TrainConfig, evolve
from taghead.errors import InputError, nearest

# Table 2's best width for Gym99 and HAA500; the released code's for Gym288
FFN_DIM = {"gym99": 1024, "gym288": 2048, "haa500": 512}
NUM_FRAMES = {"gym99": 64, "gym288": 64, "haa500": 32}
EPOCHS = {"gym99": 60, "gym288": 60, "haa500": 80}  # of the released code


def _paper(dataset: str) -> Config:
    return Config(
        data=DataConfig(dataset=dataset, num_frames=NUM_FRAMES[dataset]),
        head=HeadConfig(ffn_dim=FFN_DIM[dataset]),
        train=TrainConfig(epochs=EPOCHS[dataset]),
    )


def _released(dataset: str) -> Config:
    """As the public code runs (ImtiazUlHassan/Tag-Head), but for one thing: it selects Gym's epoch on the test split.

    Here ``best_val`` needs a validation split of its own, which HAA500 has and Gym has not.
    """
    return Config(
        data=DataConfig(
            dataset=dataset,
            num_frames=NUM_FRAMES[dataset],
            short_side=128,
            train_crop="random_resized",
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
        ),
        head=HeadConfig(
            ffn_dim=FFN_DIM[dataset],
            dropout=0.5,
            norm_first=False,
            k_prop=2,
            position_init="normal",
            classifier_norm=True,
        ),
        train=TrainConfig(
            epochs=EPOCHS[dataset], order="fixed", selection="best_val" if dataset == "haa500" else "last"
        ),
    )


def _small() -> Config:
    """For the generated data on a CPU: few frames, a narrow backbone, no flip (its classes tell left from right)."""
    return Config(
        data=DataConfig(dataset="synthetic", num_frames=16, short_side=54, crop_size=48, flip=0.0),
        model=ModelConfig(backbone="r2plus1d_narrow"),
        head=HeadConfig(ffn_dim=256),
        train=TrainConfig(epochs=4, batch_size=16, lr=2e-3),
    )


def _as_table(config: Config) -> Config:
    """For clips of any kind, listed in the released code's CSV files; there may be no validation split."""
    return evolve(config, {"data.dataset": "table", "train.selection": "last"})


RECIPES: dict[str, dict[str, Config]] = {
    "paper": {name: _paper(name) for name in NUM_FRAMES} | {"table": _as_table(_paper("haa500"))},
    "released": {name: _released(name) for name in NUM_FRAMES} | {"table": _as_table(_released("haa500"))},
    "small": {"synthetic": _small()},
}


def recipe(dataset: str, *, name: str | None = None) -> Config:
    """The base config of a data set.

    Args:
        dataset: ``gym99``, ``gym288``, ``haa500``, ``synthetic``, or ``table`` for CSV lists (at HAA500's settings).
        name: ``paper``, ``released`` or ``small``; None is ``small`` for the generated data and ``paper`` for all else.

    Raises:
        InputError: No such data set, or not in that recipe.
    """
    known = {key for family in RECIPES.values() for key in family}
    if dataset not in known:
        raise InputError(f"no data set {dataset!r}{nearest(dataset, known)}")
    name = name or ("small" if dataset == "synthetic" else "paper")
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}{nearest(name, RECIPES)}")
    if dataset not in RECIPES[name]:
        raise InputError(f"recipe {name!r} has no {dataset!r}; it has {', '.join(RECIPES[name])}.")
    return RECIPES[name][dataset]
