"""How costs grow."""

import pandas as pd
import pytest

from analysis.growth import ATTENTION, draw_growth, growth_data, growth_notes
from taghead.config import evolve
from taghead.recipes import recipe


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return growth_data(backbones=("r2plus1d_narrow",), frames=(4, 6, 8, 16), pixels=(48, 64))


def costs(data: pd.DataFrame, part: str) -> dict[int, int]:
    mine = data[(data["axis"] == "frames") & (data["part"] == part)]
    return dict(zip(mine["tokens"].tolist(), mine["multiply_adds"].tolist(), strict=True))


def test_clips_that_a_backbone_does_not_take_are_left_out(data: pd.DataFrame) -> None:
    assert data.loc[data["axis"] == "frames", "frames"].unique().tolist() == [4, 8, 16]


def test_attention_is_what_grows_with_the_square_of_the_tokens(data: pd.DataFrame) -> None:
    head, square = costs(data, "head"), costs(data, ATTENTION)
    small, large = 49, 98
    # what is linear in the tokens goes out of head(2N) - 2 head(N), and half of attention's square stays
    assert head[large] - 2 * head[small] == square[large] - 2 * square[small] == square[large] // 2
    assert square[large] == 4 * square[small]


def test_the_backbone_grows_with_the_frames(data: pd.DataFrame) -> None:
    backbone = costs(data, "backbone")
    assert backbone[4 * 49] == pytest.approx(4 * backbone[49], rel=1e-6)


@pytest.mark.parametrize("changes", [{"model.head": "linear"}, {"head.encoder": "mlp"}, {"head.num_layers": 0}])
def test_where_nothing_attends_nothing_is_square(changes: dict[str, object]) -> None:
    base = evolve(recipe("synthetic"), changes)
    data = growth_data(base, backbones=("r2plus1d_narrow",), frames=(8, 16), pixels=(48,))
    assert not any(costs(data, ATTENTION).values())
    assert not any("square" in said for said in growth_notes(data))
    draw_growth(data)


def test_the_words_are_made_from_the_numbers(data: pd.DataFrame) -> None:
    said = growth_notes(data)[0]
    share = 100 * costs(data, ATTENTION)[4 * 49] / costs(data, "head")[4 * 49]
    assert said.startswith("r2plus1d_narrow, 4 to 16 frames (49 to 196 tokens): the backbone costs 4 times as much")
    assert said.endswith(f"then {share:.2g} %.")


def test_ticks_are_plain_numbers(data: pd.DataFrame) -> None:
    figure = draw_growth(data)
    figure.canvas.draw()
    assert not any("$" in tick.get_text() for axis in figure.axes for tick in axis.get_yticklabels())
