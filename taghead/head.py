"""The TAG-Head: positional encoding and Transformer encoder (Eq. 1), graph (Eq. 2), pooling and classifier (Eq. 3).

    tokens = grid_tokens(backbone(clip))
    head = TAGHead(channels=512, grid=(4, 7, 7), num_classes=99)
    logits = head(tokens)

Legend: B clips, T time steps, H W sites of a frame along its sides, P = H * W, N = T * P, C channels, K classes.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taghead.errors import InputError, nearest
from taghead.graph import EDGES, frame_weights, propagate, propagate_reference

READOUTS = ("mean", "norm_mean", "max", "attention")


def grid_tokens(features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B T P C"]:
    """A backbone's features as a grid of tokens."""
    return features.flatten(3).permute(0, 2, 3, 1)


class LinearHead(nn.Module):
    """The mean of all tokens and a linear classifier: the paper's baseline B, and its stages TL and FT.

    Args:
        channels: C.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)

    def encode(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        """The tokens as they are."""
        return tokens

    def embed(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B C"]:
        """The mean over all tokens."""
        return tokens.mean(dim=(1, 2))

    def classify(self, embedding: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        """Logits of pooled vectors."""
        return self.classifier(embedding)

    def forward(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B K"]:
        """Logits of clips."""
        return self.classify(self.embed(tokens))


class TAGHead(nn.Module):
    """The head of the paper, every part of which can be changed or left out.

    Under the ``mean`` readout the graph reaches the logits through T frame weights alone (see `taghead.graph`), and so
    all graphs take one path: the frames' means, weighted. Graphs that the equations make equal give equal bits.
    The encoder is drawn before the classifier, and the graph draws nothing: heads that differ in the graph alone start
    from equal parameters under one seed.

    Args:
        channels: C of the tokens.
        grid: (T, H, W) of the tokens.
        num_classes: K.
        width: The tokens are first projected to so many channels; None (the paper): not at all.
        positional_encoding: Whether a learnable vector is added to each token.
        position_init: ``zeros``, or ``normal`` with standard deviation 1 (the released code). The paper is silent.
        num_layers: Of the encoder; 0 leaves it out.
        num_heads: Of its attention.
        ffn_dim: Width of its MLP (Table 2).
        dropout: In the encoder.
        norm_first: Pre-norm (the paper) or post-norm (the released code).
        activation: Of the MLP: ``relu`` or ``gelu``.
        edges: Of the graph: any of ``intra_frame`` (IF-FC) and ``time_aligned`` (TAT).
        edge_combination: ``union`` or ``block``, see `taghead.graph`.
        alpha: Teleport probability.
        k_prop: Steps of propagation.
        edge_dropout: In training, the probability that a step of the propagation drops an edge.
        readout: ``mean`` (the paper); ``norm_mean``: LayerNorm of each node, then the mean; ``max``; ``attention``: one
            learned query.
        classifier_norm: Whether a LayerNorm stands before the linear classifier (the released code).

    Raises:
        InputError: A setting that is not known or does not fit.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int, int],
        num_classes: int,
        *,
        width: int | None = None,
        positional_encoding: bool = True,
        position_init: str = "zeros",
        num_layers: int = 2,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
        norm_first: bool = True,
        activation: str = "relu",
        edges: Sequence[str] = EDGES,
        edge_combination: str = "union",
        alpha: float = 0.1,
        k_prop: int = 10,
        edge_dropout: float = 0.0,
        readout: str = "mean",
        classifier_norm: bool = False,
    ) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise InputError(f"no readout {readout!r}{nearest(readout, READOUTS)}")
        self.channels = width or channels
        if num_layers and self.channels % num_heads:
            raise InputError(f"num_heads must divide the {self.channels} channels, but got num_heads={num_heads}.")
        self.grid = (grid[0], grid[1] * grid[2])
        self.graph: dict[str, Any] = {
            "edges": tuple(edges),
            "edge_combination": edge_combination,
            "alpha": alpha,
            "k_prop": k_prop,
        }
        self.edge_dropout = edge_dropout
        self.readout = readout
        frame_weights(self.grid, **self.graph)  # refuses settings out of range now, and not at the first clip

        self.project = nn.Linear(channels, width) if width else nn.Identity()
        self.pos_embedding = self._positions(position_init) if positional_encoding else None
        self.transformer = (
            _encoder(self.channels, num_layers, num_heads, ffn_dim, dropout, norm_first, activation)
            if num_layers
            else nn.Identity()
        )
        self.readout_norm = nn.LayerNorm(self.channels) if readout == "norm_mean" else nn.Identity()
        self.query = nn.Parameter(torch.zeros(self.channels)) if readout == "attention" else None
        linear = nn.Linear(self.channels, num_classes)
        self.classifier = nn.Sequential(nn.LayerNorm(self.channels), linear) if classifier_norm else linear

    def _positions(self, init: str) -> nn.Parameter:
        start = {"zeros": torch.zeros, "normal": torch.randn}
        if init not in start:
            raise InputError(f"no position_init {init!r}{nearest(init, start)}")
        return nn.Parameter(start[init](1, self.grid[0] * self.grid[1], self.channels))

    @cached_property
    def frame_weights(self) -> Float[Tensor, " T"]:
        """What the graph comes to under a mean readout, in float64; see `taghead.graph.frame_weights`."""
        return frame_weights(self.grid, **self.graph)

    def encode(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P D"]:
        """Projection, positional encoding and Transformer encoder: H[0] of the graph; D is the head's width.

        Raises:
            InputError: Tokens of another grid than the head was made for.
        """
        if tuple(tokens.shape[1:3]) != self.grid:
            raise InputError(
                f"the head was made for {self.grid[0]} time steps of {self.grid[1]} sites, but got {tokens.shape[1]} "
                f"of {tokens.shape[2]}; give the clips that many frames and pixels, or make another head."
            )
        tokens = self.project(tokens)
        nodes = tokens.flatten(1, 2)
        if self.pos_embedding is not None:
            nodes = nodes + self.pos_embedding
        return self.transformer(nodes).view_as(tokens)

    def embed(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B D"]:
        """The pooled vectors that the classifier sees."""
        nodes = self.encode(tokens)
        dropping = self.training and self.edge_dropout > 0 and len(self.graph["edges"]) > 0
        if self.readout == "mean" and not dropping:
            means = nodes.mean(dim=2)
            return torch.einsum("t,btd->bd", self.frame_weights.to(means), means)
        if dropping:
            return self._read(propagate_reference(nodes, **self.graph, edge_dropout=self.edge_dropout))
        return self._read(propagate(nodes, **self.graph))

    def _read(self, nodes: Float[Tensor, "B T P D"]) -> Float[Tensor, "B D"]:
        nodes = nodes.flatten(1, 2)
        if self.readout == "max":
            return nodes.amax(dim=1)
        if self.query is not None:
            shares = torch.softmax(nodes @ self.query.to(nodes) / self.channels**0.5, dim=1)
            return torch.einsum("bn,bnd->bd", shares, nodes)
        return self.readout_norm(nodes).mean(dim=1)

    def classify(self, embedding: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Logits of pooled vectors."""
        return self.classifier(embedding)

    def forward(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B K"]:
        """Logits of clips, from their tokens."""
        return self.classify(self.embed(tokens))


def _encoder(
    channels: int, num_layers: int, num_heads: int, ffn_dim: int, dropout: float, norm_first: bool, activation: str
) -> nn.TransformerEncoder:
    """PyTorch's own layers, each drawn for itself where nn.TransformerEncoder starts with copies; no final norm."""

    def layer() -> nn.TransformerEncoderLayer:
        return nn.TransformerEncoderLayer(
            channels, num_heads, ffn_dim, dropout, activation, batch_first=True, norm_first=norm_first
        )

    encoder = nn.TransformerEncoder(layer(), num_layers, enable_nested_tensor=False)
    encoder.layers = nn.ModuleList(layer() for _ in range(num_layers))
    return encoder
