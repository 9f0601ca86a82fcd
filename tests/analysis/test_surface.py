"""The graph's effect on a trained model, from the frames' means that its trial keeps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from stored import CLIPS, Results

from analysis.formats import SYNTHETIC
from analysis.frame_logits import FrameLogits, Trained, frame_logits, load
from analysis.frame_weights import GRAPHS
from analysis.surface import (
    ALPHAS,
    STEPS,
    apart,
    draw_surface,
    statements,
    surface_data,
    surface_table,
    trained_effects,
    trained_statements,
)
from analysis.tables import signed
from studies.catalog import COMPONENTS, READOUT
from studies.plan import Plan
from studies.study import Study
from taghead.config import Config, evolve
from taghead.errors import InputError
from taghead.head import TAGHead
from taghead.metrics import mca, top1
from taghead.model import build_model
from taghead.recipes import recipe
from taghead.weights import save_weights

CLASSES, CHANNELS, GRID = 5, 16, (4, 3, 3)
SMALL = {"model.backbone": "r2plus1d_narrow", "head.ffn_dim": 16, "model.pretrained": False}


def head_with(graph: str, alpha: float, k_prop: int, *, norm: bool) -> TAGHead:
    torch.manual_seed(0)
    edges, combination = GRAPHS[graph]
    options: dict[str, Any] = {"edges": edges, "edge_combination": combination, "alpha": alpha, "k_prop": k_prop}
    head = TAGHead(CHANNELS, GRID, CLASSES, ffn_dim=16, classifier_norm=norm, **options)
    if norm:  # as training leaves it, not the identity
        torch.nn.init.normal_(head.classifier[0].weight)  # type: ignore[index, arg-type]
        torch.nn.init.normal_(head.classifier[0].bias)  # type: ignore[index, arg-type]
    return head.eval()


def tokens(seed: int, clips: int = 40) -> torch.Tensor:
    return torch.randn(clips, 4, 9, CHANNELS, generator=torch.Generator().manual_seed(seed))


def some(seed: int = 0, *, norm: bool = False, clips: int = 40) -> Trained:
    head = head_with("TAT", 0.1, 10, norm=norm)
    with torch.no_grad():
        means = head.encode(tokens(seed, clips)).mean(dim=2).numpy()
    labels = np.arange(clips) % CLASSES
    return Trained(frame_logits(head.classifier, means), head.grid, labels, np.ones(clips, bool), seed=seed)


@pytest.mark.parametrize("norm", [False, True], ids=["linear", "norm and linear"])
@pytest.mark.parametrize(
    "setting", [("TAT", 0.0, 100), ("IF-FC + TAT, union", 0.1, 10), ("IF-FC + TAT, block", 0.5, 2)]
)
def test_logits_from_the_frames_are_those_of_a_head_with_that_graph(
    norm: bool, setting: tuple[str, float, int]
) -> None:
    one, head = some(norm=norm), head_with(*setting, norm=norm)
    with torch.no_grad():
        expected = head(tokens(0)).numpy()
    changed = one.frames.changes(4 * head.frame_weights.numpy()[None] - 1)[0]
    assert one.frames.plain + changed == pytest.approx(expected, abs=1e-5)
    assert np.abs(changed).max() > 1e-4


def test_scores_and_flips_are_those_of_the_logits() -> None:
    one = some(norm=True)
    data = surface_data([one], alphas=[0.0], steps=[3])
    tat = data[data["graph"] == "TAT"].iloc[0]
    with torch.no_grad():
        logits, plain = (head_with("TAT", alpha, 3, norm=True)(tokens(0)).numpy() for alpha in (0.0, 1.0))
    assert tat.top1 == pytest.approx(100 * top1(logits, one.labels))
    assert tat.mca == pytest.approx(100 * mca(logits, one.labels))
    assert tat.flipped == (logits.argmax(1) != plain.argmax(1)).sum() > 0
    assert tat.largest == pytest.approx(np.abs(logits - plain).max(), abs=1e-5)
    assert tat["mean"] == pytest.approx(np.abs(logits - plain).mean(), abs=1e-6)


def test_intra_frame_edges_alone_never_reach_the_mean_readout() -> None:
    data = surface_data([some(norm=norm) for norm in (False, True)])
    alone = data[data["graph"] == "IF-FC"]
    assert (alone[["largest", "mean", "flipped", "deviation"]] == 0).all(axis=None)
    assert (alone["top1"] == alone["plain_top1"]).all()
    assert (data.loc[data["graph"] == "TAT", "largest"] > 0).any()


def test_the_surface_has_a_thousand_settings_for_each_seed() -> None:
    data = surface_data([some(0), some(1)])
    assert len(ALPHAS) * len(STEPS) * len(GRAPHS) > 1000
    assert (data.groupby("seed").size() == len(ALPHAS) * len(STEPS) * len(GRAPHS)).all()


def test_blocks_of_settings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = surface_data([some(norm=True)], alphas=[0.0, 0.3], steps=[1, 5])
    monkeypatch.setattr("analysis.surface.BLOCK", 1)
    single = surface_data([some(norm=True)], alphas=[0.0, 0.3], steps=[1, 5])
    numbers = ["largest", "mean", "flipped", "top1", "mca"]
    assert single[numbers].to_numpy() == pytest.approx(whole[numbers].to_numpy(), rel=1e-5)


def test_a_clip_that_does_not_decode_counts_as_wrong() -> None:
    one = some()
    labels, read = np.append(one.labels, 0), np.append(one.read, False)
    with_it = surface_data([Trained(one.frames, one.grid, labels, read)], alphas=[0.5], steps=[2])
    without = surface_data([one], alphas=[0.5], steps=[2])
    assert with_it["top1"].to_numpy() == pytest.approx(without["top1"].to_numpy() * 40 / 41)
    assert with_it["plain_top1"].to_numpy() == pytest.approx(without["plain_top1"].to_numpy() * 40 / 41)
    assert (with_it["clips"] == 40).all()


def flat(flip_at: float, labels: ndarray, *, seed: int = 0) -> Trained:
    """Two clips of two classes, the second with a margin that TAT's weights cross or do not cross."""
    logits = np.zeros((2, 4, 2))
    logits[0, :, 0] = 1
    logits[1, 0, 0] = logits[1, 1, 1] = 1  # an end frame against an inner one
    bias = np.array([flip_at, 0.0])
    return Trained(FrameLogits(logits, bias), (4, 9), labels, np.ones(2, bool), seed=seed)


def test_a_prediction_flips_where_the_weights_cross_its_margin() -> None:
    labels = np.array([0, 0])
    data = surface_data([flat(0.03, labels), flat(0.3, labels)], alphas=[0.1], steps=[10])
    tat = data[data["graph"] == "TAT"]
    assert tat["flipped"].tolist() == [1, 0]
    assert tat["top1"].tolist() == [50, 100]
    assert (data.loc[data["graph"] == "IF-FC + TAT, union", "flipped"] == 0).all()


def test_seeds_apart_are_clips_and_points() -> None:
    labels = np.array([0, 0])
    assert apart([flat(0.03, labels)]) is None
    differ = apart([flat(0.03, labels), flat(-0.3, labels, seed=1)])
    assert differ is not None
    assert differ[0] == 1
    assert differ[1] == pytest.approx(50 / 2**0.5)


def test_the_statements_follow_the_numbers() -> None:
    labels = np.array([0, 0])
    trained = [flat(0.03, labels), flat(-0.3, labels, seed=1)]
    text = " ".join(statements(trained, surface_data(trained)))
    assert "IF-FC: 0 flips and no logit changed, exactly" in text
    assert "TAT: at most 1 of 2 predictions flipped (1 at alpha 0.1, K 10)" in text
    assert "IF-FC + TAT, union: at most 0 of 2 predictions flipped (0 at alpha 0.1, K 10)" in text
    assert "differ on 1.0 of the clips" in text
    assert "of 2 free numbers each" in text
    other = [flat(5.0, labels)]
    text = " ".join(statements(other, surface_data(other)))
    assert "TAT: at most 0 of 2 predictions flipped" in text
    assert "nothing to hold the graph's effect against" in text


def test_the_figure_has_two_panels_a_graph_and_is_stamped() -> None:
    labels = np.array([0, 0])
    for margin in (0.03, 5.0):  # with flips and without any
        figure = draw_surface(surface_data([flat(margin, labels)]), differ=0.5, synthetic=True)
        panels = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
        assert len(panels) == 2 * len(GRAPHS)
        assert [axis.get_title() for axis in panels[: len(GRAPHS)]] == list(GRAPHS)
        assert figure.get_suptitle() == SYNTHETIC


# -- from the store


def keep(folder: Path, config: Config, *, seed: int) -> ndarray:
    """Weights, frames' means and their logits, as a trial keeps them; the first clip is unreadable."""
    torch.manual_seed(seed)
    model = build_model(config, CLASSES).eval()
    head = model.head
    assert isinstance(head, TAGHead)
    with torch.no_grad():
        nodes = torch.randn(CLIPS, *head.grid, head.channels)
        means = head.encode(nodes).mean(dim=2).numpy()
        logits = head(nodes).numpy()
    means[0], logits[0] = np.nan, np.nan
    ids, labels = np.array([f"clip_{number:02d}" for number in range(CLIPS)]), np.arange(CLIPS) % CLASSES
    np.savez(folder / "frame_means.npz", ids=ids, labels=labels, frame_means=means)
    np.savez(folder / "predictions.npz", ids=ids, labels=labels, logits=logits)
    facts = {"trial_id": folder.name, "config": config.model_dump_json(), "classes": json.dumps([*"abcde"])}
    save_weights(model, folder / "weights.safetensors", metadata=facts)
    return logits


@pytest.fixture
def kept(results: Results) -> Iterator[tuple[Results, Plan]]:
    plan = results.plan(COMPONENTS, synthetic=evolve(recipe("synthetic"), SMALL), seeds=(0, 1))
    for seed in plan.seeds:
        folder = results.finish(plan, "Full", seed=seed)
        keep(folder, plan.cell("Full", "synthetic").config, seed=seed)
    yield results, plan


def test_a_stored_trial_gives_its_stored_logits_back(kept: tuple[Results, Plan]) -> None:
    results, plan = kept
    trained, left_out = load(results.root, plan)
    assert [(one.row, one.seed) for one in trained] == [("Full", 0), ("Full", 1)]
    assert left_out == []
    assert max(one.error for one in trained) < 1e-5
    assert trained[0].setting == ("IF-FC + TAT, union", 0.1, 10)
    assert trained[0].read.sum() == CLIPS - 1
    table = surface_table(trained, surface_data(trained, alphas=[0.1], steps=[10]))
    assert SYNTHETIC in table.caption
    assert table.rows[-1][0] == "another seed"


def test_a_damaged_trial_is_named_and_the_rest_is_shown(kept: tuple[Results, Plan]) -> None:
    results, plan = kept
    trial = plan.cell("Full", "synthetic").trials[1]
    (results.root / "trials" / trial / "frame_means.npz").write_bytes(b"PK")
    trained, left_out = load(results.root, plan)
    assert [one.seed for one in trained] == [0]
    assert len(left_out) == 1 and trial in left_out[0] and "frame_means.npz cannot be read" in left_out[0]


@pytest.mark.parametrize(
    ("name", "part", "words"),
    [
        ("frame_means", np.s_[:, :2], "do not belong together"),
        ("frame_means", np.s_[:, :, :8], "do not belong together"),
        ("ids", np.s_[::-1], "not of the same clips"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    kept: tuple[Results, Plan], name: str, part: Any, words: str
) -> None:
    results, plan = kept
    folder = results.root / "trials" / plan.cell("Full", "synthetic").trials[0]
    with np.load(folder / "frame_means.npz") as stored:
        arrays = dict(stored)
    np.savez(folder / "frame_means.npz", **arrays | {name: arrays[name][part]})
    assert words in load(results.root, plan)[1][0]


def test_what_was_not_kept_is_told_with_the_command(components: Plan, results: Results) -> None:
    with pytest.raises(InputError, match=r"taghead-studies run components .*--keep weights --keep frame_means"):
        load(results.root, components)


def test_half_kept_studies_show_what_there_is_and_tell_the_rest(kept: tuple[Results, Plan]) -> None:
    results, plan = kept
    (results.root / "trials" / plan.cell("Full", "synthetic").trials[0] / "weights.safetensors").unlink()
    trained, left_out = load(results.root, plan)
    assert [one.seed for one in trained] == [1]
    assert "seed 0" in left_out[0] and "--keep weights" in left_out[0]


@pytest.mark.parametrize(
    ("row", "words"),
    [("B", "its head is linear"), ("Ful", "did you mean 'Full'"), ("B + TE", "--keep frame_means")],
)
def test_rows_that_have_no_surface_say_why(kept: tuple[Results, Plan], row: str, words: str) -> None:
    results, plan = kept
    with pytest.raises(InputError, match=words):
        load(results.root, plan, row=row)


def test_another_readout_sees_more_than_the_frames(results: Results) -> None:
    plan = results.plan(READOUT)
    with pytest.raises(InputError, match="norm_mean, sees more"):
        load(results.root, plan, row="readout norm_mean, no edges")
    only = Study(
        name="max_only",
        title="x",
        rows={"max": {"head.readout": "max"}},
        datasets={"synthetic": recipe("synthetic")},
        text="x",
    )
    with pytest.raises(InputError, match="no row with a TAG-Head under the mean readout"):
        load(results.root, results.plan(only))


def test_trained_effects_pair_rows_that_differ_in_the_graph_alone(results: Results) -> None:
    plan = results.plan(READOUT)
    for row in plan.rows[:4]:
        for seed in plan.seeds:
            results.finish(plan, row, seed=seed)
    effects = trained_effects(results.root, plan)
    assert [(one.row, one.base) for one in effects.itertuples()] == list(
        zip(plan.rows[1::2], plan.rows[::2], strict=True)
    )
    assert effects["n"].tolist() == [3, 3, 0, 0]
    said = trained_statements(effects)
    assert len(said) == 3
    assert "readout norm_mean" in said[1]
    assert "95 % t-interval of one difference" in said[2] and "correction for the 2 tests of such pairs" in said[2]


def test_equal_rows_have_no_trained_effect(components: Plan, results: Results) -> None:
    effects = trained_effects(results.root, components).set_index("row")
    assert effects.loc["B + TE + IF-FC", "base"] == "B + TE"
    assert (effects.loc["B + TE + IF-FC", ["difference", "identical"]] == [0, True]).all()
    assert effects.loc["B + TE + IF-FC", ["low", "high", "p"]].isna().all()
    assert "B + TE + IF-FC identical, B + TE + TAT" in trained_statements(effects.reset_index())[0]


def train(results: Results, plan: Plan, **scores: list[float]) -> str:
    """What is said of rows of Table 4, named by their last word, with these scores by seed."""
    rows = {row.split()[-1].replace("-", ""): row for row in plan.rows}
    for name, values in scores.items():
        for seed, value in enumerate(values):
            results.finish(plan, rows[name], seed=seed, metrics={"top1": value / 100, "mca": 0.0})
    return " ".join(trained_statements(trained_effects(results.root, plan)))


def test_an_effect_that_does_not_vary_is_not_told_apart(results: Results) -> None:
    said = train(results, results.plan(COMPONENTS), TE=[50, 52, 54], Full=[47, 49, 51])
    assert f"Full {signed(-3)} (does not vary); none is told from no graph." in said


def test_effects_are_told_apart_after_the_correction_for_all_pairs(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    clear, lucky = [70, 72.2, 71.1], [53, 54, 55.2]  # against 50, 52, 51: p = 0.001 and p = 0.04
    said = train(results, plan, TE=[50, 52, 51], TAT=clear, Full=lucky, IFFC=[49, 52.5, 52])
    effects = trained_effects(results.root, plan).set_index("row")
    assert effects.loc["Full", "low"] > 0 and effects.loc["Full", "p"] < 0.05 < effects.loc["Full", "p_holm"]
    assert (effects["num_tests"] == 3).all()
    assert "told apart from no graph: B + TE + TAT." in said


def test_one_effect_alone_is_corrected_for_itself(results: Results) -> None:
    said = train(results, results.plan(COMPONENTS), TE=[50, 52, 51], Full=[53, 54, 55.2])
    assert "told apart from no graph: Full." in said and "correction for the 1 test of such pairs" in said
