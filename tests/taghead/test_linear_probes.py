from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from taghead import run as run_file
from taghead.checkpoint import TrainState, load_state, save_state
from taghead.config import TrainConfig, evolve
from taghead.data.batches import Batch, training_order
from taghead.data.clips import Clip
from taghead.fit import fit
from taghead.head import LinearHead
from taghead.linear_probes import MATRIX, Features, Probe, fit_probes
from taghead.machine import Machine
from taghead.recipes import recipe
from taghead.record import read_record
from taghead.run import run
from taghead.tokens import TokenBatch, TokenModel

BASE = TrainConfig(epochs=3, batch_size=4, lr=1e-2, token_views=0)


def features(*, clips: int = 22, channels: int = 17, classes: int = 5, unreadable: tuple[int, ...] = ()) -> Features:
    random = torch.Generator().manual_seed(1)
    rows = torch.tensor([-1 if clip in unreadable else 0 for clip in range(clips)])
    rows[rows == 0] = torch.arange(clips - len(unreadable))
    readable = clips - len(unreadable)
    vectors = torch.randn(readable, channels, generator=random)
    return Features(vectors, torch.randint(classes, (readable,), generator=random), rows)


def probe(seed: int, seen: Features, config: TrainConfig = BASE, *, classes: int = 5, **options: Any) -> Probe:
    torch.manual_seed(seed)
    head = LinearHead(seen.vectors.shape[1], classes)
    options = {"order": lambda epoch: (seed, epoch), "save": lambda state: None, **options}
    return Probe(head, config, options.pop("state", TrainState(trial=str(seed), threads=1)), **options)


def outcome(one: Probe) -> tuple[list[dict[str, Any]], list[Tensor]]:
    assert one.state.optimizer is not None
    moments = [tensor for tensors in one.state.optimizer[MATRIX].values() for tensor in tensors]
    return one.state.history, [*one.head.state_dict().values(), *moments]


def same(one: Probe, other: Probe) -> bool:
    (history, tensors), (their_history, their_tensors) = outcome(one), outcome(other)
    return history == their_history and all(
        torch.equal(mine, theirs) for mine, theirs in zip(tensors, their_tensors, strict=True)
    )


@settings(max_examples=15)
@given(
    channels=st.integers(1, 70),
    classes=st.integers(2, 13),
    members=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([1e-2, 1e-3]), st.sampled_from([0.0, 0.1]), st.integers(1, 9)),
        min_size=2, max_size=5, unique=True,
    ),
    unreadable=st.sets(st.integers(0, 21), max_size=4),
)  # fmt: skip
def test_a_training_has_the_same_bits_alone_as_in_any_company(
    channels: int, classes: int, members: list[tuple[int, float, float, int]], unreadable: set[int]
) -> None:
    seen = features(channels=channels, classes=classes, unreadable=tuple(unreadable))
    changes = [{"epochs": 2, "lr": lr, "weight_decay": decay, "batch_size": size} for _, lr, decay, size in members]

    def made() -> list[Probe]:
        return [
            probe(member[0], seen, BASE.model_copy(update=change), classes=classes)
            for member, change in zip(members, changes, strict=True)
        ]

    together, alone = made(), made()
    fit_probes(together, features=lambda epoch: seen)
    for one in alone:
        fit_probes([one], features=lambda epoch: seen)
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [{"channels": 512, "classes": 99}, {"channels": 128, "classes": 12}])
def test_at_the_sizes_of_a_study_too(shape: dict[str, int]) -> None:
    seen, config = features(clips=12, **shape), BASE.model_copy(update={"epochs": 1})
    company = [probe(seed, seen, config, classes=shape["classes"]) for seed in range(8)]
    fit_probes(company, features=lambda epoch: seen)
    alone = probe(7, seen, config, classes=shape["classes"])
    fit_probes([alone], features=lambda epoch: seen)
    assert same(alone, company[7])
    assert not same(alone, company[6])


def ordinary(seed: int, seen: Features, config: TrainConfig) -> tuple[TokenModel, TrainState]:
    """The same training by `taghead.fit.fit`."""
    torch.manual_seed(seed)
    model = TokenModel(LinearHead(seen.vectors.shape[1], 5))

    def batches(epoch: int) -> list[Batch]:
        found: list[Batch] = []
        ordered = seen.rows[torch.tensor(training_order(len(seen.rows), seed=seed, epoch=epoch))]
        for rows in ordered.split(config.batch_size):
            chosen = rows[rows >= 0]
            clips = tuple(Clip(str(int(row)), Path(), 0, "train") for row in chosen)
            if len(clips) >= min(2, config.batch_size):
                found.append(TokenBatch(seen.vectors[chosen][:, None, None], seen.labels[chosen], clips, ()))
        return found

    state = TrainState(trial="ordinary", threads=1)
    device = torch.device("cpu")
    fit(model, config, state, seed=seed, device=device, batches=batches, validate=None, save=lambda state: None)
    return model, state


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("unreadable", [(), (3, 4, 21)])
def test_it_trains_as_the_ordinary_loop_does(weight_decay: float, unreadable: tuple[int, ...]) -> None:
    seen, config = features(unreadable=unreadable), BASE.model_copy(update={"weight_decay": weight_decay})
    one = probe(3, seen, config)
    fit_probes([one], features=lambda epoch: seen)
    model, state = ordinary(3, seen, config)
    for name, value in model.head.state_dict().items():
        torch.testing.assert_close(one.head.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(one.state.history, state.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
        assert list(mine) == list(theirs)


def test_one_step_is_that_of_the_equations() -> None:
    seen, config = features(clips=4), BASE.model_copy(update={"epochs": 1})
    one = probe(0, seen, config)
    weight = one.head.classifier.weight.detach().double().numpy().copy()
    bias = one.head.classifier.bias.detach().double().numpy().copy()
    fit_probes([one], features=lambda epoch: seen)
    x, wanted = seen.vectors.double().numpy(), np.eye(5)[seen.labels.numpy()]
    scores = np.exp(x @ weight.T + bias)
    gradient = (scores / scores.sum(axis=1, keepdims=True) - wanted).T @ x / 4
    stepped = weight - 1e-2 * gradient / (np.abs(gradient) + 1e-8)  # Adam's first step goes by the sign
    assert np.allclose(one.head.classifier.weight.detach().numpy(), stepped, atol=1e-5)


def test_a_training_that_diverges_stops_and_disturbs_no_other() -> None:
    seen = features()
    company = [probe(0, seen), probe(1, seen, BASE.model_copy(update={"lr": 1e38})), probe(2, seen)]
    fit_probes(company, features=lambda epoch: seen)
    assert [one.error is None for one in company] == [True, False, True]
    assert company[1].error is not None
    assert (company[1].error.epoch, len(company[1].state.history)) == (1, 0)
    assert "the loss became" in str(company[1].error)
    alone = probe(2, seen)
    fit_probes([alone], features=lambda epoch: seen)
    assert same(alone, company[2])


def test_trainings_that_were_stopped_go_on_to_the_same_bits_in_other_company(tmp_path: Path) -> None:
    seen = features(unreadable=(2,))
    undisturbed = probe(0, seen)
    fit_probes([undisturbed], features=lambda epoch: seen)

    def stopping(state: TrainState) -> None:
        save_state(state, tmp_path / "checkpoint.pt")
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_probes([probe(1, seen), probe(0, seen, save=stopping)], features=lambda epoch: seen)
    state = load_state(tmp_path / "checkpoint.pt")
    assert state is not None
    assert len(state.history) == 2
    resumed = probe(0, seen, state=replace(state))
    fit_probes([resumed, probe(5, seen), probe(6, seen)], features=lambda epoch: seen)
    assert same(resumed, undisturbed)


def test_best_val_leaves_the_weights_that_validation_liked_best() -> None:
    seen, states = features(), []
    scores = iter([0.2, 0.7, 0.7])
    one = probe(
        0, seen, BASE.model_copy(update={"selection": "best_val"}),
        validate=lambda: {"top1": next(scores)}, save=lambda state: states.append(deepcopy(state.model)),
    )  # fmt: skip
    fit_probes([one], features=lambda epoch: seen)
    assert [row["val_top1"] for row in one.state.history] == [0.2, 0.7, 0.7]
    assert torch.equal(one.head.classifier.weight, states[1]["head.classifier.weight"])
    assert not torch.equal(one.head.classifier.weight, states[2]["head.classifier.weight"])


LINEAR = evolve(
    recipe("synthetic"),
    {"data.num_frames": 8, "data.short_side": 36, "data.crop_size": 32, "model.freeze_backbone": True,
     "model.head": "linear", "train.epochs": 4, "train.token_views": 2, "train.lr": 1e-2},
)  # fmt: skip


def test_run_trains_linear_heads_on_stored_tokens_so_and_resumes_to_the_same_bits(
    tmp_path: Path, tiny_clips: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    machine = Machine(data_root=tiny_clips, cache=tmp_path / "cache")
    record = run(LINEAR, seed=0, machine=machine, folder=tmp_path / "whole", keep=("embeddings", "weights"))
    assert record.status == "complete"
    with pytest.raises(KeyboardInterrupt):
        run(LINEAR, seed=0, machine=machine, folder=tmp_path / "stopped", on_epoch=stop)
    run(LINEAR, seed=0, machine=machine, folder=tmp_path / "stopped")
    assert read_record(tmp_path / "stopped").metrics == record.metrics
    for name in ("predictions.npz",):
        with np.load(tmp_path / "whole" / name) as one, np.load(tmp_path / "stopped" / name) as other:
            assert all(np.array_equal(one[key], other[key]) for key in one.files)
    with np.load(tmp_path / "whole" / "embeddings.npz") as kept:
        assert kept["embeddings"].shape == (12, 128)
    diverged = run(evolve(LINEAR, {"train.lr": 1e38}), seed=0, machine=machine, folder=tmp_path / "diverged")
    assert (diverged.status, diverged.epoch) == ("diverged", 1)


def use(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets linear heads be trained by this loop, or by `fit` as on a GPU."""
    monkeypatch.setattr(run_file, "LinearHead", LinearHead if ours else type(None))


def stop(row: dict[str, Any]) -> None:
    if row["epoch"] == 2:
        raise KeyboardInterrupt


def is_as_whole(moved: Path, whole: Path) -> bool:
    same_epochs = (moved / "history.csv").read_text() == (whole / "history.csv").read_text()
    return same_epochs and read_record(moved).metrics == read_record(whole).metrics


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_training_that_the_loop_of_another_device_began_begins_anew(
    tmp_path: Path, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch, ours_first: bool
) -> None:
    machine = Machine(data_root=tiny_clips, cache=tmp_path / "cache")
    use(ours_first, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(LINEAR, seed=0, machine=machine, folder=tmp_path / "moved", on_epoch=stop)
    use(not ours_first, monkeypatch)
    run(LINEAR, seed=0, machine=machine, folder=tmp_path / "moved")
    run(LINEAR, seed=0, machine=machine, folder=tmp_path / "whole")
    assert is_as_whole(tmp_path / "moved", tmp_path / "whole")


MOMENT = torch.zeros(4, 129)
EARLIER = {  # what the optimizer's state was in the versions before
    "this loop": {"step": 8, "exp_avg": MOMENT, "exp_avg_sq": MOMENT},
    "fit": {"state": {0: {"step": torch.tensor(8.0), "exp_avg": MOMENT}}, "param_groups": [{"params": [0]}]},
}


@pytest.mark.parametrize("ours", [True, False], ids=["here", "on a GPU"])
@pytest.mark.parametrize("form", EARLIER)
def test_a_training_that_an_earlier_version_began_begins_anew(
    tmp_path: Path, tiny_clips: Path, monkeypatch: pytest.MonkeyPatch, ours: bool, form: str
) -> None:
    machine, path = Machine(data_root=tiny_clips, cache=tmp_path / "cache"), tmp_path / "moved" / "checkpoint.pt"
    use(ours, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(LINEAR, seed=0, machine=machine, folder=tmp_path / "moved", on_epoch=stop)
    state = load_state(path)
    assert state is not None
    save_state(replace(state, optimizer=EARLIER[form]), path)
    run(LINEAR, seed=0, machine=machine, folder=tmp_path / "moved")
    run(LINEAR, seed=0, machine=machine, folder=tmp_path / "whole")
    assert is_as_whole(tmp_path / "moved", tmp_path / "whole")
