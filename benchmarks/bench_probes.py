"""Many linear heads on pooled vectors as one program, by the same trainings one after another.

    python benchmarks/bench_probes.py --threads 2

24 trainings (seeds by learning rates by weight decays) of one epoch. One after another is `taghead.fit.fit` with
PyTorch's linear layer and Adam, the vectors in memory. Before that, each training is checked to have the bits that it
has alone, and the scores of the ordinary loop up to rounding. Writes probes.json and probes.md.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from machine import machine
from turns import Row, arguments, digits, measure, ratio, spread, turns_of, write

from taghead.checkpoint import TrainState
from taghead.config import TrainConfig
from taghead.data.batches import Batch, training_order
from taghead.data.clips import Clip
from taghead.fit import fit
from taghead.head import LinearHead
from taghead.linear_probes import Features, Probe, fit_probes
from taghead.tokens import TokenBatch, TokenModel

SEEDS, RATES, DECAYS = range(4), (1e-4, 1e-3, 1e-2), (0.0, 1e-4)
SHAPES = {  # channels, classes, clips in a batch, and what the row is to reach
    "R(2+1)D-34 on Gym99": (512, 99, 8, 5.0),
    "narrow backbone, 12 classes": (128, 12, 16, 5.0),
    "R(2+1)D-34 on HAA500": (512, 500, 8, None),
}


def configs(batch_size: int) -> list[tuple[int, TrainConfig]]:
    return [
        (seed, TrainConfig(epochs=1, batch_size=batch_size, lr=lr, weight_decay=decay, token_views=0))
        for seed, lr, decay in product(SEEDS, RATES, DECAYS)
    ]


def drawn(channels: int, classes: int, clips: int) -> Features:
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(clips, channels, generator=random)
    return Features(vectors, torch.randint(classes, (clips,), generator=random), torch.arange(clips))


def probe(seed: int, config: TrainConfig, seen: Features, classes: int) -> Probe:
    torch.manual_seed(seed)
    head = LinearHead(seen.vectors.shape[1], classes)
    state = TrainState(trial=str(seed), threads=1)
    return Probe(head, config, state, order=lambda epoch: (seed, epoch), save=lambda state: None)


def together(members: list[tuple[int, TrainConfig]], seen: Features, classes: int) -> list[Probe]:
    probes = [probe(seed, config, seen, classes) for seed, config in members]
    fit_probes(probes, features=lambda epoch: seen)
    return probes


def ordinary(seed: int, config: TrainConfig, seen: Features, classes: int) -> TokenModel:
    torch.manual_seed(seed)
    model = TokenModel(LinearHead(seen.vectors.shape[1], classes))
    state = TrainState(trial=str(seed), threads=1)

    def batches(epoch: int) -> list[Batch]:
        order = torch.tensor(training_order(len(seen.rows), seed=seed, epoch=epoch))
        found: list[Batch] = []
        for rows in order.split(config.batch_size):
            clips = (Clip("", Path(), 0, "train"),) * len(rows)
            found.append(TokenBatch(seen.vectors[rows][:, None, None], seen.labels[rows], clips, ()))
        return found

    where = {"seed": seed, "device": torch.device("cpu")}
    fit(model, config, state, batches=batches, validate=None, save=lambda state: None, **where)  # type: ignore[arg-type]
    return model


def check(members: list[tuple[int, TrainConfig]], seen: Features, classes: int) -> None:
    """Stops where company changes a bit, or where the ordinary loop comes to other weights."""
    for (seed, config), one in list(zip(members, together(members, seen, classes), strict=True))[::11]:
        (alone,) = together([(seed, config)], seen, classes)
        theirs = ordinary(seed, config, seen, classes).head.state_dict()
        for name, value in one.head.state_dict().items():
            if not torch.equal(value, alone.head.state_dict()[name]):
                raise SystemExit("a training has other bits in company than alone")
            # Adam's first steps go by a gradient's sign alone, where it is near nothing by its rounding
            apart = (value - theirs[name]).abs() > 1e-3 * theirs[name].abs() + 1e-4
            if apart.double().mean() > 1e-3:
                raise SystemExit("side by side comes to other weights than one after another")


def main() -> None:
    args: argparse.Namespace = arguments(__doc__, turns=7, quick_turns=2).parse_args()
    torch.set_num_threads(args.threads)
    where = machine("torch", threads=args.threads)
    rows, milliseconds = [], {}
    for name, (channels, classes, batch_size, target) in SHAPES.items():
        clips = (30 if args.quick else 100) * batch_size
        members, seen = configs(batch_size), drawn(channels, classes, clips)
        check(members, seen, classes)

        def alone(members: list = members, seen: Features = seen, classes: int = classes) -> None:
            for seed, config in members:
                ordinary(seed, config, seen, classes)

        def company(members: list = members, seen: Features = seen, classes: int = classes) -> None:
            together(members, seen, classes)

        ways: dict[str, Callable[[], object]] = {"one after another": alone, "together": company}
        times = measure(ways, turns=turns_of(args))
        part = f"{len(members)} linear heads together ({name}: C = {channels}, K = {classes}, B = {batch_size})"
        bound = "at least" if target else None
        found = ratio(times["one after another"], by=times["together"])
        rows.append(Row(part, "one after another", found, "speed", target, bound))  # type: ignore[arg-type]
        steps = len(members) * clips / batch_size
        milliseconds[name] = {way: 1e3 * spread(taken).median / steps for way, taken in times.items()}
    lines = [f"| {name} | {' | '.join(digits(ms) for ms in ways.values())} |" for name, ways in milliseconds.items()]
    text = (
        f"# Linear probes\n\n{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), "
        f"load {where['load_before']} before; torch {where['torch']}. {turns_of(args)} turns.\n\n"
        "| a step of one training, ms | one after another | together |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    )
    write("probes", rows, out=args.out, machine=where, text=text, milliseconds_per_step=milliseconds)


if __name__ == "__main__":
    main()
