"""Adam by torch's fused kernel alone: `torch.optim` loads torch's compiler, a second of each process that trains."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_BETAS, _EPS = (0.9, 0.999), 1e-8
AdamState = dict[str, list[Tensor]]
STATE = ("step", "exp_avg", "exp_avg_sq")  # of each parameter


class Adam:
    """Adam with L2 weight decay (Kingma and Ba, 2015), to the bits of ``torch.optim.Adam(fused=True)``.

    Args:
        parameters: What is trained, all on one device.
        lr: The learning rate; an attribute, which may be set anew before any step.
        weight_decay: Factor of the parameters in their gradients.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float = 0.0, weight_decay: float = 0.0) -> None:
        self.lr = lr
        self._weight_decay = weight_decay
        self._parameters = list(parameters)
        values = [parameter.detach() for parameter in self._parameters]
        self._state: AdamState = {
            "step": [torch.zeros((), device=value.device) for value in values],
            "exp_avg": [torch.zeros_like(value) for value in values],
            "exp_avg_sq": [torch.zeros_like(value) for value in values],
        }

    def zero_grad(self) -> None:
        """Forgets the parameters' gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None] | None = None) -> None:
        """Moves the parameters.

        Args:
            gradients: One a parameter; None: their own. A parameter whose gradient is None stays as it is.
        """
        given = [parameter.grad for parameter in self._parameters] if gradients is None else gradients
        of_all = zip(self._parameters, given, *(self._state[name] for name in STATE), strict=True)
        moved = [one for one in of_all if one[1] is not None]
        for dtype in dict.fromkeys(one[0].dtype for one in moved):  # the kernel takes one at a time
            values, grads, steps, means, squares = zip(*(one for one in moved if one[0].dtype == dtype), strict=True)
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                values, grads, means, squares, [], steps, lr=self.lr, beta1=_BETAS[0], beta2=_BETAS[1],
                weight_decay=self._weight_decay, eps=_EPS, amsgrad=False, maximize=False,
            )  # fmt: skip

    def state_dict(self) -> AdamState:
        """Steps and moments (`STATE`), one a parameter; not copies."""
        return self._state

    def load_state_dict(self, state: AdamState) -> None:
        """Goes on from what `state_dict` gave for the same parameters, of which it takes copies."""
        for name in STATE:
            for own, value in zip(self._state[name], state[name], strict=True):
                own.copy_(value)
