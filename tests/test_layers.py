"""Imports run down: analysis -> studies -> taghead, and down the floors inside taghead; no circles, nothing heavy."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGES = ("taghead", "studies", "analysis")  # from the ground up
HEAVY = ("torch", "ray", "optuna", "pandas", "matplotlib", "seaborn", "sklearn", "scipy", "av")
# Floors of taghead, from the ground up: a file may import from its own floor or from one below.
FLOORS = (
    ("errors", "files", "memory", "array_folder", "graph", "rewiring", "metrics", "command", "adam"),
    ("encoder",),
    ("head", "backbones", "data"),
    ("config",),
    ("recipes", "machine"),
    ("weights_file", "released", "weights_layout", "weights"),
    ("model",),
    ("identity",),
    ("tokens",),
    ("complexity", "fit", "linear_probes", "evaluate", "checkpoint"),
    ("record", "run", "probe", "speed"),
    ("infer", "pretrain"),
    ("data_commands",),
    ("__main__",),
)


def modules() -> dict[str, Path]:
    files = (path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
    return {".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(source: str, *, only_at_load: bool = False) -> set[str]:
    """The full names that a source imports: modules, and names from modules."""
    found: set[str] = set()
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if node in skipped or (only_at_load and (guarded or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))):
            skipped |= set(ast.iter_child_nodes(node))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def arrows(*, only_at_load: bool = False) -> dict[str, set[str]]:
    """Which of our modules imports which of our modules."""
    known = modules()

    def module_of(name: str) -> str | None:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name or None

    found = {}
    for name, path in known.items():
        targets = {module_of(target) for target in imports(path.read_text(), only_at_load=only_at_load)}
        found[name] = {target for target in targets if target} - {name}
    return found


def floor(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(FLOORS) if part in names), -1)


def upward(found: dict[str, set[str]]) -> list[str]:
    wrong = []
    for module, targets in found.items():
        for target in targets:
            here, there = (PACKAGES.index(name.split(".")[0]) for name in (module, target))
            if there > here or (here == there == 0 and floor(target) > floor(module)):
                wrong.append(f"{module} -> {target}")
    return wrong


def test_every_file_of_taghead_has_its_floor() -> None:
    assert [name for name in modules() if name.startswith("taghead.") and floor(name) < 0] == []


def test_imports_run_down() -> None:
    assert upward(arrows()) == []


def test_an_upward_import_would_be_seen() -> None:
    assert upward({"taghead.graph": {"taghead.run"}}) == ["taghead.graph -> taghead.run"]
    assert upward({"taghead.run": {"studies.plan"}}) == ["taghead.run -> studies.plan"]
    assert upward({"studies.plan": {"taghead.run"}}) == []


def test_there_are_no_circles() -> None:
    list(TopologicalSorter(arrows()).static_order())


def test_a_circle_would_be_seen() -> None:
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


def importers(package: str) -> set[str]:
    return {
        name
        for name, path in modules().items()
        if any(found.split(".")[0] == package for found in imports(path.read_text()))
    }


def test_one_file_imports_ray() -> None:
    assert importers("ray") == {"studies.executor"}


@pytest.mark.parametrize("package", ["optuna", "pandas", "matplotlib", "seaborn", "sklearn", "ray"])
def test_taghead_never_imports(package: str) -> None:
    assert not {name for name in importers(package) if name.startswith("taghead")}


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    ["taghead", "taghead.config", "taghead.record", "taghead.recipes", "taghead.__main__", "studies.catalog",
     "studies.__main__", "analysis.__main__"],
)  # fmt: skip
def test_what_answers_at_once_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") & set(HEAVY) == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert "torch" in loaded_by("import taghead.graph") & set(HEAVY)
