"""The Transformer encoder: pre-norm as in the paper or post-norm, with attention or, as a control, an MLP in its place.

Legend: B clips, N nodes, D channels, F the width of the feed-forward part.

A weighted mean over the nodes commutes with sums and with linear maps. A pre-norm layer without dropout ends in
x + W2 f(x) + b2, so its mean with weights w is mean_w(x) + W2 mean_w(f(x)) + sum(w) b2: W2 meets one vector and not N.
Post-norm ends in a norm, and dropout acts on each element: they are pooled at the end.
"""

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from taghead.errors import InputError, nearest

ACTIVATIONS = ("relu", "gelu")
ENCODERS = ("attention", "mlp")

Pool = Callable[[Tensor], Tensor]  # (B, N, D) to (B, D): a weighted mean over the nodes


def check_name(field: str, name: str, valid: Collection[str]) -> None:
    """Refuses a name that is not among the valid ones.

    Raises:
        InputError: With the nearest valid name.
    """
    if name not in valid:
        raise InputError(f"no {field} {name!r}{nearest(name, valid)}")


class Encoder(nn.Module):
    """Layers one after the other, each a copy of the same one; no norm after the last.

    Args:
        layer: The layer.
        num_layers: How many.
    """

    def __init__(self, layer: nn.Module, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(deepcopy(layer) for _ in range(num_layers))

    @property
    def ends_in_a_linear_map(self) -> bool:
        """Whether a weighted mean may be taken before the last layer's last map: no norm and no dropout after it."""
        last: Any = self.layers[-1]
        return last.norm_first and not (last.training and last.dropout2.p > 0)

    def forward(
        self, nodes: Float[Tensor, "B N D"], *, pool: Pool | None = None, weight: float = 1.0
    ) -> Float[Tensor, "B N D"] | Float[Tensor, "B D"]:
        """The nodes after the last layer, or, with ``pool``, their weighted mean, if it `ends_in_a_linear_map`.

        Args:
            nodes: Before the first layer.
            pool: Takes the weighted mean.
            weight: The sum of its weights.
        """
        for layer in self.layers[:-1]:
            nodes = layer(nodes)
        return self.layers[-1](nodes, pool=pool, weight=weight)


class EncoderLayer(nn.TransformerEncoderLayer):
    """PyTorch's encoder layer, computed alike in training and evaluation.

    PyTorch's own takes a fused kernel in evaluation, of other bits, which counters of operations cannot look into.

    Args:
        channels: D of the nodes.
        num_heads: Of the attention.
        ffn_dim: Width of the feed-forward part.
        dropout: On attention, inside and after the feed-forward part.
        norm_first: Pre-norm or post-norm.
        activation: ``relu`` or ``gelu``.

    Raises:
        InputError: Heads that do not divide the channels, or an unknown activation.
    """

    def __init__(
        self, channels: int, num_heads: int, ffn_dim: int, dropout: float, *, norm_first: bool, activation: str
    ) -> None:
        if channels % num_heads:
            raise InputError(
                f"num_heads must divide the channels, but got num_heads={num_heads} for {channels} channels."
            )
        check_name("activation", activation, ACTIVATIONS)
        super().__init__(channels, num_heads, ffn_dim, dropout, activation, norm_first=norm_first, batch_first=True)

    def forward(  # type: ignore[override]
        self, src: Float[Tensor, "B N D"], *, pool: Pool | None = None, weight: float = 1.0
    ) -> Float[Tensor, "B N D"] | Float[Tensor, "B D"]:
        """One layer, or the weighted mean of its nodes; see `Encoder`. PyTorch's takes masks; here none is masked."""
        if not self.norm_first:
            x = self.norm1(src + self._mix(src))
            return self.norm2(x + self.dropout2(self.linear2(self._hidden(x))))
        x = src + self._mix(self.norm1(src))
        hidden = self._hidden(self.norm2(x))
        if pool is None:
            return x + self.dropout2(self.linear2(hidden))
        # mean_w(x + W2 hidden + b2), where the weights' sum need not be 1
        return pool(x) + linear(pool(hidden), self.linear2.weight, weight * self.linear2.bias)

    def _mix(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        attention = self.self_attn
        packed = linear(x, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = packed.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = attention.dropout if self.training else 0.0
        x = scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.dropout1(attention.out_proj(x.transpose(1, 2).flatten(2)))

    def _hidden(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """Of the feed-forward part, of width F."""
        return self.dropout(self.activation(self.linear1(x)))


class MLPLayer(EncoderLayer):
    """The encoder layer with an MLP on each token in the place of attention: D to 2D, the layer's activation, D.

    2D (D + 1) + D (2D + 1) = 4D^2 + 3D parameters; attention has 4D (D + 1) = 4D^2 + 4D. Dropout is inside the MLP and
    after it. Arguments as `EncoderLayer`, but for the heads.

    Raises:
        InputError: An unknown activation.
    """

    def __init__(self, channels: int, ffn_dim: int, dropout: float, *, norm_first: bool, activation: str) -> None:
        super().__init__(channels, 1, ffn_dim, dropout, norm_first=norm_first, activation=activation)
        del self.self_attn  # was drawn, so that the feed-forward part starts as beside attention
        self.mlp1, self.mlp2 = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)

    def _mix(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.dropout1(self.mlp2(self.dropout(self.activation(self.mlp1(x)))))
