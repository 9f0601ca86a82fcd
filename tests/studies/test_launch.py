import sys
from collections import Counter

import pytest
from fakes import EPOCHS, identify, plan, study, trial, work

from studies.feed import trials_of
from studies.launch import Changes, count, find_root, left, load, no_longer, plan_all
from studies.plan import write_plan
from studies.store import Store
from taghead.errors import InputError
from taghead.recipes import recipe


def test_no_changes_change_nothing():
    assert Changes().of(study()) == study()


def test_data_sets_and_recipe_replace_the_bases():
    changed = Changes(datasets=["synthetic", "gym99"]).of(study())
    assert changed.datasets == {"synthetic": recipe("synthetic"), "gym99": recipe("gym99")}
    released = Changes(recipe="released").of(study())
    assert released.datasets == {"haa500": recipe("haa500", name="released")}


@pytest.mark.parametrize(("text", "seeds"), [("3", (0, 1, 2)), ("0,4", (0, 4)), ("1", (0,)), ("4,", (4,)), (",", None)])
def test_seeds_are_a_number_or_a_list(text, seeds):
    if seeds is None:
        with pytest.raises(InputError, match="--seeds takes a number of seeds, as 3, or a list"):
            Changes(seeds=text).of(study())
    else:
        assert Changes(seeds=text).of(study()).seeds == seeds


def test_what_is_kept_is_added_to_and_the_name_replaced():
    changed = Changes(keep=["weights"], name="variant").of(study(keep=("embeddings",)))
    assert changed.keep == ("embeddings", "weights")
    assert changed.name == "variant"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": ["head.alhpa=0.2"]}, "unknown key 'head.alhpa'; did you mean 'head.alpha'"),
        ({"datasets": ["gym98"]}, "no data set 'gym98'; did you mean"),
        ({"recipe": "papre"}, "no recipe 'papre'; did you mean 'paper'"),
        ({"keep": ["embedings"]}, "--keep embedings: nothing of that name; did you mean 'embeddings'"),
        ({"seeds": "many"}, "--seeds takes"),
        ({"name": "Not A Name"}, "a study's name is made of"),
    ],
)
def test_what_is_mistyped_is_told_with_the_remedy(changes, message):
    with pytest.raises(InputError, match=message):
        Changes(**changes).of(study())


def test_a_users_own_study_is_loaded_from_its_file(tmp_path):
    path = tmp_path / "my_study.py"
    path.write_text(
        "from studies.study import Study\nfrom taghead.recipes import recipe\n"
        "STUDY = Study(name='own', title='Own', rows={'a': {}}, datasets={'haa500': recipe('haa500')})\n"
    )
    assert load(f"{path}:STUDY").name == "own"
    with pytest.raises(InputError, match="no study 'STUDI'; did you mean 'STUDY'"):
        load(f"{path}:STUDI")
    with pytest.raises(InputError, match=r"no such file; a study of your own is given as my_study\.py:STUDY"):
        load(f"{tmp_path}/none.py:STUDY")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nX = (\n", ":3: SyntaxError: '(' was never closed"),
        ("X = 1\nraise RuntimeError('no\\nluck')", ":2: RuntimeError: no"),
        ("raise RuntimeError", ":1: RuntimeError"),
        (
            "from fakes import BASE\nfrom studies.study import Study\n\nSTUDY = Study(title='x', rows={}, datasets={})",
            ":4: TypeError: Study.__init__() missing 1 required keyword-only argument: 'name'",
        ),
        ("import nowhere_at_all", ":1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("from fakes import study\nSTUDY = study(rows=['a'])", ":2: study mine: rows must be a dict, but got"),
        ("from fakes import study\nSTUDY = study(keep=('all',))", ":2: study mine: unknown keep 'all'"),
        ("\nimport broken", ":2: SyntaxError: "),
    ],
)
def test_an_error_in_a_users_file_is_one_line_that_names_the_line(tmp_path, text, message):
    path = tmp_path / "s1.py"
    path.write_text(text)
    (tmp_path / "broken.py").write_text("\n\n\n)")
    with pytest.raises(InputError) as told:
        load(f"{path}:STUDY")
    assert str(told.value).startswith(f"{path}{message}")
    assert "\n" not in str(told.value)


def test_a_users_file_imports_what_lies_beside_it_and_leaves_the_path_as_it_was(tmp_path):
    (tmp_path / "bases_beside.py").write_text("from fakes import study")
    (tmp_path / "s1.py").write_text("from bases_beside import study\nSTUDY = study()")
    before = sys.path[:]
    assert load(f"{tmp_path}/s1.py:STUDY") == study()
    assert sys.path == before


def test_a_data_set_lies_in_its_sub_folder_or_alone_in_the_root(tmp_path):
    assert find_root(tmp_path, "gym99", alone=True) == tmp_path
    with pytest.raises(InputError, match="no sub-folder gym99; several data sets need one each"):
        find_root(tmp_path, "gym99", alone=False)
    (tmp_path / "gym99").mkdir()
    assert find_root(tmp_path, "gym99", alone=False) == tmp_path / "gym99"
    with pytest.raises(InputError, match="no such data root"):
        find_root(tmp_path / "none", "gym99", alone=True)


def test_each_data_set_is_read_once_for_all_studies():
    asked = []

    def ask(config):
        asked.append(config.data.dataset)
        return identify(config)

    plan_all([study(), study(name="other")], identify=ask)
    assert asked == ["haa500"]


def test_two_studies_of_one_name_are_refused():
    with pytest.raises(InputError, match="two studies of one name"):
        plan_all([study(), study()], identify=identify)


def test_only_what_is_not_there_is_left_and_more_seeds_add_just_the_new(root):
    store = Store(root)
    few, many = plan(seeds=(0, 1, 2)), plan(seeds=(0, 1, 2, 3, 4))
    for one in trials_of([few]):
        work(root)(one, lambda row: None)
    assert left(trials_of([few]), store) == []
    assert {one.seed for one in left(trials_of([many]), store)} == {3, 4}
    assert count(trials_of([many]), store) == Counter(complete=6, new=4)


def test_trials_are_counted_by_what_is_to_be_done_with_them(root):
    store = Store(root)
    for seed, keep in ((0, ["weights"]), (1, [])):
        work(root)(trial(seed, keep=keep), lambda row: None)
    store.claim(trial(2).trial_id)
    store.claim(trial(3).trial_id).release()
    asked = [trial(seed, keep=["embeddings"]) for seed in range(5)]
    assert count(asked, store) == Counter(evaluate=1, again=1, running=1, begun=1, new=1)


def test_trials_of_an_earlier_launch_under_another_setting_are_counted(root):
    write_plan(plan(), results=root)
    assert no_longer(plan(), root) == 0
    changed = study().override({"train.epochs": EPOCHS + 1})
    assert no_longer(plan_all([changed], identify=identify)[0], root) == 4


def test_a_plan_that_cannot_be_read_counts_as_none_so_that_a_launch_mends_it(root):
    write_plan(plan(), results=root).write_text("{")
    assert no_longer(plan(), root) == 0
