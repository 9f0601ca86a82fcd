"""The command line of one experiment: ``taghead train | evaluate | predict | speed | weights | ...``.

Nothing heavy is loaded before a command needs it, so that ``--help`` is quick.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taghead.command import run_app
from taghead.data_commands import DATASET, DataRoot, Missing, datasets, prepare
from taghead.errors import InputError, nearest

if TYPE_CHECKING:
    from taghead.config import Config
    from taghead.machine import Machine
    from taghead.record import Keep, Record
    from taghead.speed import Part

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help="One TAG-Head trial."
)
weights = typer.Typer(no_args_is_help=True, help="Look at files of weights, or convert them.")
app.add_typer(prepare, name="prepare")
app.add_typer(datasets, name="datasets")
app.add_typer(weights, name="weights")

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")]
Threads = Annotated[int, typer.Option(min=1, help="For torch on the CPU.")]
Cache = Annotated[Path | None, typer.Option(help="Folder for decoded frames and stored tokens.")]
Trained = Annotated[
    Path, typer.Option("--weights", help="weights.safetensors of a trial or its folder, or a released TAG-Head's file.")
]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames of a clip; as the model was trained, if not given.")]
Stretch = Annotated[bool, typer.Option(help="Stretch positional encodings of another number of frames in time.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Changes a field of the config.")]

SAVED_SECONDS = 600  # after which no process is still writing a file that it has not touched


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the trial: record, history, predictions.")],
    data_root: DataRoot,
    dataset: Annotated[str, typer.Option(help=DATASET)] = "synthetic",
    recipe: Annotated[str | None, typer.Option(help="paper, released or small.")] = None,
    overrides: Overrides = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order, augmentation and dropout.")] = 0,
    start: Annotated[
        Path | None, typer.Option("--weights", help="File or folder with the backbone's public weights.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: Cache = None,
    missing: Missing = "error",
    keep: Annotated[list[str], typer.Option(help="weights, embeddings or frame_means; repeatable.")] = [],  # noqa: B006
) -> None:
    """Train and evaluate one config; the same command again goes on where it was stopped."""
    from taghead.config import evolve, parse_overrides
    from taghead.machine import Machine, find_device
    from taghead.recipes import recipe as base
    from taghead.record import KEPT_FILES, keepable
    from taghead.run import run

    config = evolve(base(dataset, name=recipe), parse_overrides(overrides))
    for name in keep:
        if name not in KEPT_FILES:
            raise InputError(f"--keep {name}: nothing of that name{nearest(name, KEPT_FILES)}")
    kept = keepable(config, keep)  # type: ignore[arg-type]
    machine = Machine(
        data_root=data_root,
        weights=start,
        device=find_device(device),
        threads=threads,
        cache=cache,
        missing=missing,  # type: ignore[arg-type]
    )
    _remove_leftovers(out)
    if (out / "record.json").is_file():
        record = _done_already(out, config, seed=seed, machine=machine, keep=kept)
    else:
        record = run(config, seed=seed, machine=machine, folder=out, keep=kept, on_epoch=_show)
        _remove_leftovers(out)  # what was too new before
    if record.status != "complete":
        print(f"{record.status}: {record.error}", file=sys.stderr)
        raise typer.Exit(1)
    scores = ", ".join(f"{name} {100 * record.metrics[name]:.1f} %" for name in ("top1", "mca"))
    print(f"{scores} on {record.data.num_test} test clips; {out}/record.json")
    if unreadable := record.data.unreadable:
        print(
            f"{len(unreadable)} clips do not decode (those of the test split count as wrong): {', '.join(unreadable)}"
        )


def _remove_leftovers(out: Path) -> None:
    """Removes what trainings left in their folder that were killed while they wrote a file.

    Another training may be writing there now: hence no files of the last `SAVED_SECONDS`. And the folder is the user's,
    who may keep hidden files of their own there: hence only those beside a trial's.
    """
    from taghead.evaluate import PREDICTIONS
    from taghead.record import KEPT_FILES
    from taghead.run import CHECKPOINT

    for name in (CHECKPOINT, "record.json", "history.csv", PREDICTIONS, *KEPT_FILES.values()):
        for path in out.glob(f".{name}.*"):
            with suppress(FileNotFoundError):  # it was being written, and is renamed
                if path.suffix[1:].isdigit() and time.time() - path.stat().st_mtime > SAVED_SECONDS:
                    path.unlink()


def _done_already(out: Path, config: "Config", *, seed: int, machine: "Machine", keep: "frozenset[Keep]") -> "Record":
    """The record that is there, if it is this trial's, with what is to be kept."""
    from taghead.identity import identify
    from taghead.record import KEPT_FILES, read_record, trial_id
    from taghead.run import complete

    record = read_record(out)
    who = identify(config, machine=machine)
    if record.trial_id != trial_id(config, seed=seed, data=who.data, weights=who.weights):
        raise InputError(f"{out} holds another trial ({record.trial_id}, seed {record.seed}); name another folder.")
    if not all((out / KEPT_FILES[name]).is_file() for name in keep):
        complete(out, machine=machine, keep=keep)
    print(f"{out}: this trial is done already ({record.trial_id}).")
    return record


@app.command()
def evaluate(
    trained: Trained,
    data_root: DataRoot,
    dataset: Annotated[str | None, typer.Option(help="The one that the model was trained on, if not given.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    num_frames: Frames = None,
    interpolate_positions: Stretch = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips at once; as in its trial, if not given.")] = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: Cache = None,
    missing: Missing = "error",
    out: Annotated[Path | None, typer.Option(help="Folder for predictions.npz: ids, labels, logits.")] = None,
) -> None:
    """Top-1 and MCA of a trained model on a split, with 95 % intervals. Ours or a released one."""
    from taghead.infer import evaluate_split, summary
    from taghead.machine import Machine, find_device
    from taghead.model import load_any
    from taghead.released import NUM_CLASSES

    machine = Machine(data_root, device=find_device(device), threads=threads, cache=cache, missing=missing)  # type: ignore[arg-type]
    # a released model may be shown clips of CSV lists, as its authors do
    released = dataset if dataset in NUM_CLASSES else None
    model = load_any(trained, released, num_frames=num_frames, interpolate_positions=interpolate_positions)
    found = evaluate_split(model, machine=machine, dataset=dataset, split=split, batch_size=batch_size)  # type: ignore[arg-type]
    print(f"{trained}: {model.config.model.backbone} with {model.config.data.num_frames} frames a clip")
    print(summary(found))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        found.predictions.save(out)


@app.command()
def predict(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files.")],
    trained: Trained,
    dataset: Annotated[str | None, typer.Option(help="Of a released model; told by its classes, if not given.")] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names: gym99_categories.txt and the like, or one a line.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    num_frames: Frames = None,
    interpolate_positions: Stretch = False,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """The most likely classes of video files."""
    import torch

    from taghead.infer import classify, read_class_names
    from taghead.machine import find_device
    from taghead.model import load_any

    torch.set_num_threads(threads)
    place = torch.device(find_device(device))
    model = load_any(trained, dataset, num_frames=num_frames, interpolate_positions=interpolate_positions)
    names = read_class_names(classes, num_classes=model.num_classes) if classes else model.classes
    model.model.to(place)
    unreadable = 0
    for video in videos:
        try:
            best = classify(model, video, device=place, top=top)
        except InputError as error:  # one unreadable file hides no other
            unreadable += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        print(video)
        for label, chance in best:
            print(f"  {100 * chance:5.1f} %  {names[label] if names else f'class {label}'}")
    raise typer.Exit(1 if unreadable else 0)


@weights.command()
def inspect(file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of weights.")]) -> None:
    """What a file of weights is: its layout, and whose network's tensors it holds."""
    from taghead.weights import inspect as look

    print(look(file))


@weights.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of weights.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
) -> None:
    """Write a file's tensors as safetensors, by the network's own names."""
    from taghead.weights import convert as write

    print(write(file, out))


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


@app.command()
def speed(
    out: Annotated[Path, typer.Option(help="The JSON file; what it holds already is not measured again.")] = Path(
        "results/speed.json"
    ),
    backbones: Annotated[str, typer.Option(help="Separated by commas; all if not given.")] = "",
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip.")] = 32,
    size: Annotated[int, typer.Option(min=1, help="Height and width of a clip in pixels.")] = 112,
    batch: Annotated[str, typer.Option(help="Clips at once, separated by commas.")] = "1,8",
    overrides: Annotated[list[str], typer.Option("--set", metavar="head.KEY=VALUE", help="Changes the head.")] = [],  # noqa: B006
    device: Device = "auto",
    threads: Threads = 1,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for autocast.")] = "float32",
    turns: Annotated[int | None, typer.Option(min=1, help="Timed turns; 5 on a CPU, 50 elsewhere.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure also what the file holds.")] = False,
) -> None:
    """Latency, clips a second and peak memory of each backbone, bare and with the head."""
    from taghead import speed as measured
    from taghead.config import parse_overrides
    from taghead.machine import find_device

    if precision not in ("float32", "bfloat16"):
        raise InputError(f"--precision is float32 or bfloat16, but got {precision!r}.")
    try:
        sizes = [int(word) for word in batch.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--batch takes whole numbers separated by commas, as 1,8, but got {batch!r}.") from None
    names = [word.strip() for word in backbones.split(",") if word.strip()]
    wanted = measured.subjects(
        names, num_frames=frames, crop_size=size, batch_sizes=sizes, overrides=parse_overrides(overrides)
    )
    where = {"device": find_device(device), "threads": threads, "precision": precision}
    measured.measure(out, wanted, **where, turns=turns, again=again, on_part=_show_part)  # type: ignore[arg-type]
    print(f"{out}: taghead-analysis latency shows it")


def _show_part(part: "Part") -> None:
    head = "bare" if part.subject.head is None else "with head"
    memory = "" if part.peak_memory_bytes is None else f", {part.peak_memory_bytes / 1e6:,.0f} MB"
    numbers = f"{1000 * part.median:,.1f} ms, {part.clips_per_second:.3g} clips/s{memory}"
    print(f"{part.subject.backbone} {head}, batch {part.subject.batch_size}: {part.error or numbers}", flush=True)


def _show(row: dict[str, Any]) -> None:
    val = f", val top1 {100 * row['val_top1']:.1f} %" if "val_top1" in row else ""
    print(f"epoch {row['epoch']}/{row['epochs']}: loss {row['loss']:.4f}{val}", flush=True)


def main() -> None:
    """The console script ``taghead``."""
    run_app(app)


if __name__ == "__main__":
    main()
