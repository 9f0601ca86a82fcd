"""Released checkpoints: the authors' computation, built from PyTorch's encoder and PyTorch Geometric's APPNP.

Legend: B clips, F frames, S pixels, T time steps, P sites, N = T*P nodes, C channels, K classes.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from taghead.backbones import BACKBONES
from taghead.errors import InputError
from taghead.head import grid_tokens
from taghead.model import VideoModel, load_any, load_released
from taghead.recipes import recipe
from taghead.released import NUM_CLASSES, check_edges, facts_of, is_released, model_names
from taghead.weights import convert, inspect, load_backbone
from taghead.weights_file import open_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own use of torch
    from torch_geometric.nn import APPNP

State = dict[str, Tensor]
PATH = Path("haa500_best.pth")
PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")
SITES = 49


def edges_of(time: int, sites: int) -> Tensor:
    """All edges of one frame, both ways, and of each site with itself a step before and after: the definition."""
    node = torch.arange(time * sites).view(time, sites)
    pairs = [(node[t, p], node[t, q]) for t in range(time) for p in range(sites) for q in range(sites) if p != q] + [
        pair
        for t in range(time - 1)
        for p in range(sites)
        for pair in ((node[t, p], node[t + 1, p]), (node[t + 1, p], node[t, p]))
    ]
    return torch.tensor(pairs).T.contiguous()


class Authors(nn.Module):
    """The released model as its public code computes it; names of parameters are those of its files."""

    def __init__(self, backbone: nn.Module, *, time: int, num_classes: int, ffn_dim: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*(backbone.get_submodule(part) for part in PARTS))
        self.pos_embedding = nn.Parameter(torch.randn(1, time * SITES, 512))
        layer = nn.TransformerEncoderLayer(512, 8, ffn_dim, dropout=0.5, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("edge_index", edges_of(time, SITES))
        self.appnp = APPNP(K=2, alpha=0.1)
        self.classifier = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, num_classes))
        with torch.no_grad():
            for part in (self.transformer, self.classifier):  # else layers are copies, and norms the identity
                for parameter in part.parameters():
                    if parameter.ndim == 2:
                        parameter.normal_(0, parameter.shape[1] ** -0.5)
                    else:
                        parameter.add_(torch.randn_like(parameter), alpha=0.1)
        self.eval()

    def head(self, features: Tensor) -> Tensor:
        """Features (B, C, T, H, W) to logits; the clips' graphs are one of B parts, as PyTorch Geometric batches."""
        nodes = self.transformer(features.flatten(2).transpose(1, 2) + self.pos_embedding)
        edges = torch.cat([self.edge_index + clip * nodes.shape[1] for clip in range(len(nodes))], dim=1)
        nodes = self.appnp(nodes.flatten(0, 1), edges).view_as(nodes)
        return self.classifier(nodes.mean(dim=1))

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.backbone(clip))


@pytest.fixture(scope="module", autouse=True)
def no_initial_values() -> Iterator[None]:
    """Initial values that a file overwrites anyway are not drawn: a second saved for each model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, "kaiming_normal_", lambda *_, **__: None)
        patch.setattr(nn.init, "kaiming_uniform_", lambda *_, **__: None)
        yield


def authors(dataset: str, *, backbone: nn.Module | None = None) -> Authors:
    """A released model with random values; those of the backbone, if none is given, stand for their shapes alone."""
    torch.manual_seed(0)
    if backbone is None:
        with torch.device("meta"):
            backbone = BACKBONES["r2plus1d_34"]()
    config = recipe(dataset, name="released")
    return Authors(
        backbone, time=config.data.num_frames // 8, num_classes=NUM_CLASSES[dataset], ffn_dim=config.head.ffn_dim
    )


def real_backbone() -> nn.Module:
    """R(2+1)D-34 with random values everywhere, running statistics too, that keep the size of what goes through."""
    backbone = BACKBONES["r2plus1d_34"]()
    generator = torch.Generator().manual_seed(3)
    for name, value in backbone.state_dict().items():
        if value.ndim == 5:
            value.normal_(0, (1 / value[0].numel()) ** 0.5, generator=generator)
        elif not name.endswith("num_batches_tracked"):
            value.uniform_(0.5, 1.5, generator=generator)
    return backbone


def state_of(model: Authors) -> State:
    """Its state dict; what stands for shapes alone is one zero, seen as many."""
    return {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape) if value.is_meta else value
        for name, value in model.state_dict().items()
    }


def respelled(state: State) -> State:
    """As a later version of the authors' code names them."""
    spelling = {"backbone.": "csnmodel.", "classifier.": "mlp_head."}
    kept = {name: value for name, value in state.items() if name != "edge_index"}
    for old, new in spelling.items():
        kept = {new + name.removeprefix(old) if name.startswith(old) else name: kept[name] for name in kept}
    return kept


def written(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def refusal(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LAYOUTS: dict[str, Callable[[State], object]] = {
    "haa500": lambda state: state,
    "gym99": lambda state: {"model_state_dict": respelled(state), "epoch": 60},
    "gym288": lambda state: {"model_state_dict": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_released_head_gives_the_authors_logits(dataset: str, tmp_path: Path) -> None:
    reference = authors(dataset)
    model = load_released(written(LAYOUTS[dataset](state_of(reference)), tmp_path / "best.pth"), dataset)
    time = reference.pos_embedding.shape[1] // SITES
    features = 3 * torch.randn(2, 512, time, 1, 1) + torch.randn(2, 512, time, 7, 7)  # frames and clips differ
    with torch.no_grad():
        torch.testing.assert_close(model.head(grid_tokens(features)), reference.head(features), rtol=1e-4, atol=1e-4)
        features, theirs = features.double(), reference.double().head(features.double())
        torch.testing.assert_close(model.double().head(grid_tokens(features)), theirs, rtol=1e-9, atol=1e-9)
        reference.appnp.K = 0
        without_graph = reference.head(features)
    assert (theirs[0] - theirs[1]).std() > 0.1  # what the head says depends on what it sees
    assert (theirs - without_graph).abs().max() > 1e-6  # and on the graph, as little as the mean lets through
    assert isinstance(model, VideoModel) and not model.training


def test_a_released_model_gives_the_authors_logits_of_a_clip(tmp_path: Path) -> None:
    reference = authors("haa500", backbone=real_backbone())
    reference.pos_embedding.data = reference.pos_embedding.data[:, :SITES].clone()  # 8 frames, to be quick
    reference.edge_index = edges_of(1, SITES)
    model = load_released(written(reference.state_dict(), tmp_path / "haa500_best.pth"), "haa500", num_frames=8)
    clip, seen = torch.randn(1, 3, 8, 112, 112), []
    model.backbone.register_forward_hook(lambda module, given, features: seen.append(features))
    with torch.no_grad():
        ours, features = model(clip), reference.backbone(clip)
        torch.testing.assert_close(seen[0], features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours, reference.head(features), rtol=1e-4, atol=1e-4)
    assert features.std() > 0.1


def test_the_edges_of_the_paper_pass_in_any_order_with_self_loops_or_without() -> None:
    edges = edges_of(3, 4)
    check_edges(edges, (3, 4), path=PATH)
    loops = torch.arange(12).expand(2, 12)
    mixed = torch.cat([edges, loops], dim=1)[:, torch.randperm(edges.shape[1] + 12)]
    check_edges(mixed.int(), (3, 4), path=PATH)
    check_edges(torch.zeros(2, 0, dtype=torch.int64), (1, 1), path=PATH)


EDGE_FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one is missing": (lambda edges: edges[:, 1:], "1 of 52 directed edges differ"),
    "one is more": (lambda edges: torch.cat([edges, torch.tensor([[0], [11]])], 1), "1 of 52 directed edges differ"),
    "one is there twice": (lambda edges: torch.cat([edges, edges[:, :1]], 1), "1 stand there more than once"),
    "one way only": (lambda edges: edges[:, edges[0] < edges[1]], "26 of 52 directed edges differ"),
    "no edges in time": (lambda edges: edges[:, edges[0] // 4 == edges[1] // 4], "16 of 52 directed edges differ"),
    "another grid": (lambda edges: edges_of(4, 3), "directed edges differ"),
    "beyond the nodes": (lambda edges: edges + 1, "names nodes beyond the 12"),
    "negative": (lambda edges: edges - 1, "names nodes beyond the 12"),
    "not transposed": (lambda edges: edges.T, "edge_index must be int64 (2, E), but it is int64 (52, 2)"),
    "no integers": (lambda edges: edges.float(), "edge_index must be int64 (2, E), but it is float32 (2, 52)"),
}


@pytest.mark.parametrize("fault", EDGE_FAULTS)
def test_any_other_graph_is_refused(fault: str) -> None:
    change, words = EDGE_FAULTS[fault]
    message = refusal(check_edges, change(edges_of(3, 4)), (3, 4), path=PATH)
    assert message.startswith("haa500_best.pth: ") and words in message


def small_state(*, positions: int = 4 * SITES, ffn_dim: int = 6, num_classes: int = 500) -> State:
    """The names and ranks of a released checkpoint, in small."""
    return {
        "backbone.0.0.weight": torch.ones(2, 3, 1, 7, 7),
        "backbone.4.2.conv2.1.bias": torch.ones(2),
        "pos_embedding": torch.ones(1, positions, 4),
        "transformer.layers.0.linear1.weight": torch.ones(ffn_dim, 4),
        "transformer.layers.1.norm2.bias": torch.ones(4),
        "classifier.0.weight": torch.ones(4),
        "classifier.1.weight": torch.ones(num_classes, 4),
    }


def test_both_spellings_have_the_model_s_names() -> None:
    state = small_state() | {"edge_index": edges_of(1, 2)}
    names = [
        "backbone.stem.0.weight",
        "backbone.layer4.2.conv2.1.bias",
        "head.pos_embedding",
        "head.transformer.layers.0.linear1.weight",
        "head.transformer.layers.1.norm2.bias",
        "head.classifier.0.weight",
        "head.classifier.1.weight",
    ]
    for spelled in (state, respelled(state)):
        assert is_released(spelled)
        assert sorted(model_names(spelled)) == sorted(names)
    assert list(model_names({"neck.weight": torch.ones(1)})) == ["neck.weight"]
    assert not is_released({"pos_embedding": torch.ones(1), "backbone.layer1.weight": torch.ones(1)})


@pytest.mark.parametrize(
    ("num_classes", "time", "dataset"), [(99, 8, "gym99"), (288, 8, "gym288"), (500, 4, "haa500"), (7, 1, None)]
)
def test_shapes_tell_classes_frames_width_and_layers(num_classes: int, time: int, dataset: str | None) -> None:
    facts = facts_of(small_state(positions=time * SITES, ffn_dim=10, num_classes=num_classes), path=PATH)
    assert (facts.num_classes, facts.dataset, facts.grid) == (num_classes, dataset, (time, SITES))
    assert (facts.num_frames, facts.ffn_dim, facts.num_layers) == (8 * time, 10, 2)
    assert f"N = {time * SITES}" in str(facts) and (dataset or "no data set of the paper") in str(facts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pos_embedding": torch.ones(1, 50, 4)}, "whole time steps of 49 (7 x 7 sites of 112 pixels), but it has 50"),
        ({"pos_embedding": torch.ones(49, 4)}, "has head.pos_embedding with 3 axes, but it has float32 (49, 4)"),
        ({"classifier.1.weight": torch.ones(4)}, "has head.classifier.1.weight with 2 axes, but it has float32 (4,)"),
    ],
)
def test_shapes_that_make_no_sense_are_named(change: State, words: str) -> None:
    assert words in refusal(facts_of, small_state() | change, path=PATH)
    without = {name: value for name, value in small_state().items() if name not in change} | {
        "pos_embedding": torch.ones(1, 49, 4)
    }
    if "pos_embedding" not in change:
        assert "nothing of that name" in refusal(facts_of, without, path=PATH)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gym99",), "gym99 has 99 classes, but the file has 500: name haa500, or choose another file."),
        (("hmdb51",), "no released model is for 'hmdb51'; valid names: gym288, gym99, haa500."),
        (("gym9",), "no released model is for 'gym9'; did you mean 'gym99'?"),
    ],
)
def test_another_data_set_is_refused(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    path = written(small_state(), tmp_path / "haa500_best.pth")
    for load in (load_released, load_any):
        assert refusal(load, path, *arguments) == f"{path}: {words}"


def test_a_number_of_classes_that_no_data_set_has_needs_its_name(tmp_path: Path) -> None:
    path = written(small_state(num_classes=7), tmp_path / "mine.pth")
    assert "has 7 classes, as no data set of the paper has" in refusal(load_any, path)
    assert "gym99 has 99 classes, but the file has 7, or choose another file." in refusal(load_any, path, "gym99")


def test_a_wrong_graph_in_the_file_is_refused(tmp_path: Path) -> None:
    state = small_state() | {"edge_index": edges_of(4, SITES)[:, 2:]}
    assert "edge_index is another graph" in refusal(load_released, written(state, tmp_path / "a.pth"), "haa500")


def test_what_is_no_released_checkpoint_is_named(tmp_path: Path) -> None:
    state = BACKBONES["r2plus1d_narrow"]().state_dict()
    message = refusal(load_released, written(state, tmp_path / "narrow.pth"), "haa500")
    assert "no released TAG-Head. They are those of r2plus1d_narrow" in message


def test_a_released_checkpoint_is_named_where_a_backbone_s_weights_are_wanted(tmp_path: Path) -> None:
    path = written({"model_state_dict": small_state()}, tmp_path / "haa500_best.pth")
    message = refusal(load_backbone, BACKBONES["r2plus1d_narrow"](), path)
    assert "a whole released TAG-Head (500 classes (haa500), N = 196" in message and "load_released" in message


def test_entries_that_are_not_the_model_s_are_refused(tmp_path: Path) -> None:
    state = state_of(authors("haa500"))
    del state["classifier.0.bias"]
    path = written(state | {"neck.weight": torch.ones(1)}, tmp_path / "a.pth")
    message = refusal(load_released, path, "haa500")
    assert "the model has no neck.weight" in message and "the file has no head.classifier.0.bias" in message


def test_positions_of_another_number_of_frames_are_refused_or_stretched_on_request(tmp_path: Path) -> None:
    reference = authors("gym99")
    path = written(state_of(reference), tmp_path / "gym99_best.pth")
    assert refusal(load_any, path, num_frames=32) == (
        f"{path}: its positional encodings are of 8 time steps (64 frames), but 32 frames give 4: set "
        "data.num_frames=64, or ask for interpolation in time (interpolate_positions)."
    )
    trained = load_any(path, num_frames=32, interpolate_positions=True)
    assert (trained.config.data.dataset, trained.config.data.num_frames, trained.num_classes) == ("gym99", 32, 99)
    assert trained.classes == ()
    pairs = reference.pos_embedding.detach().view(4, 2, SITES, 512).mean(dim=1)  # a new step's middle is between two
    stretched = trained.model.head.pos_embedding
    assert isinstance(stretched, Tensor)
    torch.testing.assert_close(stretched.detach(), pairs.view(1, -1, 512))


def test_inspect_says_what_a_released_checkpoint_is(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in small_state().items()}
    found = inspect(written({"model_state_dict": state}, tmp_path / "haa500_best.pth"))
    assert found.network.kind == "released"
    assert "500 classes (haa500), N = 196 (T = 4 steps of 49 sites: 32 frames), FFN width 6, 2 layers" in str(found)
    assert found.layout == "torch file, in model_state_dict, without module."


@pytest.mark.parametrize("spelling", [lambda state: state, respelled])
def test_a_converted_checkpoint_keeps_its_names_and_values(spelling: Callable[[State], State], tmp_path: Path) -> None:
    state = spelling(small_state() | {"edge_index": edges_of(4, SITES)})
    path = written({"model_state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pth")
    assert convert(path, tmp_path / "a.safetensors").network.kind == "released"
    found = open_weights(tmp_path / "a.safetensors").tensors
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in state.items())
