import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from taghead.adam import Adam


def parameters() -> list[Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(5, 3), torch.randn(7), torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)]
    return [one.requires_grad_() for one in (*made, torch.randn(4, dtype=torch.float64))]


def give_gradients(to: list[Tensor], step: int) -> None:
    """The second parameter has none in every second step."""
    random = torch.Generator().manual_seed(step)
    for number, parameter in enumerate(to):
        parameter.grad = torch.randn(parameter.shape, generator=random).to(parameter)
        if number == 1 and step % 2:
            parameter.grad = None


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_its_bits_are_those_of_torchs_fused_adam(weight_decay: float) -> None:
    mine, theirs = parameters(), parameters()
    own = Adam(mine, weight_decay=weight_decay)
    other = torch.optim.Adam(theirs, weight_decay=weight_decay, fused=True)
    for step in range(6):
        own.lr = other.param_groups[0]["lr"] = 0.1 / (step + 1)
        give_gradients(mine, step)
        give_gradients(theirs, step)
        own.step()
        other.step()
    assert all(torch.equal(one, same) for one, same in zip(mine, theirs, strict=True))
    kept = own.state_dict()
    for number, state in enumerate(other.state_dict()["state"].values()):
        assert all(torch.equal(kept[name][number], value) for name, value in state.items())


def test_it_goes_on_where_it_was() -> None:
    whole, first = parameters(), parameters()
    undisturbed, before = Adam(whole, lr=0.1), Adam(first, lr=0.1)
    for step in range(4):
        give_gradients(whole, step)
        undisturbed.step()
    for step in range(2):
        give_gradients(first, step)
        before.step()
    rest = [parameter.detach().clone().requires_grad_() for parameter in first]
    after, kept = Adam(rest, lr=0.1), deepcopy(before.state_dict())
    after.load_state_dict(kept)
    for step in range(2, 4):
        give_gradients(rest, step)
        after.step()
    assert all(torch.equal(one, same) for one, same in zip(whole, rest, strict=True))
    assert [float(step) for step in kept["step"]] == [2.0, 1.0, 2.0, 2.0]  # copies were taken


def test_gradients_can_be_given_and_forgotten() -> None:
    mine, theirs = parameters(), parameters()
    for optimizer, to in ((Adam(mine, lr=0.1), mine), (own := Adam(theirs, lr=0.1), theirs)):
        give_gradients(to, 1)
        if optimizer is own:
            given = [one.grad for one in to]
            own.zero_grad()
            assert all(one.grad is None for one in to)
            own.step(given)
        else:
            optimizer.step()
    assert all(torch.equal(one, same) for one, same in zip(mine, theirs, strict=True))


def test_a_step_loads_no_compiler() -> None:
    program = (
        "import sys, torch; from taghead.adam import Adam;"
        "one = torch.ones(3, requires_grad=True); one.sum().backward();"
        "Adam([one], lr=0.1).step(); print(one.tolist()); sys.exit('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[0.9")
