from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taghead.errors import InputError
from taghead.graph import EDGES, INTRA_FRAME, TIME_ALIGNED, frame_weights, propagate_reference
from taghead.head import READOUTS, LinearHead, TAGHead, grid_tokens, interpolate_positions
from taghead.rewiring import propagate_rewired, rewired_weights

CHANNELS, GRID, CLASSES = 16, (4, 3, 2), 5
NOT_LINEAR = ("norm_mean", "max", "attention")


def head(*, seed: int = 0, **options: Any) -> TAGHead:
    torch.manual_seed(seed)
    return TAGHead(CHANNELS, GRID, CLASSES, **({"ffn_dim": 32} | options))


def random_tokens(dtype: torch.dtype = torch.float32, clips: int = 3) -> Tensor:
    return torch.randn(clips, 4, 6, CHANNELS, generator=torch.Generator().manual_seed(1), dtype=dtype)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def stirred(module: TAGHead) -> TAGHead:
    """No parameter at zero or one any more, so that each of them matters."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def test_tokens_are_the_features_site_by_site() -> None:
    features = torch.randn(2, 3, 4, 5, 6)
    tokens = grid_tokens(features)
    assert tokens.shape == (2, 4, 30, 3)
    assert torch.equal(tokens[1, 2, 4 * 6 + 5], features[1, :, 2, 4, 5])


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"width": 8}, {"num_layers": 0}, {"positional_encoding": False}, {"edges": ()}, {"edge_dropout": 0.5},
        {"num_layers": 0, "positional_encoding": False, "edges": ()}, {"classifier_norm": True, "norm_first": False},
        {"dropout": 0.5, "activation": "gelu", "edge_combination": "block", "position_init": "normal"},
        {"encoder": "mlp", "dropout": 0.5, "norm_first": False}, {"rewiring": 0}, {"propagation": "step_by_step"},
        {"rewiring": 0, "propagation": "step_by_step", "edge_combination": "block", "edge_dropout": 0.5},
    ],
)  # fmt: skip
def test_every_part_can_be_changed_or_left_out(readout: str, options: dict[str, Any]) -> None:
    module = head(readout=readout, **options)
    width = options.get("width", CHANNELS)
    assert module.encode(random_tokens()).shape == (3, 4, 6, width)
    assert module.embed(random_tokens()).shape == (3, width)
    logits = module(random_tokens())
    assert logits.shape == (3, CLASSES)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


# The number and the names of the parameters


@pytest.mark.parametrize(("ffn_dim", "expected"), [(2048, 6_405_120), (1024, 4_305_920), (512, 3_256_320)])
def test_without_classifier_the_head_has_the_size_of_table_5_at_ffn_2048_only(ffn_dim: int, expected: int) -> None:
    with torch.device("meta"):
        module = TAGHead(512, (4, 7, 7), 99, ffn_dim=ffn_dim)
    assert num_parameters(module) - num_parameters(module.classifier) == expected


def test_the_graph_has_no_parameters_and_neither_has_the_mean() -> None:
    assert head().state_dict().keys() == head(edges=(), readout="max").state_dict().keys()


def test_names_and_shapes_are_those_of_the_released_checkpoints() -> None:
    module = TAGHead(512, (4, 7, 7), 500, ffn_dim=512, norm_first=False, classifier_norm=True)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(512, 8, 512, batch_first=True), 2, enable_nested_tensor=False
    )
    expected = {f"transformer.{name}": value.shape for name, value in encoder.state_dict().items()} | {
        "pos_embedding": (1, 196, 512),
        "classifier.0.weight": (512,),
        "classifier.0.bias": (512,),
        "classifier.1.weight": (500, 512),
        "classifier.1.bias": (500,),
    }
    assert {name: value.shape for name, value in module.state_dict().items()} == expected


# What the numbers are


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_encoder_is_pytorch_s(activation: str, norm_first: bool, training: bool) -> None:
    module = stirred(head(norm_first=norm_first, activation=activation, num_heads=4)).double()
    layer = nn.TransformerEncoderLayer(CHANNELS, 4, 32, 0.0, activation, batch_first=True, norm_first=norm_first)
    peer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    peer.load_state_dict(module.transformer.state_dict())
    tokens = random_tokens(torch.float64)
    positions = module.get_parameter("pos_embedding")
    expected = peer.train(training)(tokens.flatten(1, 2) + positions).view_as(tokens)
    assert torch.allclose(module.train(training).encode(tokens), expected, rtol=0, atol=1e-12)


def test_training_without_dropout_and_evaluation_give_the_same_bits() -> None:
    module = head()
    with torch.no_grad():
        assert torch.equal(module.train()(random_tokens()), module.eval()(random_tokens()))


def test_dropout_acts_in_training_only() -> None:
    module = head(dropout=0.5)
    assert not torch.equal(module(random_tokens()), module(random_tokens()))
    module.eval()
    assert torch.equal(module(random_tokens()), module(random_tokens()))


def test_without_parts_the_head_is_the_mean_and_a_linear_map() -> None:
    module = head(num_layers=0, positional_encoding=False, edges=())
    linear = LinearHead(CHANNELS, CLASSES)
    linear.classifier.load_state_dict(module.classifier.state_dict())
    assert torch.allclose(module(random_tokens()), linear(random_tokens()), atol=1e-6)
    assert torch.equal(linear.encode(random_tokens()), random_tokens())
    assert torch.equal(linear.classify(linear.embed(random_tokens())), linear(random_tokens()))


POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda nodes: nodes.mean(dim=1),
    "norm_mean": lambda nodes: (
        (nodes - nodes.mean(-1, True)) / (nodes.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    ).mean(dim=1),
    "max": lambda nodes: nodes.max(dim=1).values,
    "attention": lambda nodes: nodes.mean(dim=1),  # at the start
}


@pytest.mark.parametrize("combination", ["union", "block"])
@pytest.mark.parametrize("readout", READOUTS)
def test_embedding_is_the_readout_of_the_reference_propagation(readout: str, combination: str) -> None:
    module = head(readout=readout, edge_combination=combination, alpha=0.2, k_prop=4).double()
    tokens = random_tokens(torch.float64)
    nodes = propagate_reference(module.encode(tokens), alpha=0.2, k_prop=4, edge_combination=combination)
    expected = POOLED[readout](nodes.flatten(1, 2))
    assert torch.allclose(module.embed(tokens), expected, rtol=0, atol=1e-12)


def test_attention_turns_to_the_nodes_that_resemble_its_query() -> None:
    module = head(readout="attention", num_layers=0, positional_encoding=False, edges=())
    tokens = random_tokens()
    module.get_parameter("readout.query").data = 1e4 * tokens[1, 2, 3]
    scores = tokens.flatten(1, 2) @ tokens[1, 2, 3]
    nearest = tokens.flatten(1, 2)[torch.arange(3), scores.argmax(dim=1)]
    assert torch.allclose(module.embed(tokens), nearest, atol=1e-5)


@pytest.mark.parametrize("readout", READOUTS)
def test_gradients_are_those_of_finite_differences(readout: str) -> None:
    torch.manual_seed(0)
    module = stirred(TAGHead(4, (2, 2, 1), 3, num_heads=2, ffn_dim=6, num_layers=1, readout=readout, activation="gelu"))
    tokens = torch.randn(2, 2, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module.double(), tokens)


@pytest.mark.parametrize("readout", READOUTS)
def test_autocast_gives_the_logits_but_for_bfloat16_s_rounding(readout: str) -> None:
    module = head(readout=readout)
    exact = module(random_tokens())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(random_tokens())
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), exact, atol=0.05)


def test_a_head_in_bfloat16_stays_there() -> None:
    assert head().bfloat16()(random_tokens(torch.bfloat16)).dtype == torch.bfloat16


# What the graph does to the prediction, and where


def logits_and_gradients(**options: Any) -> tuple[Tensor, ...]:
    module = head(**options)
    logits = module(random_tokens())
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    return (logits, *(parameter.grad for parameter in module.parameters() if parameter.grad is not None))


@pytest.mark.parametrize("options", [{}, {"classifier_norm": True, "norm_first": False}, {"num_layers": 0}])
def test_intra_frame_edges_leave_logits_and_gradients_to_the_bit_under_a_mean_readout(options: dict[str, Any]) -> None:
    without = logits_and_gradients(edges=(), **options)
    settings: list[dict[str, Any]] = [{"alpha": 0.1}, {"alpha": 0.77, "k_prop": 3}, {"edge_combination": "block"}]
    for setting in settings:
        alone = logits_and_gradients(edges=(INTRA_FRAME,), **setting, **options)
        assert all(torch.equal(one, other) for one, other in zip(without, alone, strict=True))
    assert not torch.equal(without[0], logits_and_gradients(edges=(TIME_ALIGNED,), **options)[0])


@pytest.mark.parametrize("readout", NOT_LINEAR)
def test_other_readouts_see_intra_frame_edges(readout: str) -> None:
    without, alone = (stirred(head(readout=readout, edges=edges))(random_tokens()) for edges in ((), (INTRA_FRAME,)))
    assert not torch.allclose(without, alone, atol=1e-3)


@pytest.mark.parametrize("readout", READOUTS)
def test_without_edges_the_number_of_steps_is_of_no_matter_to_the_bit(readout: str) -> None:
    first, second = (
        head(readout=readout, edges=edges, k_prop=k_prop, alpha=alpha)(random_tokens())
        for edges, k_prop, alpha in (((), 9, 0.3), (EDGES, 0, 0.1))
    )
    assert torch.equal(first, second)


def test_under_a_mean_readout_every_graph_is_its_frame_weights_times_the_frame_means() -> None:
    for edges in (EDGES, (TIME_ALIGNED,), ()):
        module = head(edges=edges).double()
        tokens = random_tokens(torch.float64)
        means = module.encode(tokens).mean(dim=2)
        weights = module.frame_weights
        assert torch.equal(weights, frame_weights((4, 6), alpha=0.1, k_prop=10, edges=edges))
        assert torch.allclose(module.embed(tokens), torch.einsum("t,btc->bc", weights, means), rtol=0, atol=1e-14)


@pytest.mark.parametrize("readout", READOUTS)
def test_edges_are_dropped_in_training_only(readout: str) -> None:
    module = head(readout=readout, edge_dropout=0.5)
    assert not torch.equal(module(random_tokens()), module(random_tokens()))
    assert torch.equal(module.eval()(random_tokens()), head(readout=readout).eval()(random_tokens()))


@pytest.mark.parametrize("options", [{"edges": ()}, {"k_prop": 0}])
def test_where_no_edge_is_used_none_is_dropped(options: dict[str, Any]) -> None:
    assert torch.equal(head(edge_dropout=0.5, **options)(random_tokens()), head(**options)(random_tokens()))


# Where the mean readout pools

GRAPHS: list[dict[str, Any]] = [
    {}, {"edges": ()}, {"edges": (TIME_ALIGNED,), "alpha": 0.3}, {"edge_combination": "block"}, {"rewiring": 5},
]  # fmt: skip


def logits_and_all_gradients(module: TAGHead, tokens: Tensor) -> list[Tensor]:
    leaf = tokens.clone().requires_grad_()
    logits = module(leaf)
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]))
    return [logits, *torch.autograd.grad(loss, [leaf, *module.parameters()])]


def early_and_late(dtype: torch.dtype, *, training: bool = True, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Logits and gradients with the mean taken before the encoder's last linear map, and at the end as in Eq. 3."""
    module = stirred(head(**options)).to(dtype).train(training)
    early = logits_and_all_gradients(module, random_tokens(dtype))
    module.pools_early = False
    return early, logits_and_all_gradients(module, random_tokens(dtype))


def distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 1, "activation": "gelu"}, {"encoder": "mlp"}, {"width": 8, "classifier_norm": True},
     {"dropout": 0.5, "training": False}],
)  # fmt: skip
def test_pooling_before_the_last_map_gives_the_logits_and_gradients_of_pooling_at_the_end(
    options: dict[str, Any], graph: dict[str, Any], dtype: torch.dtype, bound: float
) -> None:
    early, late = early_and_late(dtype, **options, **graph)
    assert max(distance(one, other) for one, other in zip(early, late, strict=True)) < bound


def test_frame_weights_need_not_sum_to_one_and_the_last_bias_knows() -> None:
    module = stirred(head(edges=(TIME_ALIGNED,))).double()
    assert abs(module.frame_weights.sum().item() - 1) > 1e-3
    bias, tokens = module.get_parameter("transformer.layers.1.linear2.bias"), random_tokens(torch.float64)
    before = module.embed(tokens)
    with torch.no_grad():
        bias.add_(1)
    assert torch.allclose(module.embed(tokens) - before, module.frame_weights.sum().expand_as(before), atol=1e-12)


@pytest.mark.parametrize("options", [{"norm_first": False}, {"dropout": 0.5}, {"num_layers": 0}])
def test_after_a_norm_or_dropout_and_without_an_encoder_the_mean_is_taken_at_the_end(options: dict[str, Any]) -> None:
    bits = []
    for pools_early in (True, False):
        module = stirred(head(**options))
        module.pools_early = pools_early
        torch.manual_seed(3)  # of dropout
        bits.append(module(random_tokens()))
    assert torch.equal(*bits)


@pytest.mark.parametrize("training", [True, False])
def test_the_last_map_of_the_encoder_meets_one_vector_a_clip(training: bool) -> None:
    with torch.device("meta"):
        module, tokens = head().train(training), torch.empty(1, 4, 6, CHANNELS)
    counts = []
    for pools_early in (True, False):
        module.pools_early = pools_early
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(tokens)
        counts.append(counter.get_flop_counts()["TAGHead.transformer"].values())
    early, late = (sum(count) // 2 for count in counts)
    assert late - early == (4 * 6 - 1) * 32 * CHANNELS


def test_features_with_channels_first_are_turned_once_and_give_the_bits_of_tokens() -> None:
    features = torch.randn(3, CHANNELS, 4, 3, 2)
    for options in ({}, {"positional_encoding": False}):
        module = stirred(head(**options))
        encoded = module.encode(grid_tokens(features))
        assert encoded.is_contiguous()
        assert torch.equal(encoded, module.encode(grid_tokens(features).contiguous()))


# The controls


def test_the_mlp_in_place_of_attention_has_its_parameters_but_for_d() -> None:
    d = 512
    with torch.device("meta"):
        sizes = [
            num_parameters(TAGHead(d, (4, 7, 7), 9, num_layers=1, encoder=encoder)) for encoder in ("attention", "mlp")
        ]
    assert sizes[0] - sizes[1] == (4 * d * d + 4 * d) - (4 * d * d + 3 * d)
    assert num_parameters(head(encoder="mlp").get_submodule("transformer.layers.0.mlp1")) == 16 * 32 + 32
    assert num_parameters(head(encoder="mlp").get_submodule("transformer.layers.0.mlp2")) == 32 * 16 + 16


@pytest.mark.parametrize("options", [{}, {"norm_first": False, "activation": "gelu"}])
def test_with_the_mlp_no_token_sees_another_before_the_graph(options: dict[str, Any]) -> None:
    module, tokens = stirred(head(encoder="mlp", **options)), random_tokens()
    other = tokens.clone()
    other[0, 1, 2] += 1.0
    changed = (module.encode(tokens) != module.encode(other)).any(dim=-1)
    assert changed.nonzero().tolist() == [[0, 1, 2]]
    attends = stirred(head(**options))
    assert (attends.encode(tokens) != attends.encode(other)).any(dim=-1)[0].all()


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_mlp_stands_where_attention_stood(norm_first: bool) -> None:
    module = stirred(head(encoder="mlp", num_layers=1, positional_encoding=False, norm_first=norm_first)).double()
    layer, x = module.get_submodule("transformer.layers.0"), random_tokens(torch.float64)
    part: dict[str, Any] = dict(layer.named_children())

    def two_maps(first: str, second: str, y: Tensor) -> Tensor:
        return part[second](part[first](y).relu())

    if norm_first:
        x1 = x + two_maps("mlp1", "mlp2", part["norm1"](x))
        expected = x1 + two_maps("linear1", "linear2", part["norm2"](x1))
    else:
        x1 = part["norm1"](x + two_maps("mlp1", "mlp2", x))
        expected = part["norm2"](x1 + two_maps("linear1", "linear2", x1))
    assert torch.allclose(module.encode(x), expected, rtol=0, atol=1e-12)


def test_the_mlp_needs_no_heads_and_has_dropout_in_training_only() -> None:
    module = head(encoder="mlp", width=12, dropout=0.5)
    assert not torch.equal(module(random_tokens()), module(random_tokens()))
    module.eval()
    assert torch.equal(module(random_tokens()), module(random_tokens()))


def test_all_else_that_a_head_with_the_mlp_draws_starts_as_beside_attention() -> None:
    usual, control = head().state_dict(), head(encoder="mlp").state_dict()
    both = usual.keys() & control.keys()
    assert {name.split(".")[-2] for name in control.keys() - usual.keys()} == {"mlp1", "mlp2"}
    assert {"classifier.weight", "transformer.layers.1.linear2.weight"} < both
    assert all(torch.equal(usual[name], control[name]) for name in both)
    assert all(torch.equal(control[name], control[name.replace("layers.1", "layers.0")]) for name in control)


@pytest.mark.parametrize("combination", ["union", "block"])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("propagation", ["closed_form", "step_by_step"])
def test_a_rewired_head_reads_out_what_propagation_on_the_control_graph_gives(
    readout: str, combination: str, propagation: str
) -> None:
    graph: dict[str, Any] = {"alpha": 0.2, "k_prop": 4, "edge_combination": combination, "rewiring": 5}
    module = head(readout=readout, propagation=propagation, **graph).double()
    tokens = random_tokens(torch.float64)
    nodes = propagate_rewired(module.encode(tokens), **graph).flatten(1, 2)
    assert torch.allclose(module.embed(tokens), POOLED[readout](nodes), rtol=0, atol=1e-12)
    weights = rewired_weights((4, 6), **graph).view(4, 6).sum(dim=1)
    assert torch.allclose(module.frame_weights, weights, rtol=0, atol=1e-15)


@pytest.mark.parametrize("readout", NOT_LINEAR)
def test_other_readouts_see_the_rewiring(readout: str) -> None:
    logits = [stirred(head(readout=readout, rewiring=seed))(random_tokens()) for seed in (None, 0, 1)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(logits[one], logits[other], atol=1e-4)


def test_under_a_mean_readout_rewired_intra_frame_edges_give_the_bits_of_no_graph() -> None:
    without, rewired = (logits_and_gradients(**options) for options in (
        {"edges": ()}, {"edges": (INTRA_FRAME,), "rewiring": 3},
    ))  # fmt: skip
    assert all(torch.equal(one, other) for one, other in zip(without, rewired, strict=True))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("control", [{"rewiring": 0}, {"propagation": "step_by_step"}])
@pytest.mark.parametrize("options", [{"edges": ()}, {"k_prop": 0}])
def test_where_no_edge_is_used_a_control_of_the_graph_changes_no_bit(
    options: dict[str, Any], control: dict[str, Any], readout: str
) -> None:
    usual, other = (head(readout=readout, **options, **more)(random_tokens()) for more in ({}, control))
    assert torch.equal(usual, other)


@pytest.mark.parametrize("k_prop", [1, 2, 10])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("graph", [{"edges": (INTRA_FRAME,)}, {"edges": (TIME_ALIGNED,)}, {"edges": EDGES},
                                   {"edge_combination": "block"}, {"rewiring": 0}])  # fmt: skip
def test_under_the_mean_readout_fixed_weights_are_the_graph(graph: dict[str, Any], alpha: float, k_prop: int) -> None:
    """No adjacency is in the one, K_prop products with it in the other: logits agree to float32's rounding."""
    fixed, graph_really = (
        stirred(head(alpha=alpha, k_prop=k_prop, propagation=propagation, **graph))(random_tokens())
        for propagation in ("closed_form", "step_by_step")
    )
    assert torch.allclose(fixed, graph_really, rtol=1e-5, atol=1e-5)
    in_double = [
        stirred(head(alpha=alpha, k_prop=k_prop, propagation=propagation, **graph)).double()(
            random_tokens(torch.float64)
        )
        for propagation in ("closed_form", "step_by_step")
    ]
    assert torch.allclose(*in_double, rtol=0, atol=1e-11)  # the weights have 12 decimals


def losses_of_training(**options: Any) -> list[float]:
    module, tokens, labels = head(**options), random_tokens(), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(module(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_with_fixed_weights_is_training_with_the_graph_but_for_rounding() -> None:
    fixed, graph_really = (losses_of_training(propagation=name) for name in ("closed_form", "step_by_step"))
    assert fixed[-1] < 0.1 * fixed[0], "something is learnt"
    assert fixed == pytest.approx(graph_really, rel=1e-4, abs=1e-6)
    assert losses_of_training(propagation="step_by_step", edges=(TIME_ALIGNED,)) != pytest.approx(
        graph_really, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("options", [{"encoder": "mlp"}, {"rewiring": 0}, {"propagation": "step_by_step"}])
@pytest.mark.parametrize("readout", ["mean", "norm_mean"])
def test_gradients_of_the_controls_are_those_of_finite_differences(options: dict[str, Any], readout: str) -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {"num_heads": 2, "ffn_dim": 6, "num_layers": 1, "activation": "gelu", "k_prop": 2}
    module = stirred(TAGHead(4, (3, 2, 1), 3, readout=readout, **small, **options)).double()
    tokens = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, tokens)


# Where the parameters start


@pytest.mark.parametrize(
    "options",
    [{"edges": ()}, {"alpha": 0.5}, {"edge_combination": "block"}, {"readout": "max"}, {"k_prop": 2}, {"rewiring": 0},
     {"propagation": "step_by_step"}],
)  # fmt: skip
def test_at_one_seed_heads_that_differ_in_the_graph_or_readout_start_alike(options: dict[str, Any]) -> None:
    usual = head(position_init="normal").state_dict()
    other = head(position_init="normal", **options).state_dict()
    assert usual.keys() == other.keys()
    assert all(torch.equal(usual[name], other[name]) for name in usual)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 0},
        {"positional_encoding": False},
        {"position_init": "normal"},
        {"readout": "attention"},
        {"encoder": "mlp"},
    ],
)
def test_leaving_a_part_out_or_adding_one_leaves_the_classifier_s_start(options: dict[str, Any]) -> None:
    usual, other = (module.get_parameter("classifier.weight") for module in (head(), head(**options)))
    torch.manual_seed(0)
    linear = LinearHead(CHANNELS, CLASSES).classifier.weight
    assert torch.equal(usual, other)
    assert torch.equal(usual, linear)


def test_positions_start_at_zero_or_standard_normal() -> None:
    zeros, normal = (head(position_init=init).get_parameter("pos_embedding") for init in ("zeros", "normal"))
    assert not zeros.any()
    assert normal.std().item() == pytest.approx(1, abs=0.1)


# What counters of operations see


@pytest.mark.parametrize(("ffn_dim", "expected"), [(512, 0.695), (1024, 0.901), (2048, 1.312)])
def test_the_encoder_s_multiply_adds_are_those_of_its_formula(ffn_dim: int, expected: float) -> None:
    with torch.device("meta"):
        module = TAGHead(512, (4, 7, 7), 99, ffn_dim=ffn_dim).eval()
        tokens = torch.empty(1, 4, 49, 512)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.encode(tokens)
    n, c = 196, 512
    formula = 2 * (n * c * (4 * c + 2 * ffn_dim) + 2 * n * n * c)  # projections, feed-forward, attention's products
    assert counter.get_total_flops() // 2 == formula
    assert round(formula / 1e9, 3) == expected


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide the channels, but got num_heads=3 for 16 channels"),
        ({"width": 12}, "but got num_heads=8 for 12 channels"),
        ({"readout": "avg"}, "no readout 'avg'; valid names: attention, max, mean, norm_mean"),
        ({"encoder": "mlpp"}, "no encoder 'mlpp'; did you mean 'mlp'"),
        ({"propagation": "step_by_steps"}, "no propagation 'step_by_steps'; did you mean 'step_by_step'"),
        ({"rewiring": -1}, r"rewiring >= 0 must hold, but got rewiring=-1"),
        ({"activation": "geluu"}, "no activation 'geluu'; did you mean 'gelu'"),
        ({"position_init": "zero"}, "no position_init 'zero'; did you mean 'zeros'"),
        ({"edges": ("time_alined",)}, "no edges of the kind 'time_alined'; did you mean 'time_aligned'"),
        ({"alpha": -0.1}, r"0 <= alpha <= 1 must hold, but got alpha=-0\.1"),
        ({"edge_dropout": 1.0}, r"0 <= edge_dropout < 1 must hold, but got edge_dropout=1\.0"),
    ],
)
def test_what_breaks_a_rule_is_refused_when_the_head_is_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        head(**options)


@pytest.mark.parametrize("shape", [(3, 8, 6, 16), (3, 4, 9, 16), (3, 4, 6, 32)])
def test_tokens_of_another_grid_are_refused_with_both_grids(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        head()(torch.randn(shape))
    assert "(T, P, C) = (4, 6, 16)" in str(caught.value)
    assert str(shape[1:]) in str(caught.value)


def positions(time: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random encodings of ``time`` steps of 6 sites."""
    return torch.randn(1, time * 6, CHANNELS, generator=torch.Generator().manual_seed(2), dtype=dtype)


@pytest.mark.parametrize(("time", "time_steps"), [(4, 8), (8, 4), (4, 4), (3, 5), (1, 6), (6, 1)])
def test_stretched_positions_are_of_the_new_steps(time: int, time_steps: int) -> None:
    stretched = interpolate_positions(positions(time), num_sites=6, time_steps=time_steps)
    assert stretched.shape == (1, time_steps * 6, CHANNELS)
    assert stretched.dtype == torch.float64


def test_positions_of_as_many_steps_stay_as_they_are() -> None:
    assert torch.equal(interpolate_positions(positions(4), num_sites=6, time_steps=4), positions(4))


@pytest.mark.parametrize("time_steps", [1, 2, 8, 11])
def test_positions_that_do_not_change_in_time_stay_so(time_steps: int) -> None:
    constant = positions(1).repeat(1, 4, 1)
    stretched = interpolate_positions(constant, num_sites=6, time_steps=time_steps)
    torch.testing.assert_close(stretched, positions(1).repeat(1, time_steps, 1))


@pytest.mark.parametrize(("time", "time_steps"), [(4, 8), (8, 4), (5, 3), (3, 7), (2, 1), (1, 4)])
def test_stretched_positions_are_those_of_a_line_between_the_steps_middles(time: int, time_steps: int) -> None:
    old = positions(time).view(time, 6, CHANNELS)
    middles = ((np.arange(time) + 0.5) / time, (np.arange(time_steps) + 0.5) / time_steps)
    stretched = interpolate_positions(positions(time), num_sites=6, time_steps=time_steps).view(-1, 6, CHANNELS)
    for site in range(6):
        for channel in range(CHANNELS):
            expected = np.interp(middles[1], middles[0], old[:, site, channel].numpy())  # constant beyond the ends
            np.testing.assert_allclose(stretched[:, site, channel].numpy(), expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_through_stretched_positions_is_right() -> None:
    old = positions(3)[..., :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: interpolate_positions(x, num_sites=6, time_steps=5), old)


@pytest.mark.parametrize(
    ("num_positions", "time_steps", "words"),
    [
        (25, 4, "positions must be a multiple of num_sites=6, but there are 25."),
        (0, 4, "positions must be a multiple of num_sites=6, but there are 0."),
        (24, 0, "time_steps >= 1 must hold, but got time_steps=0."),
    ],
)
def test_positions_that_cannot_be_stretched_are_refused(num_positions: int, time_steps: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        interpolate_positions(torch.zeros(1, num_positions, 3), num_sites=6, time_steps=time_steps)
    assert str(caught.value) == words
