"""The committed results folder: what stands beside its trials is what they give."""

from pathlib import Path

import pytest

from analysis.formats import FORMATS
from analysis.tables import study_table
from studies.plan import names, read_plan

TOP = Path(__file__).parents[2]
EXAMPLE = Path("results/example")  # as its commands name it, from the top


@pytest.mark.parametrize("name", names(TOP / EXAMPLE))
@pytest.mark.parametrize("kind", FORMATS)
def test_its_tables_are_those_of_its_trials(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    table = study_table(EXAMPLE, read_plan(EXAMPLE, name))
    written = (EXAMPLE / "tables" / f"{table.name}.{kind}").read_text(encoding="utf-8")
    assert written == FORMATS[kind](table), "make example writes it anew"


def test_it_has_studies_and_a_finished_search() -> None:
    assert {"main", "components", "stages", "ffn_width", "alpha", "readout", "controls", "head_search"} <= set(
        names(TOP / EXAMPLE)
    )
