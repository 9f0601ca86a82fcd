"""What importing loads: names come when they are asked for, and nothing of a study comes with an experiment."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import taghead

STUDY = {"ray", "optuna", "pandas", "matplotlib", "seaborn", "sklearn", "scipy"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_neither_torch_nor_numpy_nor_anything_of_a_study() -> None:
    assert loaded_by("import taghead") & (STUDY | {"torch", "numpy"}) == set()


def test_asking_for_the_head_loads_torch_and_nothing_of_a_study() -> None:
    loaded = loaded_by("from taghead import TAGHead")
    assert "torch" in loaded
    assert loaded & STUDY == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert "scipy" in loaded_by("import scipy") & STUDY


def test_public_names_are_those_of_their_files() -> None:
    from taghead import graph, head

    assert (taghead.TAGHead, taghead.LinearHead, taghead.grid_tokens) == (
        head.TAGHead, head.LinearHead, head.grid_tokens,
    )  # fmt: skip
    assert (taghead.propagate, taghead.frame_weights) == (graph.propagate, graph.frame_weights)
    assert {"TAGHead", "propagate"} <= set(dir(taghead))


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'taghead' has no attribute 'TagHead'"):
        taghead.TagHead  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert taghead.__version__ == project["version"]
