import json

import pytest
from fakes import identify, plan, study
from hypothesis import given
from hypothesis import strategies as st

from studies.plan import make_plan, names, read_plan, write_plan
from studies.study import axis
from taghead.errors import InputError


def test_a_plan_comes_back_from_its_file_as_it_was(root):
    written = plan(text="straße", table=4, base_row="B", keep=("embeddings",))
    write_plan(written, results=root)
    assert read_plan(root, "mine") == written
    assert names(root) == ["mine"]


def test_the_same_study_writes_the_same_bytes(root):
    first = write_plan(plan(), results=root).read_bytes()
    assert write_plan(plan(), results=root).read_bytes() == first


def test_equal_experiments_share_a_trial_and_others_do_not():
    rows = {
        "no edges": {"head.edges": ()},
        "no edges, another alpha": {"head.edges": (), "head.alpha": 0.7},
        "one kind": {"head.edges": ("intra_frame",)},
    }
    cells = plan(rows=rows).cells
    assert cells[0].trials == cells[1].trials
    assert not set(cells[0].trials.values()) & set(cells[2].trials.values())


@given(seeds=st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True))
def test_more_seeds_leave_the_trials_of_those_before_as_they_are(seeds):
    few, many = plan(seeds=tuple(seeds)), plan(seeds=(*seeds, 51, 52))
    assert set(few.trial_ids()) <= set(many.trial_ids())
    assert len(many.trial_ids()) - len(few.trial_ids()) == 2 * len(few.rows)


def test_a_trial_is_the_same_whatever_study_row_or_order_it_is_planned_in():
    one = make_plan(study(rows=axis("head.alpha", [0.2, 0.3])), identify=identify)
    other = make_plan(study(name="other", rows={"x": {"head.alpha": 0.3}, "y": {"head.alpha": 0.2}}), identify=identify)
    assert sorted(one.trial_ids()) == sorted(other.trial_ids())


def test_seeds_come_one_after_another_so_that_half_a_study_has_all_rows():
    made = plan()
    first = [cell.trials[0] for cell in made.cells]
    assert list(made.trial_ids()[: len(first)]) == first


def test_a_cell_is_found_by_row_and_column():
    made = plan()
    assert made.cell("Full", "haa500").config.model.head == "tag"
    with pytest.raises(KeyError):
        made.cell("Full", "gym99")


def test_a_study_that_was_not_launched_is_told_with_the_nearest_name(root):
    with pytest.raises(InputError, match=r"no plan of study 'mine'; none was launched there"):
        read_plan(root, "mine")
    write_plan(plan(), results=root)
    with pytest.raises(InputError, match=r"no plan of study 'mime'; did you mean 'mine'"):
        read_plan(root, "mime")


def test_a_plan_that_is_damaged_or_newer_is_refused_by_its_path(root):
    path = write_plan(plan(), results=root)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(InputError, match=r"plan\.json: written by a newer taghead"):
        read_plan(root, "mine")
    path.write_text(path.read_text()[:-30])
    with pytest.raises(InputError, match=r"plan\.json: not a plan"):
        read_plan(root, "mine")
