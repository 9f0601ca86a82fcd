import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taghead.config import Config, build, canonical, defaults, evolve, flatten, identity, load, parse_overrides
from taghead.errors import InputError
from taghead.recipes import RECIPES, recipe


def refusal(action: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(("name", "dataset"), [(name, key) for name, family in RECIPES.items() for key in family])
def test_a_config_survives_json(name: str, dataset: str) -> None:
    config = recipe(dataset, name=name)
    assert load(config.model_dump_json()) == config
    assert evolve(Config(), flatten(config)) == config


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("head.alpha=0.2", 0.2),
        ("train.lr=1e-5", 1e-5),
        ("train.epochs=3", 3),
        ("model.pretrained=false", False),
        ("head.width=none", None),
        ("head.width=64", 64),
        ("head.edges=time_aligned,intra_frame", ("time_aligned", "intra_frame")),
        ("head.edges=none", ()),
        ("head.rewiring=0", 0),
        ("head.rewiring=none", None),
        ("data.holdout=0.1", 0.1),
        ("data.mean=0.4,0.5,0.6", (0.4, 0.5, 0.6)),
        ("data.std=none", None),
        ("model.head=linear", "linear"),
    ],
)
def test_the_field_says_how_an_override_is_read(assignment: str, value: Any) -> None:
    (read,) = parse_overrides([assignment]).values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("head.alhpa=0.2", "unknown key 'head.alhpa'; did you mean 'head.alpha'?"),
        ("alpha=0.2", "did you mean 'head.alpha'?"),
        ("head.alpha", "--set takes key=value"),
        ("head.alpha=much", "--set head.alpha: input should be a valid number"),
        ("head.alpha=1.5", "less than or equal to 1, but got 1.5"),
        ("head.alpha=nan", "head.alpha: input should be a finite number, but got nan"),
        ("train.epochs=1e-5", "--set train.epochs: input should be a valid integer"),
        ("head.edges=diagonal", "'intra_frame' or 'time_aligned'"),
        ("data.mean=0.5", "values are separated by commas"),
        (
            "data.mean=114.75,114.75,114.75",
            "data.mean: 0 <= mean <= 1 must hold, since colours are fractions of 1, but ",
        ),
        ("data.mean=0.4,-0.1,0.4", "0 <= mean <= 1 must hold, since colours are fractions of 1, but got -0.1; divide"),
        (
            "data.std=57,57,57",
            "data.std: 0 < std <= 1 must hold, since colours are fractions of 1, but got 57.0; divide",
        ),
        (
            "data.std=0.2,0,0.2",
            "data.std: 0 < std <= 1 must hold, since colours are fractions of 1, but got 0.0; divide",
        ),
        ("model.pretrained=perhaps", "--set model.pretrained: input should be a valid boolean"),
    ],
)
def test_a_wrong_override_names_the_key_the_value_and_the_rule(assignment: str, message: str) -> None:
    assert message in refusal(lambda: evolve(Config(), parse_overrides([assignment])))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": {"alhpa": 0.2}}, "unknown key 'head.alhpa'; did you mean 'head.alpha'?"),
        ({"hed": {}}, "unknown key 'hed'"),
        ({"head": {"alpha": -1}}, "head.alpha: input should be greater than or equal to 0, but got -1"),
        ({"head": {"rewiring": -1}}, "head.rewiring: input should be greater than or equal to 0, but got -1"),
        ({"data": {"holdout": 1.0}}, "data.holdout: input should be less than 1, but got 1.0"),
        ({"head": {"num_heads": 7}}, "head.num_heads must divide the 512 channels of the tokens, but got 7"),
        ({"data": {"crop_size": 200}}, "crop_size <= short_side must hold, but got 200 > 126"),
        ({"data": {"num_frames": 30}}, "num_frames must be a positive multiple of 8"),
        ({"model": {"backbone": "r2plus1d_35"}}, "did you mean 'r2plus1d_34'?"),
    ],
)
def test_a_config_that_breaks_a_rule_says_which(values: dict[str, Any], message: str) -> None:
    assert message in refusal(build, values)


def test_colours_may_be_left_as_they_are() -> None:
    data = evolve(Config(), {"data.mean": (0, 0, 0), "data.std": (1, 1, 1)}).data
    assert (data.mean, data.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert evolve(Config(), {"data.mean": None, "data.std": None}) == Config()


def test_a_config_file_that_is_no_json_names_its_line() -> None:
    with pytest.raises(InputError, match=r"mine\.json:2: not valid JSON"):
        load('{\n"head": }', source="mine.json")


def test_evolve_leaves_the_base_as_it_is() -> None:
    base = Config()
    assert evolve(base, {"head.alpha": 0.2}) != base
    assert base == Config()


UNREAD = [
    ({"model.head": "linear"}, {"head.alpha": 0.3, "head.ffn_dim": 64, "head.readout": "max"}),
    ({"head.edges": ()}, {"head.alpha": 0.3, "head.k_prop": 3, "head.edge_combination": "block"}),
    ({"head.k_prop": 0}, {"head.alpha": 0.3, "head.edge_dropout": 0.5}),
    ({"head.num_layers": 0}, {"head.ffn_dim": 64, "head.num_heads": 4, "head.norm_first": False, "head.dropout": 0.5}),
    ({"head.positional_encoding": False}, {"head.position_init": "normal"}),
    ({"head.edges": ("intra_frame",)}, {"head.edge_combination": "block"}),
    ({"head.edges": ()}, {"head.rewiring": 0, "head.propagation": "step_by_step"}),
    ({"head.k_prop": 0}, {"head.rewiring": 0, "head.propagation": "step_by_step"}),
    ({"head.encoder": "mlp"}, {"head.num_heads": 4}),
    ({"head.num_layers": 0}, {"head.encoder": "mlp"}),
    ({"head.rewiring": 0, "head.readout": "max"}, {"head.propagation": "step_by_step"}),
    ({"model.head": "linear"}, {"head.encoder": "mlp", "head.rewiring": 0, "head.propagation": "step_by_step"}),
    ({"model.freeze_backbone": True}, {"model.norm_momentum": 0.5}),
]


@pytest.mark.parametrize(("where", "unread"), UNREAD)
def test_fields_that_are_not_read_tell_no_experiments_apart(where: dict[str, Any], unread: dict[str, Any]) -> None:
    base = evolve(Config(), where)
    assert canonical(evolve(base, unread)) == canonical(base)
    for key, value in unread.items():
        assert identity(evolve(Config(), {key: value})) != identity(Config()), f"{key} is read in the default config"


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ({}, {"data.holdout": 0.1}),
        ({"head.rewiring": 0}, {"head.propagation": "step_by_step"}),
        ({"head.rewiring": 0}, {"head.rewiring": 1}),
        ({"head.readout": "max"}, {"head.propagation": "step_by_step"}),
        ({"head.encoder": "mlp"}, {"head.ffn_dim": 64}),
    ],
)
def test_controls_and_what_is_held_out_tell_experiments_apart(where: dict[str, Any], change: dict[str, Any]) -> None:
    base = evolve(Config(), where)
    assert identity(evolve(base, change)) != identity(base)


FROZEN = {"model.freeze_backbone": True}


@pytest.mark.parametrize(
    ("where", "unread"),
    [
        ({}, {"train.token_views": 0, "train.token_dtype": "float16"}),
        (FROZEN, {"train.token_dtype": "float16"}),
        ({**FROZEN, "train.token_views": 0}, {"data.train_crop": "random_resized", "data.flip": 0.0}),
    ],
    ids=["no frozen backbone", "it runs in every epoch", "only the centre crop is stored"],
)
def test_what_says_how_tokens_are_stored_is_read_where_they_are(where: dict[str, Any], unread: dict[str, Any]) -> None:
    base = evolve(Config(), where)
    assert identity(evolve(base, unread)) == identity(base)


@pytest.mark.parametrize(
    "change",
    [{"train.token_views": 0}, {"train.token_views": 2}, {"train.token_dtype": "float16"}, {"data.flip": 0.0}],
    ids=lambda change: next(iter(change)),
)
def test_stored_tokens_tell_experiments_on_a_frozen_backbone_apart(change: dict[str, Any]) -> None:
    base = evolve(Config(), {**FROZEN, "train.token_views": 1})
    assert identity(evolve(base, change)) != identity(base)
    assert identity(evolve(Config(), FROZEN)) == FROZEN


def test_a_number_of_views_is_not_negative() -> None:
    message = "train.token_views: input should be greater than or equal to 0, but got -1"
    assert message in refusal(evolve, Config(), {"train.token_views": -1})


def test_heads_need_divide_the_channels_only_where_there_is_attention() -> None:
    assert canonical(evolve(Config(), {"head.encoder": "mlp", "head.num_heads": 7})).head.num_heads == 8
    assert "must divide" in refusal(evolve, Config(), {"head.num_heads": 7})


def test_edges_are_a_set() -> None:
    one = evolve(Config(), {"head.edges": ("time_aligned", "intra_frame", "time_aligned")})
    assert one == Config()


def test_rows_equal_by_derivation_only_stay_apart() -> None:
    without = evolve(Config(), {"head.edges": ()})
    within = evolve(Config(), {"head.edges": ("intra_frame",)})
    assert identity(without) != identity(within)


def test_the_identity_of_the_defaults_is_empty() -> None:
    assert identity(Config()) == {}


@given(st.sampled_from(sorted(defaults())), st.data())
def test_canonical_is_idempotent(key: str, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([defaults()[key], 0, 1, 0.5, True, "linear", "max", (), None]))
    try:
        config = evolve(Config(), {key: value})
    except InputError:
        return
    assert canonical(canonical(config)) == canonical(config)


def test_the_released_recipe_differs_from_the_paper_in_the_fields_that_it_should() -> None:
    paper, released = (flatten(recipe("haa500", name=name)) for name in ("paper", "released"))
    assert {key for key in paper if paper[key] != released[key]} == {
        "data.short_side", "data.train_crop", "data.mean", "data.std",
        "head.dropout", "head.norm_first", "head.k_prop", "head.position_init", "head.classifier_norm",
        "train.order", "train.selection",
    }  # fmt: skip


def test_a_recipe_of_the_paper_has_the_paper_s_numbers() -> None:
    gym99, haa500 = recipe("gym99"), recipe("haa500")
    assert (gym99.data.num_frames, haa500.data.num_frames) == (64, 32)
    assert (gym99.head.ffn_dim, haa500.head.ffn_dim) == (1024, 512)
    assert (haa500.data.short_side, haa500.data.crop_size, haa500.data.flip) == (126, 112, 0.5)
    assert (haa500.train.lr, haa500.head.num_layers, haa500.head.num_heads) == (1e-5, 2, 8)


@pytest.mark.parametrize(
    ("dataset", "name", "message"),
    [
        ("gym98", None, "no data set 'gym98'; did you mean 'gym99'?"),
        ("gym99", "papre", "no recipe 'papre'; did you mean 'paper'?"),
        ("synthetic", "paper", "recipe 'paper' has no 'synthetic'"),
    ],
)
def test_an_unknown_recipe_gets_the_nearest_name(dataset: str, name: str | None, message: str) -> None:
    assert message in refusal(lambda: recipe(dataset, name=name))


def test_json_is_json() -> None:
    json.dumps(flatten(Config()))
