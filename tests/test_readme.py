"""The README tells the truth: its tree, its commands, its links and its demo table."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("readme_parts", Path(__file__).with_name("readme_parts.py"))
assert _SPEC is not None and _SPEC.loader is not None
readme_parts = importlib.util.module_from_spec(_SPEC)  # importlib mode puts no folder on the path
_SPEC.loader.exec_module(readme_parts)

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
PACKAGE = {"taghead": "taghead", "taghead-studies": "studies", "taghead-analysis": "analysis"}


def tree() -> dict[str, str]:
    """What the README's tree says of each path; folders end with a slash."""
    lines = README.split("<!-- tree: checked by a test -->")[1].split("```")[1].strip("\n").splitlines()
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, text = line.strip().partition("  ")
        folders[depth:] = [name] if name.endswith("/") else []
        found["".join(folders[:depth]) + name] = text.strip()
    return found


def source_files() -> set[str]:
    paths = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\n")
    return {
        path
        for path in paths
        if path.endswith((".py", ".jinja", ".csv")) and not path.startswith(("tests/", "results/"))
    }


@pytest.mark.skipif(not (TOP / ".git").exists(), reason="asks git which files there are")
def test_the_tree_has_every_source_file_and_no_other() -> None:
    listed = {path for path in tree() if path.endswith((".py", ".jinja", ".csv"))}
    assert listed == {path for path in source_files() if not path.endswith("__init__.py")} | {
        path for path in listed if path.endswith("__init__.py")
    }


def test_the_tree_lists_only_what_is_there_with_a_word_on_each() -> None:
    for path, text in tree().items():
        assert (TOP / path).exists(), path
        assert text, path


GROUPS = ("prepare", "datasets", "weights")  # commands that have commands of their own


def commands() -> list[str]:
    lines = re.findall(r"^(taghead(?:-\w+)? [a-z].*)$", README, flags=re.MULTILINE) + re.findall(
        r"`(taghead[\w-]* [a-z][^`]*)`", README
    )
    return sorted({line.split("  #")[0].strip() for line in lines})


def test_the_commands_are_found() -> None:
    assert len(commands()) > 5


@pytest.mark.parametrize("line", commands())
def test_every_command_s_options_exist(line: str) -> None:
    script, *rest = shlex.split(line)
    verbs = rest[: 2 if rest[0] in GROUPS else 1]
    shown = subprocess.run(
        [sys.executable, "-m", PACKAGE[script], *verbs, "--help"],
        capture_output=True, text=True, check=True, env={"COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout  # fmt: skip
    for word in rest:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word.split('=')[0])}\b", shown), f"{word} is no option of {script} {verbs}"


def test_every_link_to_a_file_leads_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (TOP / target).exists(), target


@pytest.mark.parametrize("name", readme_parts.PARTS)
def test_what_is_made_from_files_and_counts_is_what_they_say(name: str) -> None:
    assert README == readme_parts.written(README, name), "make readme writes it anew"


def test_the_three_lines_of_the_readme_work() -> None:
    import torch

    code = README.split("```python")[1].split("```")[0]
    names = {"backbone": torch.nn.Conv3d(3, 64, 4, 4), "clip": torch.zeros(2, 3, 16, 32, 32)}
    exec(code, names)
    assert names["logits"].shape == (2, 99)  # type: ignore[union-attr]
