"""TAG-Head (arXiv 2604.11498) for 3D video backbones. Public names are loaded when they are asked for."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "TAGHead": "taghead.head",
    "LinearHead": "taghead.head",
    "grid_tokens": "taghead.head",
    "propagate": "taghead.graph",
    "frame_weights": "taghead.graph",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'taghead' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
