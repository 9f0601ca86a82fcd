"""The command line of one experiment: ``taghead train | prepare | pretrain``.

Nothing heavy is loaded before a command needs it, so that ``--help`` is quick.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taghead.command import run_app
from taghead.errors import InputError, nearest

if TYPE_CHECKING:
    from taghead.config import Config
    from taghead.record import Record
    from taghead.run import Machine

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help="One TAG-Head trial."
)
prepare = typer.Typer(no_args_is_help=True, help="Make or prepare data.")
app.add_typer(prepare, name="prepare")

Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Changes a field of the config.")]


@prepare.command("synthetic")
def prepare_synthetic(
    out: Annotated[Path, typer.Option(help="Folder for the clips.")] = Path("data/synthetic"),
    size: Annotated[str, typer.Option(help="tiny, small or medium.")] = "small",
    kind: Annotated[str, typer.Option(help="fine (what time alone tells apart) or coarse (to pre-train on).")] = "fine",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")] = None,
) -> None:
    """Write generated clips as real H.264 files in the HAA500 layout."""
    from taghead.data.synthetic import make_dataset

    print(f"synthetic clips ({size}, {kind}, seed {seed}) in {out} ...", flush=True)
    make_dataset(out, size=size, kind=kind, seed=seed, workers=workers)
    print(f"there: {sum(1 for _ in out.glob('video/*/*.mp4'))} clips in {out}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the trial: record, history, predictions.")],
    data_root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    dataset: Annotated[str, typer.Option(help="gym99, gym288, haa500, synthetic, or table (CSV lists).")] = "synthetic",
    recipe: Annotated[str | None, typer.Option(help="paper, released or small.")] = None,
    overrides: Overrides = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, augmentation and dropout.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="File or folder with the backbone's public weights.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="For torch on the CPU.")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded frames.")] = None,
    missing: Annotated[str, typer.Option(help="error or skip: what to do about clips that are not there.")] = "error",
    keep: Annotated[list[str], typer.Option(help="weights, embeddings or frame_means; repeatable.")] = [],  # noqa: B006
) -> None:
    """Train and evaluate one config; the same command again goes on where it was stopped."""
    from taghead.config import evolve, parse_overrides
    from taghead.recipes import recipe as base
    from taghead.record import KEPT_FILES
    from taghead.run import Machine, find_device, run

    config = evolve(base(dataset, name=recipe), parse_overrides(overrides))
    for name in keep:
        if name not in KEPT_FILES:
            raise InputError(f"--keep {name}: nothing of that name{nearest(name, KEPT_FILES)}")
    machine = Machine(
        data_root=data_root,
        weights=weights,
        device=find_device(device),
        threads=threads,
        cache=cache,
        missing=missing,  # type: ignore[arg-type]
    )
    if (out / "record.json").is_file():
        record = _done_already(out, config, seed=seed, machine=machine, keep=keep)
    else:
        record = run(config, seed=seed, machine=machine, folder=out, keep=keep, on_epoch=_show)  # type: ignore[arg-type]
    if record.status != "complete":
        print(f"{record.status}: {record.error}", file=sys.stderr)
        raise typer.Exit(1)
    scores = ", ".join(f"{name} {100 * record.metrics[name]:.1f} %" for name in ("top1", "mca"))
    print(f"{scores} on {record.data.num_test} test clips; {out}/record.json")
    if unreadable := record.data.unreadable:
        print(
            f"{len(unreadable)} clips do not decode (those of the test split count as wrong): {', '.join(unreadable)}"
        )


def _done_already(out: Path, config: "Config", *, seed: int, machine: "Machine", keep: list[str]) -> "Record":
    """The record that is there, if it is this trial's, with what is to be kept."""
    from taghead.record import KEPT_FILES, read_record, trial_id
    from taghead.run import complete, identify

    record = read_record(out)
    who = identify(config, machine=machine)
    if record.trial_id != trial_id(config, seed=seed, data=who.data, weights=who.weights):
        raise InputError(f"{out} holds another trial ({record.trial_id}, seed {record.seed}); name another folder.")
    if not all((out / KEPT_FILES[name]).is_file() for name in keep):  # type: ignore[index]
        complete(out, machine=machine, keep=keep)  # type: ignore[arg-type]
    print(f"{out}: this trial is done already ({record.trial_id}).")
    return record


@app.command()
def pretrain(
    out: Annotated[
        Path, typer.Option(help="The safetensors file to write; a JSON file with the facts goes beside it.")
    ],
    data: Annotated[Path, typer.Option(help="Folder for the generated clips.")] = Path("data/synthetic-coarse"),
    work: Annotated[Path, typer.Option(help="Folder of the trial.")] = Path("results/pretrain"),
    size: Annotated[str, typer.Option(help="tiny, small or medium.")] = "medium",
    seed: Annotated[int, typer.Option(min=0, help="Of data and training.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="For torch.")] = 1,
) -> None:
    """Pre-train the narrow backbone on generated coarse motions."""
    from taghead.pretrain import pretrain as make

    facts = make(out, data=data, work=work, size=size, seed=seed, threads=threads, on_epoch=_show)  # type: ignore[arg-type]
    print(f"{out}: Top-1 {100 * facts['test_top1']:.1f} % on {facts['clips']['test']} test clips")


def _show(row: dict[str, Any]) -> None:
    val = f", val top1 {100 * row['val_top1']:.1f} %" if "val_top1" in row else ""
    print(f"epoch {row['epoch']}/{row['epochs']}: loss {row['loss']:.4f}{val}", flush=True)


def main() -> None:
    """The console script ``taghead``."""
    run_app(app)


if __name__ == "__main__":
    main()
