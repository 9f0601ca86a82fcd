"""Where and with what a trial runs (`Machine`): folders, weights, device, threads. Never part of its identity."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from taghead.backbones import BACKBONES
from taghead.config import Config
from taghead.errors import InputError


@dataclass(frozen=True)
class Machine:
    """Where and with what a trial runs: never part of its identity.

    Attributes:
        data_root: The folder of the data set.
        weights: A file with the backbone's weights, or a folder that holds it under its public name; None takes the
            file that comes with the backbone, where there is one.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        threads: For torch on the CPU. A resumed run keeps the number that it began with.
        cache: Folder for decoded frames and stored tokens; None keeps them in memory.
        missing: What to do where the split lists name clips that are not there.
    """

    data_root: Path
    weights: Path | None = None
    device: str = "cpu"
    threads: int = 1
    cache: Path | None = None
    missing: Literal["error", "skip"] = "error"


def find_weights(config: Config, weights: Path | None) -> Path | None:
    """The file that the backbone starts from, or None where the config wants no weights.

    Raises:
        InputError: The config wants some, and there is no such file.
    """
    if not config.model.pretrained:
        return None
    name = config.model.backbone
    bundled = Path(__file__).parent / "backbones" / f"{name}.safetensors"
    if weights is None and bundled.is_file():
        return bundled
    files = BACKBONES[name].weights.files if name in BACKBONES else {}
    if weights is None:
        public = f" (public names: {', '.join(files)})" if files else ""
        raise InputError(
            f"{name} starts from weights: give --weights FILE{public}, or start from nothing by "
            "--set model.pretrained=false."
        )
    if not weights.is_dir():
        return weights
    for file in files:
        if (weights / file).is_file():
            return weights / file
    expected = f"expected one of {', '.join(files)}" if files else "name the file"
    raise InputError(f"{weights}: no weights of {name}; {expected}.")


def find_device(name: str) -> str:
    """The device that a command's ``--device`` means; ``auto`` is the GPU where there is one.

    Raises:
        InputError: A device that this machine has not; never a silent fall back to another.
    """
    if name == "cpu" or (name == "auto" and version("torch").endswith("+cpu")):
        return "cpu"
    if name != "auto" and name.split(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device is auto, cpu, cuda, cuda:N or mps, but got {name!r}.")
    import torch  # takes a second

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise InputError(f"--device {name}: not to be had here ({reason}); use cpu, or auto.") from None
    return str(device)
