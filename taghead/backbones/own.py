"""A user's own 3D backbone: ``model.backbone=my_module:factory``, and the source that travels with the experiment.

``factory()`` gives any network that maps a clip (B, 3, F, h, w) to features (B, C, T, H, W). Its module is one file: in
the current folder, or installed; what it imports must be installed wherever trials run. The file's text is a field of
the config, so that another text is another experiment, and trials run the text that was planned.
Nothing in here loads torch before a network is built.
"""

import copy
import hashlib
import importlib.util
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taghead.errors import InputError, in_file

if TYPE_CHECKING:
    from torch import nn

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
# What a user's pixels are normalised with unless data.mean and data.std say otherwise; Kinetics-400 in one gray.
MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


def is_own(name: str) -> bool:
    """Whether a backbone's name has the form ``my_module:factory``."""
    return _NAME.fullmatch(name) is not None


def source_of(name: str) -> str | None:
    """The text of the file that builds a user's own backbone; None for a name of another form.

    Args:
        name: ``my_module:factory``.

    Raises:
        InputError: There is no such module, or it is no single file of Python.
    """
    if not is_own(name):
        return None
    module = name.partition(":")[0]
    path = Path(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        found = Path(spec.origin or "") if spec else Path()
        if found.suffix != ".py" or found.name == "__init__.py":
            raise InputError(f"{name}: no {path} in {Path.cwd()}, and no installed module {module} that is one file.")
        path = found
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None


def build_own(name: str, source: str, *, norm_momentum: float | None = None) -> "nn.Module":
    """Runs the source and calls the factory.

    Args:
        name: ``my_module:factory``.
        source: The module's text, as `source_of` gave it.
        norm_momentum: The share of the new batch in the running statistics of all batch norms; None: as they are.

    Raises:
        InputError: The source fails, holds no such function, or what that returns is no network.
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    module = name.partition(":")[0]
    file = f"{module.replace('.', '/')}.py"
    try:
        backbone = _factory(name, source, file)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(in_file(error, file)) from None
    if not isinstance(backbone, nn.Module):
        raise InputError(f"{name} must return a torch.nn.Module, but returned a {type(backbone).__name__}.")
    if norm_momentum is not None:
        for part in backbone.modules():
            if isinstance(part, _BatchNorm):
                part.momentum = norm_momentum
    return backbone


def features_of(backbone: "nn.Module", *, name: str, num_frames: int, crop_size: int) -> tuple[int, int, int, int]:
    """The features' (C, T, H, W), found by showing a copy of the network one clip.

    Args:
        backbone: A user's network.
        name: For the error message.
        num_frames: F.
        crop_size: Height and width in pixels.

    Raises:
        InputError: It cannot take such a clip, or gives something else than (B, C, T, H, W).
    """
    import torch

    probe = copy.deepcopy(backbone).eval()
    clip = (1, 3, num_frames, crop_size, crop_size)
    with torch.no_grad():
        try:  # shapes alone, which costs nothing; where the network needs numbers, with numbers
            features = probe.to("meta")(torch.empty(clip, device="meta"))
        except Exception:
            try:
                features = copy.deepcopy(backbone).eval()(torch.zeros(clip))
            except Exception as error:
                message = (str(error).strip().splitlines() or [""])[0]
                raise InputError(f"{name} fails on a clip of {clip}: {type(error).__name__}: {message}") from None
    shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
    if not (isinstance(shape, tuple) and len(shape) == 5 and shape[0] == 1 and all(shape)):
        raise InputError(f"{name} must map (B, 3, F, h, w) to (B, C, T, H, W), but made {shape} of {clip}.")
    return shape[1:]


def _factory(name: str, source: str, file: str) -> Callable[[], Any]:
    module, _, function = name.partition(":")
    # A name of its own: it hides no installed module, and classes in it find their module by it.
    unique = f"_taghead_own_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    if unique not in sys.modules:
        made = types.ModuleType(unique)
        made.__package__ = module.rpartition(".")[0]
        sys.modules[unique] = made
        try:
            exec(compile(source, file, "exec"), made.__dict__)
        except BaseException:
            del sys.modules[unique]
            raise
    factory = getattr(sys.modules[unique], function, None)
    if not callable(factory):
        raise InputError(f"{file} holds no function {function!r}.")
    return factory
