from typing import Any

import pytest

from taghead.complexity import COMPONENTS, Cost, count, multiply_adds, parameters
from taghead.config import canonical, evolve
from taghead.errors import InputError
from taghead.model import build_model
from taghead.recipes import recipe

SMALL = recipe("synthetic")
N, C, FFN, CLASSES = 4 * 9, 128, SMALL.head.ffn_dim, 12
NOTHING = Cost(0, 0, 0)


def costs(**overrides: Any) -> dict[str, Cost]:
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    return dict(count(evolve(SMALL, named), num_classes=CLASSES))


@pytest.mark.parametrize(
    "overrides",
    [{}, {"head__encoder": "mlp"}, {"head__rewiring": 0}, {"head__readout": "norm_mean"}, {"model__head": "linear"},
     {"head__width": 64}],
)  # fmt: skip
def test_the_parameters_are_those_of_the_model_that_is_built(overrides: dict[str, Any]) -> None:
    config = evolve(SMALL, {key.replace("__", "."): value for key, value in overrides.items()})
    built = build_model(config, CLASSES)
    assert parameters(config, num_classes=CLASSES) == sum(parameter.numel() for parameter in built.parameters())


def test_the_totals_are_the_sums_over_components() -> None:
    assert tuple(costs()) == COMPONENTS
    assert multiply_adds(SMALL, num_classes=CLASSES) == sum(cost.multiply_adds for cost in costs().values())


def test_the_mlp_costs_what_attention_costs_without_its_two_products() -> None:
    attention, mlp = costs()["encoder"], costs(head__encoder="mlp")["encoder"]
    assert mlp.multiply_adds == 2 * N * (4 * C * C + 2 * C * FFN)
    assert attention.multiply_adds - mlp.multiply_adds == 2 * 2 * N * N * C
    assert attention.parameters - mlp.parameters == 2 * C
    assert attention.as_fvcore == mlp.as_fvcore


def test_under_the_mean_readout_neither_graph_costs_a_product() -> None:
    assert costs()["graph"] == costs(head__rewiring=0)["graph"] == NOTHING


@pytest.mark.parametrize(
    ("overrides", "graphs", "steps"),
    [
        ({"head__propagation": "step_by_step"}, 1, 10),
        ({"head__propagation": "step_by_step", "head__k_prop": 3}, 1, 3),
        ({"head__propagation": "step_by_step", "head__edge_combination": "block"}, 2, 10),
        ({"head__propagation": "step_by_step", "head__rewiring": 0}, 1, 10),
        ({"head__rewiring": 0, "head__readout": "norm_mean"}, 1, 10),
        ({"head__rewiring": 0, "head__readout": "max", "head__edge_combination": "block"}, 2, 10),
        ({"head__propagation": "step_by_step", "head__edges": ()}, 0, 0),
    ],
)
def test_step_by_step_the_graph_costs_n_squared_products_a_channel_and_step(
    overrides: dict[str, Any], graphs: int, steps: int
) -> None:
    products = graphs * steps * N * N * C
    assert costs(**overrides)["graph"] == Cost(0, products, products)


def test_in_closed_form_the_graph_costs_two_small_products() -> None:
    products = 4 * 4 * C + 4 * 4 * 9 * C  # on the frames' means, and on all tokens
    assert costs(head__readout="norm_mean")["graph"] == Cost(0, products, products)


def test_configs_that_are_one_experiment_are_counted_alike() -> None:
    config = evolve(SMALL, {"head.edges": (), "head.rewiring": 1, "head.propagation": "step_by_step"})
    assert count(config, num_classes=CLASSES) == count(canonical(config), num_classes=CLASSES)


def test_a_count_cannot_be_written_to() -> None:
    with pytest.raises(TypeError):
        count(SMALL, num_classes=CLASSES)["graph"] = NOTHING  # type: ignore[index]


def test_a_user_s_own_backbone_is_refused_by_name() -> None:
    own = evolve(
        SMALL, {"model.backbone": "mine:net", "model.backbone_source": "net = None", "model.pretrained": False}
    )
    with pytest.raises(InputError, match="come with taghead only, but got 'mine:net'"):
        count(own, num_classes=CLASSES)
