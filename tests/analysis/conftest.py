"""Results folders as studies would leave them; see `stored`."""

import importlib.util
import sys
from pathlib import Path

import pytest

from studies.catalog import COMPONENTS, STAGES
from studies.plan import Plan

_SPEC = importlib.util.spec_from_file_location("stored", Path(__file__).with_name("stored.py"))
assert _SPEC is not None and _SPEC.loader is not None
sys.modules["stored"] = importlib.util.module_from_spec(_SPEC)  # importlib mode puts no folder on the path
_SPEC.loader.exec_module(sys.modules["stored"])

from stored import Results  # noqa: E402


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """An empty results folder."""
    return Results(tmp_path / "results")


@pytest.fixture
def components(results: Results) -> Plan:
    """Table 4 on generated clips, every trial finished; B + TE and B + TE + IF-FC have the same logits."""
    plan = results.plan(COMPONENTS)
    for row in plan.rows:
        for seed in plan.seeds:
            results.finish(plan, row, seed=seed, stream=1 if row == "B + TE + IF-FC" else None)
    return plan


@pytest.fixture
def stages(results: Results) -> Plan:
    """Figure 3 on generated clips, every trial finished."""
    plan = results.plan(STAGES)
    for row in plan.rows:
        for seed in plan.seeds:
            results.finish(plan, row, seed=seed)
    return plan
