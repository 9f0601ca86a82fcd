import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from taghead.config import Config, evolve
from taghead.errors import InputError
from taghead.head import LinearHead, TAGHead, interpolate_positions
from taghead.model import OWN_FILE, Trained, VideoModel, build_model, load_any, load_trained
from taghead.recipes import RECIPES, recipe
from taghead.record import KEPT_FILES
from taghead.weights import convert, load_backbone, save_weights
from taghead.weights_file import open_weights

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


CLASSES = ("run", "jump, high", "走る", "🤸", "bend")


def kept(folder: Path, **overrides: Any) -> tuple[Path, VideoModel]:
    """The weights of a model with random values, as a trial keeps them."""
    config = evolve(SMALL, {key.replace("__", "."): value for key, value in overrides.items()})
    model = build_model(config, len(CLASSES))
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    facts = {"trial_id": "0" * 16, "config": config.model_dump_json(), "classes": json.dumps(CLASSES)}
    save_weights(model, folder / OWN_FILE, metadata=facts)
    return folder / OWN_FILE, model.eval()


def refusal(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_file_of_kept_weights_is_called_as_records_say() -> None:
    assert OWN_FILE == KEPT_FILES["weights"]


@pytest.mark.parametrize("head", ["tag", "linear"])
@pytest.mark.parametrize("load", [load_trained, load_any])
def test_a_trained_model_comes_from_its_file_alone(load: Callable[[Path], Trained], head: str, tmp_path: Path) -> None:
    path, model = kept(tmp_path, model__head=head)
    for place in (path, tmp_path):
        trained = load(place)
        assert torch.equal(trained.model(small_clips()), model(small_clips()))
        assert not trained.model.training
        assert (trained.classes, trained.num_classes) == (CLASSES, 5)
        assert trained.config == evolve(SMALL, {"model.head": head})


def test_a_converted_trial_is_still_one(tmp_path: Path) -> None:
    path, model = kept(tmp_path)
    convert(path, tmp_path / "converted.safetensors")
    assert torch.equal(load_any(tmp_path / "converted.safetensors").model(small_clips()), model(small_clips()))


def test_a_trial_s_backbone_can_be_started_from(tmp_path: Path) -> None:
    path, model = kept(tmp_path)
    other = small(seed=9).backbone
    report = load_backbone(other, path)
    assert all(torch.equal(value, model.backbone.state_dict()[name]) for name, value in other.state_dict().items())
    assert report.layout == "safetensors, without backbone."
    assert {name.split(".")[0] for name in report.skipped} == {"head"}


def test_positions_of_other_frames_are_refused_with_both_remedies_or_stretched(tmp_path: Path) -> None:
    path, model = kept(tmp_path)
    message = refusal(load_trained, path, num_frames=8)
    assert message == (
        f"{path}: its positional encodings are of 4 time steps (16 frames), but 8 frames give 2: set "
        "data.num_frames=16, or ask for interpolation in time (interpolate_positions)."
    )
    trained = load_trained(path, num_frames=8, interpolate_positions=True)
    old, new = model.head.pos_embedding, trained.model.head.pos_embedding
    assert isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
    assert torch.equal(new, interpolate_positions(old, num_sites=9, time_steps=2))
    assert trained.model(small_clips()[:, :, :8]).shape == (2, 5)
    assert trained.config.data.num_frames == 8
    same = load_trained(path, num_frames=16, interpolate_positions=True)
    assert torch.equal(same.model(small_clips()), model(small_clips()))


@pytest.mark.parametrize("overrides", [{"model__head": "linear"}, {"head__positional_encoding": False}])
def test_models_without_positions_take_any_number_of_frames(overrides: dict[str, Any], tmp_path: Path) -> None:
    path, _ = kept(tmp_path, **overrides)
    assert load_trained(path, num_frames=8).model(small_clips()[:, :, :8]).shape == (2, 5)


def test_a_number_of_frames_that_the_backbone_cannot_take_is_refused(tmp_path: Path) -> None:
    path, _ = kept(tmp_path)
    assert "multiple of 4 for r2plus1d_narrow" in refusal(load_trained, path, num_frames=10)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "no model with config and classes, as trials keep it; it is r2plus1d_narrow, without classifier"),
        ({"config": "{", "classes": "[]"}, "not valid JSON"),
        ({"config": '{"no": 1}', "classes": '["a"]'}, "unknown key 'no'"),
        ({"config": SMALL.model_dump_json(), "classes": "a"}, "its classes are no list of names"),
        ({"config": SMALL.model_dump_json(), "classes": "[]"}, "its classes are no list of names"),
        ({"config": SMALL.model_dump_json(), "classes": "[1]"}, "its classes are no list of names"),
        ({"config": SMALL.model_dump_json(), "classes": '["a"]'}, "0 of its"),
    ],
)
def test_a_file_that_no_trial_kept_is_refused(facts: dict[str, str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(small().backbone, path, metadata=facts)
    for load in (load_trained, load_any):
        message = refusal(load, path)
        assert message.startswith(f"{path}:") and words in message


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    for load in (load_trained, load_any):
        assert "holds no weights.safetensors" in refusal(load, tmp_path)


def test_weights_that_are_no_numbers_make_no_model(tmp_path: Path) -> None:
    path, model = kept(tmp_path)
    state = model.state_dict()
    state["head.classifier.bias"][2] = torch.nan
    save_weights(state, path, metadata=open_weights(path).metadata)
    assert "NaN or infinity is in head.classifier.bias" in refusal(load_trained, path)


OWN = """from pathlib import Path
from torch import nn
Path("ran").touch()
def tiny():
    return nn.Sequential(nn.Conv3d(3, 8, 4, stride=4))
"""


def test_code_in_a_weights_file_is_run_only_where_the_user_has_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights_test_net.py").write_text(OWN)
    path, model = kept(tmp_path, model__backbone="weights_test_net:tiny", model__freeze_backbone=True)
    assert torch.equal(load_trained(path).model(small_clips()), model(small_clips()))
    Path("ran").unlink()
    other = OWN.replace("tiny", "tinier")
    config = json.loads(open_weights(path).metadata["config"])
    config["model"] |= {"backbone_source": other, "backbone": "weights_test_net:tinier"}
    save_weights(model, path, metadata={"config": json.dumps(config), "classes": json.dumps(CLASSES)})
    assert "put weights_test_net.py here as it was when the model was trained" in refusal(load_trained, path)
    Path("weights_test_net.py").unlink()
    message = refusal(load_trained, path)
    assert "is code, which is never run from a weights file: put weights_test_net.py here (" in message
    assert not Path("ran").exists()
