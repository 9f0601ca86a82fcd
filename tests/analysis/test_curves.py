"""Learning curves from histories."""

import pytest
from matplotlib.colors import to_hex
from stored import Results

from analysis.curves import curves_data, draw_curves
from studies.catalog import COMPONENTS
from studies.plan import Plan


def test_curves_are_means_over_seeds_with_their_spread(results: Results, components: Plan) -> None:
    data, _ = curves_data(results.root, components)
    point = data.query("row == 'B' and quantity == 'loss' and epoch == 2").iloc[0]
    assert (point["mean"], point["sd"], point["n"]) == (pytest.approx(1.1), pytest.approx(0.1), 3)


def test_accuracies_are_percent(results: Results, components: Plan) -> None:
    data, _ = curves_data(results.root, components)
    assert data.query("row == 'B' and quantity == 'val_top1' and epoch == 1")["mean"].tolist() == [50.0]


def test_a_running_trial_is_in_the_curves(results: Results) -> None:
    plan = results.plan(COMPONENTS)
    folder = results.root / "running" / plan.cell("B", "synthetic").trials[0]
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("epoch,loss\n1,2.0\n", encoding="utf-8")
    data, _ = curves_data(results.root, plan)
    assert data[["row", "epoch", "mean", "n"]].values.tolist() == [["B", 1, 2.0, 1]]


def test_nothing_trained_gives_an_empty_frame(results: Results) -> None:
    assert curves_data(results.root, results.plan(COMPONENTS))[0].empty


def test_a_row_has_one_colour_in_every_panel(results: Results, components: Plan) -> None:
    figure = draw_curves(curves_data(results.root, components)[0], dataset="synthetic", synthetic=True)
    colours = [[to_hex(line.get_color()) for line in axis.lines] for axis in figure.axes]
    assert len(colours) == 4
    assert all(panel == colours[0] for panel in colours)
    assert len(set(colours[0])) == 5


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"epok,loss\n1,2\n", b"epoch,loss,train_top1\n1,2,x\n"])
def test_a_damaged_history_is_named_and_left_out(results: Results, components: Plan, content: bytes) -> None:
    trial = components.cell("B", "synthetic").trials[1]
    (results.root / "trials" / trial / "history.csv").write_bytes(content)
    data, (said,) = curves_data(results.root, components)
    assert said.startswith(f"B, synthetic, seed 1 (trial {trial}): history.csv cannot be read (")
    assert data.query("quantity == 'loss' and epoch == 1").set_index("row")["n"].to_dict() == {
        "B": 2, "B + TE": 3, "B + TE + TAT": 3, "B + TE + IF-FC": 3, "Full": 3
    }  # fmt: skip


@pytest.mark.parametrize("content", ["epoch,loss\n", "epoch,lr\n1,0.1\n"])
def test_a_history_without_an_epoch_or_a_quantity_is_as_none(results: Results, components: Plan, content: str) -> None:
    trial = components.cell("B", "synthetic").trials[1]
    (results.root / "trials" / trial / "history.csv").write_text(content, encoding="utf-8")
    data, said = curves_data(results.root, components)
    assert not said
    assert data.query("row == 'B' and quantity == 'loss'")["n"].tolist() == [2, 2]


def test_a_value_that_a_history_lacks_leaves_the_other_seeds(results: Results, components: Plan) -> None:
    trial = components.cell("B", "synthetic").trials[1]
    (results.root / "trials" / trial / "history.csv").write_text("epoch,loss,val_top1\n1,,0.5\n", encoding="utf-8")
    data = curves_data(results.root, components)[0].query("row == 'B' and epoch == 1").set_index("quantity")
    assert data["n"].to_dict() == {"loss": 2, "train_top1": 2, "val_loss": 2, "val_top1": 3}
    assert data.loc["loss", "mean"] == 2.0
