import pytest
from fakes import BASE, study

from studies.study import axis, leave_one_out, product
from taghead.errors import InputError


def test_every_cell_is_its_base_with_its_rows_overrides():
    configs = study(rows={"a": {"head.alpha": 0.5}, "b": {}}).configs()
    assert list(configs) == [("a", "haa500"), ("b", "haa500")]
    assert configs["a", "haa500"].head.alpha == 0.5
    assert configs["b", "haa500"] == BASE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "My Study"}, "a study's name is made of a-z"),
        ({"name": "../up"}, "a study's name is made of a-z"),
        ({"rows": {}}, "rows must not be empty"),
        ({"datasets": {}}, "datasets must not be empty"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"seeds": (-1,)}, "not negative"),
        ({"keep": ("embedings",)}, "unknown keep 'embedings'; did you mean 'embeddings'"),
        ({"metrics": ("top5",)}, "unknown metric 'top5'; did you mean 'top1'"),
        ({"base_row": "full"}, "unknown base row 'full'; did you mean 'Full'"),
        ({"datasets": {"haa500/small": BASE}}, "data set label 'haa500/small' names files; leave out /"),
        ({"datasets": {"a\0b": BASE}}, "a label is a line of printable text"),
        ({"rows": {"": {}}}, "a label is a line of printable text, but got ''"),
        ({"note": 5}, "note must be of type str, but got 5"),
        ({"seeds": (True, False)}, "seed must be of type int, but got True"),
        ({"metrics": ()}, "metrics must not be empty"),
        ({"datasets": {"haa500": "haa500"}}, "data set haa500 must be of type Config, but got 'haa500'"),
        ({"title": 3}, "title must be of type str, but got 3"),
        ({"seeds": (0, 0.5)}, "seed must be of type int, but got 0.5"),
        ({"rows": {1: {}}}, "row name must be of type str, but got 1"),
        ({"table": "4"}, "table must be of type int, but got '4'"),
        (
            {"rows": {"a": {"head.alhpa": 0.2}}},
            "on haa500: unknown key 'head.alhpa'; did you mean 'head.alpha'",
        ),
        ({"rows": {"a": {"head.alpha": 2.0}}}, "row 'a' on haa500: head.alpha"),
    ],
)
def test_a_study_that_is_not_right_says_where_and_what_to_do(changes, message):
    with pytest.raises(InputError, match=message):
        study(**changes)


def test_overrides_go_below_the_rows_own():
    changed = study(rows={"a": {"head.alpha": 0.5}, "b": {}}).override({"head.alpha": 0.2, "train.epochs": 7})
    configs = changed.configs()
    assert [config.head.alpha for config in configs.values()] == [0.5, 0.2]
    assert {config.train.epochs for config in configs.values()} == {7}


def test_an_override_that_every_row_hides_is_refused():
    with pytest.raises(InputError, match=r"every row of study mine sets head\.alpha itself"):
        study(rows=axis("head.alpha", [0.1, 0.2])).override({"head.alpha": 0.3})


def test_an_axis_names_its_rows_by_key_and_value():
    assert axis("head.alpha", [0.1, 0.2]) == {"alpha 0.1": {"head.alpha": 0.1}, "alpha 0.2": {"head.alpha": 0.2}}
    assert list(axis("head.edges", [(), ("intra_frame", "time_aligned")], label="edges:")) == [
        "edges: none",
        "edges: intra_frame+time_aligned",
    ]


def test_a_product_has_every_combination_with_the_last_axis_fastest():
    rows = product(axis("head.alpha", [0.1, 0.2]), axis("head.k_prop", [2, 10]))
    assert list(rows) == ["alpha 0.1, k_prop 2", "alpha 0.1, k_prop 10", "alpha 0.2, k_prop 2", "alpha 0.2, k_prop 10"]
    assert rows["alpha 0.2, k_prop 2"] == {"head.alpha": 0.2, "head.k_prop": 2}


def test_a_product_of_axes_that_set_one_key_is_refused():
    with pytest.raises(InputError, match=r"two of them set head\.alpha"):
        product(axis("head.alpha", [0.1]), {"other": {"head.alpha": 0.2}})


def test_leave_one_out_is_the_whole_and_a_row_without_each_component():
    rows = leave_one_out(
        {"head.alpha": 0.2}, {"TAT": {"head.edges": ("intra_frame",)}, "encoder": {"head.num_layers": 0}}
    )
    assert rows == {
        "Full": {"head.alpha": 0.2},
        "without TAT": {"head.alpha": 0.2, "head.edges": ("intra_frame",)},
        "without encoder": {"head.alpha": 0.2, "head.num_layers": 0},
    }
    assert study(rows=rows, base_row="Full").configs()["without encoder", "haa500"].head.num_layers == 0


def test_what_switches_a_component_off_stands_above_the_bases_own_override():
    rows = leave_one_out({"head.num_layers": 4}, {"encoder": {"head.num_layers": 0}}, label="deep")
    assert rows == {"deep": {"head.num_layers": 4}, "without encoder": {"head.num_layers": 0}}


@pytest.mark.parametrize(
    ("base", "components", "options", "message"),
    [
        ({}, {}, {}, "needs components, but got none"),
        ({}, {"graph": {}}, {}, "component 'graph' changes nothing: no override is what row 'Full' has; give what"),
        (
            {"head.edges": ()},
            {"graph": {"head.edges": ()}},
            {},
            "component 'graph' changes nothing: head.edges=none is what row 'Full' has",
        ),
        (
            {},
            {"graph": {"head.edges": ()}},
            {"label": "without graph"},
            "two rows would be called 'without graph': give the base another label",
        ),
        (
            {},
            {"graph": {"head.edges": ()}, "propagation": {"head.edges": ()}},
            {},
            "rows 'without graph' and 'without propagation' would be one, by head.edges=none: leave one out",
        ),
    ],
)
def test_a_leave_one_out_that_tells_nothing_says_why(base, components, options, message):
    with pytest.raises(InputError, match=message):
        leave_one_out(base, components, **options)
