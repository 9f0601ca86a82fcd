"""The commands on data: ``taghead datasets check`` and ``taghead prepare synthetic | finegym | cache``.

Nothing heavy is loaded before a command needs it.
"""

from pathlib import Path
from typing import Annotated

import typer

from taghead.command import Progress
from taghead.errors import InputError

datasets = typer.Typer(no_args_is_help=True, help="Look data sets over, before any training.")
prepare = typer.Typer(no_args_is_help=True, help="Make or prepare data.")

DATASET = "gym99, gym288, haa500, synthetic, or table (CSV lists)."
DataRoot = Annotated[Path, typer.Option(help="Folder of the data set.")]
Missing = Annotated[str, typer.Option(help="error or skip: what to do about clips that are not there.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one a core if not given.")]


@datasets.command()
def check(
    dataset: Annotated[str, typer.Option(help=DATASET)],
    data_root: DataRoot,
    missing: Missing = "error",
    decode: Annotated[bool, typer.Option(help="Whether to decode every clip, all through.")] = True,
    workers: Workers = None,
    missing_list: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the missing files, one path a line.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write all of it for programs.")] = None,
) -> None:
    """Everything that is amiss with a data set: lists, labels, missing and broken clips, leaks. Exit status 1 if so."""
    from taghead.data.check import check as look_over

    for path in (missing_list, json):
        if path and not path.parent.is_dir():  # before an hour of decoding, not after it
            raise InputError(f"no folder {path.parent} to write {path.name} to; make it, or name another one.")
    with Progress("clips decoded") as progress:
        report = look_over(
            dataset, data_root, missing=missing, decode=decode, workers=workers, on_progress=progress.show
        )
    print(report.text())
    if missing_list:
        report.write_missing_list(missing_list)
    if json:
        report.write_json(json)
    raise typer.Exit(report.exit_status)


@prepare.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Folder for the clips.")] = Path("data/synthetic"),
    size: Annotated[str, typer.Option(help="tiny, small or medium.")] = "small",
    kind: Annotated[str, typer.Option(help="fine (what time alone tells apart) or coarse (to pre-train on).")] = "fine",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
    workers: Workers = None,
) -> None:
    """Write generated clips as real H.264 files in the HAA500 layout."""
    from taghead.data.synthetic import make_dataset

    print(f"synthetic clips ({size}, {kind}, seed {seed}) in {out} ...", flush=True)
    make_dataset(out, size=size, kind=kind, seed=seed, workers=workers)
    print(f"there: {sum(1 for _ in out.glob('video/*/*.mp4'))} clips in {out}")


@prepare.command()
def finegym(
    videos: Annotated[Path, typer.Option(help="Folder with <video id>.mp4, .mkv or .webm.")],
    annotations: Annotated[Path, typer.Option(help="FineGym's JSON file, as published.")],
    out: Annotated[Path, typer.Option(help="Folder of the data set; the clips go to clips/ in it.")],
    lists: Annotated[
        list[Path],
        typer.Option("--list", metavar="FILE", help="Cut the clips of this split list only; repeatable."),
    ] = [],  # noqa: B006
    workers: Workers = None,
) -> None:
    """Cut the clips out of the source videos. The same command goes on where it was stopped. Exit status 1 if none."""
    from taghead.data.cut import cut, plan_cuts

    plan = plan_cuts(videos, annotations, out, lists=lists)
    print(plan.text(), flush=True)
    with Progress("clips") as progress:
        done = cut(plan, workers=workers, on_progress=progress.show)
    print(done.text())
    if not (done.made or done.there):
        raise typer.Exit(1)


@prepare.command()
def cache(
    data_root: DataRoot,
    folder: Annotated[Path, typer.Option("--cache", help="Folder for decoded frames, as training is given it.")],
    dataset: Annotated[str, typer.Option(help=DATASET)] = "synthetic",
    recipe: Annotated[str | None, typer.Option(help="paper, released or small.")] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="data.num_frames and data.short_side count.")
    ] = [],  # noqa: B006
    splits: Annotated[list[str] | None, typer.Option("--split", help="train, val or test; all if not given.")] = None,
    missing: Missing = "error",
    workers: Workers = None,
) -> None:
    """Decode all clips into the frame cache before training. The same command goes on where it was stopped."""
    from taghead.config import evolve, parse_overrides
    from taghead.data.clips import read_clips
    from taghead.data.fill import fill
    from taghead.recipes import recipe as base

    data = evolve(base(dataset, name=recipe), parse_overrides(overrides)).data
    clips = read_clips(dataset, data_root, missing=missing)
    wanted = [clip for name in splits for clip in clips.split(name)] if splits else clips.clips
    with Progress("clips decoded") as progress:
        done = fill(
            wanted,
            folder,
            num_frames=data.num_frames,
            short_side=data.short_side,
            workers=workers,
            on_estimate=lambda found: print(found.text(), flush=True),
            on_progress=progress.show,
        )
    print(done.text())
