from typing import Any

import pytest
import torch
from torch import nn

from taghead.config import Config, evolve
from taghead.head import LinearHead, TAGHead
from taghead.model import VideoModel, build_model
from taghead.recipes import RECIPES, recipe

SMALL = recipe("synthetic")
RECIPE_NAMES = [(name, dataset) for name, family in RECIPES.items() for dataset in family]
BACKBONE = 63_491_975  # R(2+1)D-34


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(config: Config, num_classes: int) -> VideoModel:
    with torch.device("meta"):
        return build_model(config, num_classes)


def small(*, seed: int = 0, **overrides: Any) -> VideoModel:
    torch.manual_seed(seed)
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    return build_model(evolve(SMALL, changed), num_classes=5)


def small_clips(clips: int = 2) -> torch.Tensor:
    return torch.randn(clips, 3, 16, 48, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "dataset"), RECIPE_NAMES)
def test_every_recipe_builds_a_model_whose_head_fits_its_backbone_s_features(name: str, dataset: str) -> None:
    config = recipe(dataset, name=name)
    model = on_meta(config, 99)
    clip = torch.empty(2, 3, config.data.num_frames, config.data.crop_size, config.data.crop_size, device="meta")
    tokens = model.tokens(clip)
    assert isinstance(model.head, TAGHead)
    assert tokens.shape == (2, *model.head.grid, model.backbone.channels)
    assert model.head(tokens).shape == (2, 99)


@pytest.mark.parametrize(
    ("name", "dataset", "num_classes", "positions", "ffn_dim", "classifier_norm"),
    [
        ("paper", "haa500", 500, 4 * 49, 512, False),
        ("paper", "gym99", 99, 8 * 49, 1024, False),
        ("paper", "gym288", 288, 8 * 49, 2048, False),
        ("released", "haa500", 500, 4 * 49, 512, True),
        ("released", "gym99", 99, 8 * 49, 1024, True),
        ("released", "gym288", 288, 8 * 49, 2048, True),
    ],
)
def test_the_size_of_a_recipe_s_model_is_that_of_its_parts(
    name: str, dataset: str, num_classes: int, positions: int, ffn_dim: int, classifier_norm: bool
) -> None:
    c = 512
    layer = 4 * (c * c + c) + (c * ffn_dim + ffn_dim) + (ffn_dim * c + c) + 2 * 2 * c  # attention, MLP, two norms
    classifier = c * num_classes + num_classes + 2 * c * classifier_norm
    expected = BACKBONE + positions * c + 2 * layer + classifier
    assert num_parameters(on_meta(recipe(dataset, name=name), num_classes)) == expected


def test_table_5_s_69_90_million_are_the_model_at_ffn_2048_without_its_classifier() -> None:
    model = on_meta(evolve(recipe("haa500"), {"head.ffn_dim": 2048}), 500)
    assert num_parameters(model) - num_parameters(model.head.classifier) == 69_897_095


def test_the_linear_head_adds_a_classifier_and_nothing_else() -> None:
    model = on_meta(evolve(recipe("haa500"), {"model.head": "linear"}), 500)
    assert isinstance(model.head, LinearHead)
    assert num_parameters(model) == BACKBONE + 512 * 500 + 500


@pytest.mark.parametrize(
    ("field", "value"), [("alpha", 0.3), ("edges", ("time_aligned",)), ("edge_combination", "block")]
)
def test_the_head_s_graph_is_the_config_s(field: str, value: Any) -> None:
    head = small(**{f"head__{field}": value}).head
    assert isinstance(head, TAGHead)
    assert head.graph[field] == value


def test_tokens_are_the_backbone_s_features_site_by_site() -> None:
    model = small().eval()
    features, tokens = model.backbone(small_clips()), model.tokens(small_clips())
    assert tokens.shape == (2, 4, 9, 128)
    assert torch.equal(tokens[1, 3, 5], features[1, :, 3, 1, 2])  # site 5 of 3 x 3


def test_logits_are_the_head_s_of_the_tokens() -> None:
    model = small().eval()
    assert torch.equal(model(small_clips()), model.head(model.tokens(small_clips())))


def test_at_one_seed_all_heads_start_on_one_backbone_and_with_one_classifier() -> None:
    tag, linear = (small(model__head=head).state_dict() for head in ("tag", "linear"))
    assert linear.keys() < tag.keys()
    assert all(torch.equal(tag[name], value) for name, value in linear.items())
    assert not torch.equal(tag["head.classifier.weight"], small(seed=1).state_dict()["head.classifier.weight"])


@pytest.mark.parametrize(("norm_momentum", "expected"), [(None, 0.1), (0.0, 0.0), (0.25, 0.25)])
def test_the_norms_momentum_is_the_config_s_or_else_the_backbone_s(
    norm_momentum: float | None, expected: float
) -> None:
    norms = [part for part in small(model__norm_momentum=norm_momentum).modules() if isinstance(part, nn.BatchNorm3d)]
    assert {norm.momentum for norm in norms} == {expected}


def trained_a_step(model: VideoModel) -> dict[str, torch.Tensor]:
    """What a step of training changes: parameters and running statistics of the backbone, by name."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(small_clips()), torch.tensor([0, 1])).backward()
    optimizer.step()
    return {name: value for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("head", ["linear", "tag"])
def test_training_leaves_a_frozen_backbone_as_it_was_and_moves_the_head(head: str) -> None:
    changed = trained_a_step(small(model__freeze_backbone=True, model__head=head))
    assert "head.classifier.weight" in changed
    assert not [name for name in changed if name.startswith("backbone.")]


def test_training_moves_a_backbone_that_is_not_frozen_and_its_norms_statistics() -> None:
    changed = trained_a_step(small())
    assert {"backbone.stem.0.weight", "backbone.stem.1.running_mean"} <= changed.keys()


def test_only_the_backbone_is_frozen() -> None:
    model = small(model__freeze_backbone=True).train()
    assert not any(part.training for part in model.backbone.modules())
    assert all(part.training for part in model.head.modules())
    assert all(parameter.requires_grad for parameter in model.head.parameters())
