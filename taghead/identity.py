"""What tells trials apart beside config and seed: the clips and the weights that they read. Needs no torch."""

from dataclasses import dataclass

from taghead.config import Config
from taghead.data.clips import ClipList, hold_out, read_clips
from taghead.errors import InputError
from taghead.files import fingerprint
from taghead.machine import Machine, find_weights


@dataclass(frozen=True)
class Identity:
    """What tells a trial from another beside its config and seed: fingerprints of the clips and of the weights.

    Attributes:
        data: Of the clips and their split.
        weights: Of what the backbone starts from; None for weights drawn at random.
        synthetic: Whether the clips were generated.
        validation: Whether the data set has a validation split apart from the test split.
    """

    data: str
    weights: str | None
    synthetic: bool
    validation: bool


def identify(config: Config, *, machine: Machine) -> Identity:
    """Reads the split lists and the weights file, and gives their fingerprints.

    Raises:
        InputError: Something about the data set or the weights is not right.
    """
    clips = clips_of(config, machine=machine)
    file = find_weights(config, machine.weights)
    if config.model.backbone_source is not None:
        from taghead.model import build_model  # loads torch

        build_model(config, len(clips.classes))  # fails now rather than in every trial
    return Identity(clips.fingerprint, fingerprint(file) if file else None, clips.synthetic, clips.has_validation)


def clips_of(config: Config, *, machine: Machine) -> ClipList:
    """The clips of an experiment, a part of the training clips held out for validation where it says so.

    Raises:
        InputError: The data set is not right, or has not the validation split that the config needs.
    """
    clips = read_clips(config.data.dataset, machine.data_root, missing=machine.missing)
    clips = hold_out(clips, config.data.holdout)
    if config.train.selection == "best_val" and not clips.has_validation:
        raise InputError(
            f"train.selection=best_val needs a validation split apart from the test split, and {clips.dataset} has "
            "none: selecting on the test split would flatter the scores. Use --set train.selection=last, or hold out "
            "a part of the training clips by --set data.holdout=0.1."
        )
    return clips
