"""What TAG-Head is measured by: PyTorch's own Transformer encoder, then Eq. 2 and 3 with the dense N x N matrix."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taghead.graph import adjacency
from taghead.head import TAGHead

NUM_LAYERS, NUM_HEADS = 2, 8  # the paper's, and `TAGHead`'s defaults


class PlainHead(nn.Module):
    """Pre-norm `nn.TransformerEncoder`, K_prop steps of a dense product, mean, linear: as one would write it.

    Args:
        channels: C.
        grid: (T, H, W) of the features.
        num_classes: K.
        ffn_dim: Width of the encoder's feed-forward part.
        dropout: In the encoder.
        alpha: The teleport probability.
        k_prop: The number of steps.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int, int],
        num_classes: int,
        *,
        ffn_dim: int,
        dropout: float = 0.0,
        alpha: float = 0.1,
        k_prop: int = 10,
    ) -> None:
        super().__init__()
        time, rows, columns = grid
        layer = nn.TransformerEncoderLayer(channels, NUM_HEADS, ffn_dim, dropout, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, NUM_LAYERS, enable_nested_tensor=False)
        self.pos_embedding = nn.Parameter(torch.zeros(1, time * rows * columns, channels))
        self.classifier = nn.Linear(channels, num_classes)
        self.register_buffer("a", adjacency((time, rows * columns), dtype=torch.float32), persistent=False)
        self.alpha, self.k_prop = alpha, k_prop

    def forward(self, features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B K"]:
        """The logits of a backbone's features."""
        h = h0 = self.transformer(features.flatten(2).transpose(1, 2) + self.pos_embedding)
        for _ in range(self.k_prop):
            h = (1 - self.alpha) * (self.a @ h) + self.alpha * h0
        return self.classifier(h.mean(dim=1))


def copied(head: TAGHead, peer: PlainHead) -> None:
    """Gives the peer the head's weights, whose names are the same."""
    peer.load_state_dict(head.state_dict())


def distance(one: Tensor, other: Tensor) -> float:
    """Norm of the difference by the norm of the other."""
    return ((one.double() - other.double()).norm() / other.double().norm()).item()
