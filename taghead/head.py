"""TAG-Head: positional encoding, Transformer encoder, token graph (IF-FC and TAT edges), readout, classifier.

    head = TAGHead(512, grid=(4, 7, 7), num_classes=99)     # for features (B, 512, 4, 7, 7)
    logits = head(grid_tokens(features))

Legend: B clips, T time steps, H rows, W columns, P = H*W sites, N = T*P nodes (M of another T), C channels, K classes.
"""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from taghead.encoder import ENCODERS, Encoder, EncoderLayer, MLPLayer, check_name
from taghead.errors import InputError
from taghead.graph import EDGES, check_propagation, frame_weights, propagate, propagate_reference, propagated_mean
from taghead.rewiring import propagate_rewired, rewired_mean, rewired_weights

READOUTS = ("mean", "norm_mean", "max", "attention")
PROPAGATIONS = ("closed_form", "step_by_step")
POSITION_INITS = ("zeros", "normal")


def grid_tokens(features: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B T P C"]:
    """A 3D backbone's features as a grid of tokens; the sites row by row."""
    return features.flatten(3).permute(0, 2, 3, 1)


def interpolate_positions(
    positions: Float[Tensor, "1 N C"], *, num_sites: int, time_steps: int
) -> Float[Tensor, "1 M C"]:
    """Positional encodings of another number of time steps, linear in time, site by site.

    UniView's frames cover the whole clip, however many they are, so that step t of T is about the part of the clip
    around (t + 1/2) / T. A new step takes from the two old ones that its middle lies between; before the first middle
    and after the last, from that one alone.

    Args:
        positions: One vector for each token of T = N / num_sites time steps.
        num_sites: P.
        time_steps: T of the result, M = T * P.

    Raises:
        InputError: The positions are no whole number of time steps, or the new number is less than one.
    """
    num_positions = positions.shape[1]
    if num_positions % num_sites or not num_positions:
        raise InputError(f"positions must be a multiple of num_sites={num_sites}, but there are {num_positions}.")
    if time_steps < 1:
        raise InputError(f"time_steps >= 1 must hold, but got time_steps={time_steps}.")
    in_time = positions.unflatten(1, (-1, num_sites)).permute(0, 2, 3, 1).flatten(1, 2)
    stretched = interpolate(in_time, size=time_steps, mode="linear", align_corners=False)
    return stretched.unflatten(1, (num_sites, -1)).permute(0, 3, 1, 2).flatten(1, 2)


class LinearHead(nn.Module):
    """The mean over all tokens and a linear classifier: what TAG-Head is compared with (row B; TL and FT of Fig. 3).

    Args:
        channels: C of the tokens.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)

    def encode(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        """The tokens as they are."""
        return tokens

    def embed(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B C"]:
        """The pooled vector of each clip, as the classifier sees it."""
        return tokens.mean(dim=(1, 2))

    def classify(self, embedding: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        """The logits of pooled vectors."""
        return self.classifier(embedding)

    def forward(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B K"]:
        """The logits of each clip."""
        return self.classify(self.embed(tokens))


class TAGHead(nn.Module):
    """The TAG-Head of arXiv 2604.11498 (Section 3, Eq. 1 to 3): tokens in, logits out.

    The defaults are the paper's where it gives them. It gives no alpha, K_prop, dropout, activation or initialisation:
    alpha = 0.1 and K_prop = 10 are APPNP's own, ReLU is PyTorch's and the released code's, and the positional encoding
    starts at zero, so that training starts from the tokens as the backbone made them. The released code
    (ImtiazUlHassan/Tag-Head) is ``norm_first=False, dropout=0.5, k_prop=2, position_init="normal",
    classifier_norm=True``; its names of parameters are ours.

    Parameters start as PyTorch's layers do, drawn from torch's global generator in this order: classifier, projection,
    encoder, positional encoding. Graph and readout draw nothing. So at one seed heads that differ in graph or readout
    start with the same values, and leaving out encoder or positional encoding leaves the classifier as it was. The
    layers of the encoder start as copies of one another, as PyTorch's and the released code's do. A layer draws
    attention, feed-forward part and, where it has one, the MLP that attention is replaced by: so with ``mlp`` only a
    ``normal`` positional encoding and that MLP start with other values.

    Three controls tell what a part is good for beside its size: ``encoder="mlp"`` (no token sees another before the
    graph), ``rewiring`` (any other graph of the same degrees) and ``propagation="step_by_step"`` (under the mean
    readout the closed form is T fixed numbers in place of the graph; this one multiplies with the adjacency).

    The mean readout does not wait for the encoder's end: pre-norm, without dropout, the last layer is x + W2 f(x) + b2,
    and a weighted mean commutes with sums and with W2. So nodes are pooled before W2, which then meets one vector a
    clip and not N; see `pools_early`.

    Args:
        channels: C of the tokens that come in.
        grid: (T, H, W) of the backbone's features.
        num_classes: K.
        width: Channels that tokens are first projected to, by a linear map; None for none (the paper).
        positional_encoding: Whether to add a learnable vector to each token.
        position_init: ``zeros``, or ``normal`` for a standard normal one.
        num_layers: Of the encoder; 0 for no encoder.
        encoder: ``attention`` (the paper); or ``mlp``: in each layer an MLP of hidden width 2D on each token alone
            takes the place of attention. Of D channels it has 4D^2 + 3D parameters, and attention 4D^2 + 4D.
        num_heads: Of its attention.
        ffn_dim: Width of its feed-forward part.
        dropout: In the encoder: on attention, inside and after the feed-forward part.
        norm_first: Pre-norm (the paper) or post-norm. There is no norm after the last layer.
        activation: ``relu`` or ``gelu``.
        edges: Any of ``intra_frame`` and ``time_aligned``; none for no graph.
        edge_combination: ``union`` or ``block``; see `taghead.graph`.
        alpha: The teleport probability of APPNP, 0 to 1.
        k_prop: APPNP's number of steps.
        edge_dropout: In training, the probability with which each step drops an edge; see `taghead.graph.propagate`.
        rewiring: The seed of a random graph of the same degrees, see `taghead.rewiring`; None for the token graph.
        propagation: ``closed_form``, or ``step_by_step`` for Eq. 2 as it stands: the same up to rounding, and slower.
            The control graph has a closed form under the mean readout only.
        readout: ``mean`` over the nodes (Eq. 3), ``norm_mean`` (each node is normalised first), ``max``, or
            ``attention`` (one learned query, which starts at zero and so as the mean).
        classifier_norm: Whether the pooled vector is normalised before the linear map.

    Attributes:
        pools_early: Whether to pool before the encoder's last linear map where that is the same but for rounding. False
            computes Eq. 1 to 3 one after the other, as the paper counts its multiply-adds.

    Raises:
        InputError: An unknown name, a number out of range, or heads that do not divide the channels.
    """

    pools_early = True

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
        encoder: str = "attention",
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
        norm_first: bool = True,
        activation: str = "relu",
        edges: Collection[str] = EDGES,
        edge_combination: str = "union",
        alpha: float = 0.1,
        k_prop: int = 10,
        edge_dropout: float = 0.0,
        rewiring: int | None = None,
        propagation: str = "closed_form",
        readout: str = "mean",
        classifier_norm: bool = False,
    ) -> None:
        super().__init__()
        time, rows, columns = grid
        self.grid = (time, rows * columns)
        self.channels = channels
        self.graph: dict[str, Any] = {
            "alpha": alpha,
            "k_prop": k_prop,
            "edges": edges,
            "edge_combination": edge_combination,
        }
        frame_weights(self.grid, **self.graph)  # refuses here what the first clip would be refused for
        check_propagation(alpha=alpha, k_prop=k_prop, edge_dropout=edge_dropout)
        check_name("propagation", propagation, PROPAGATIONS)
        spreads = bool(edges) and k_prop > 0  # else there is nothing to drop, rewire or do step by step
        self.edge_dropout = edge_dropout if spreads else 0.0
        self.rewiring = rewiring if spreads else None
        self.step_by_step = spreads and propagation == "step_by_step"
        if self.rewiring is not None:
            rewired_weights(self.grid, rewiring=self.rewiring, **self.graph)  # likewise
        inner = channels if width is None else width
        classifier = nn.Linear(inner, num_classes)
        self.projection = nn.Identity() if width is None else nn.Linear(channels, width)
        self.transformer: nn.Module = nn.Identity()
        if num_layers:
            options: dict[str, Any] = {"norm_first": norm_first, "activation": activation}
            check_name("encoder", encoder, ENCODERS)
            mlp = encoder == "mlp"
            layer = (
                MLPLayer(inner, ffn_dim, dropout, **options)
                if mlp
                else EncoderLayer(inner, num_heads, ffn_dim, dropout, **options)
            )
            self.transformer = Encoder(layer, num_layers)
        self.pos_embedding = (
            _positions((1, time * rows * columns, inner), position_init) if positional_encoding else None
        )
        self.readout = Readout(inner, readout)
        self.classifier = nn.Sequential(nn.LayerNorm(inner), classifier) if classifier_norm else classifier

    @property
    def frame_weights(self) -> Float[Tensor, " T"]:
        """The weights with which a mean readout sees the frames, in float64: all that it sees of the token graph.

        Of the control graph it sees `taghead.rewiring.rewired_weights`; these are their sums over the frames.
        """
        if self.rewiring is not None:
            return rewired_weights(self.grid, rewiring=self.rewiring, **self.graph).view(self.grid).sum(dim=1)
        return frame_weights(self.grid, **self.graph)

    def encode(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P D"]:
        """H0 of Eq. 2: projection, positional encoding and encoder. D is ``width``, or C without it.

        Raises:
            InputError: The tokens are not of the grid and channels that the head was built for.
        """
        return self.transformer(self._nodes(tokens)).unflatten(1, self.grid)

    def embed(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B D"]:
        """The pooled vector of each clip, as the classifier (with its norm, if any) sees it: `encode`, graph, readout.

        Under the mean readout graph and readout are one weighted mean, and token graphs with equal weights give equal
        bits, unless edges are being dropped or propagation is to be done step by step.

        Raises:
            InputError: As `encode`.
        """
        edge_dropout = self.edge_dropout if self.training else 0.0
        if self.readout.kind == "mean" and not edge_dropout and not self.step_by_step:
            nodes = self._nodes(tokens)
            if self.pools_early and isinstance(self.transformer, Encoder) and self.transformer.ends_in_a_linear_map:
                return self.transformer(nodes, pool=self._pool, weight=float(self.frame_weights.sum()))
            return self._pool(self.transformer(nodes))
        return self.readout(self._propagate(self.encode(tokens), edge_dropout).flatten(1, 2))

    def _nodes(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B N D"]:
        if tokens.shape[1:] != (*self.grid, self.channels):
            raise InputError(
                f"this head takes tokens with (T, P, C) = {(*self.grid, self.channels)}, but got "
                f"{tuple(tokens.shape[1:])}; give clips of the size it was built for, or build it for these."
            )
        nodes = self.projection(tokens).flatten(1, 2)
        # channels last in memory, as all that follows reads them; a sum takes the order of its first term
        return nodes.contiguous() if self.pos_embedding is None else self.pos_embedding + nodes

    def _pool(self, nodes: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """Graph and mean readout at once (Eq. 2 and 3)."""
        tokens = nodes.unflatten(1, self.grid)
        if self.rewiring is not None:
            return rewired_mean(tokens, rewiring=self.rewiring, **self.graph)
        return propagated_mean(tokens, **self.graph)

    def _propagate(self, h0: Float[Tensor, "B T P D"], edge_dropout: float) -> Float[Tensor, "B T P D"]:
        if self.rewiring is not None:
            return propagate_rewired(h0, rewiring=self.rewiring, edge_dropout=edge_dropout, **self.graph)
        steps = propagate_reference if self.step_by_step else propagate
        return steps(h0, edge_dropout=edge_dropout, **self.graph)

    def classify(self, embedding: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """The logits of pooled vectors."""
        return self.classifier(embedding)

    def forward(self, tokens: Float[Tensor, "B T P C"]) -> Float[Tensor, "B K"]:
        """The logits of each clip."""
        return self.classify(self.embed(tokens))


class Readout(nn.Module):
    """From nodes to one vector; only ``mean`` is linear in them, and only the others see the graph within frames.

    Args:
        channels: D of the nodes.
        kind: One of `READOUTS`.

    Raises:
        InputError: An unknown kind.
    """

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        check_name("readout", kind, READOUTS)
        self.kind = kind
        if kind == "norm_mean":
            self.norm = nn.LayerNorm(channels)
        if kind == "attention":
            self.query = nn.Parameter(torch.zeros(channels))

    def forward(self, nodes: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The pooled vector of each clip."""
        if self.kind == "max":
            return nodes.amax(dim=1)
        if self.kind == "attention":
            scores = nodes @ self.query / nodes.shape[-1] ** 0.5
            return (scores.softmax(dim=1)[..., None] * nodes).sum(dim=1)
        return (self.norm(nodes) if self.kind == "norm_mean" else nodes).mean(dim=1)


def _positions(shape: tuple[int, int, int], init: str) -> nn.Parameter:
    check_name("position_init", init, POSITION_INITS)
    return nn.Parameter(torch.zeros(shape) if init == "zeros" else torch.randn(shape))
