"""The head's training step (C = 512, mean readout) against PyTorch's own encoder, a dense propagation and a mean.

    python benchmarks/bench_head.py --threads 2

A step is forward, cross-entropy, backward to the weights and to the backbone's features, and Adam (fused in both).
Logits and gradients are compared first. Writes head.json and head.md.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from plain_head import PlainHead, copied, distance
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from turns import Row, arguments, digits, measure, ratio, spread, turns_of, write

from taghead.head import TAGHead, grid_tokens

CHANNELS, GRID, CLASSES, CLIPS = 512, (4, 7, 7), 99, 8  # R(2+1)D-34 at 32 frames of 112 x 112 pixels
WIDTHS = (512, 1024, 2048)  # of the encoder's feed-forward part
BFLOAT16_TURNS = 3  # at the most (1 with --quick): slow where the processor has no instruction for it
EXACT, ROUNDED = 1e-5, 1e-2  # bounds of the relative differences, float32 and bfloat16
BFLOAT16 = ("avx512_bf16", "amx_bf16")


class Ours(nn.Module):
    """`TAGHead` on a backbone's features."""

    def __init__(self, head: TAGHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """The logits."""
        return self.head(grid_tokens(features))


def heads(ffn_dim: int, dropout: float = 0.0) -> tuple[Ours, PlainHead]:
    """Both, with the same weights, none of which is zero."""
    torch.manual_seed(0)
    ours = TAGHead(CHANNELS, GRID, CLASSES, ffn_dim=ffn_dim, dropout=dropout, position_init="normal")
    peer = PlainHead(CHANNELS, GRID, CLASSES, ffn_dim=ffn_dim, dropout=dropout)
    copied(ours, peer)
    return Ours(ours), peer


def batch() -> tuple[Tensor, Tensor]:
    """Features as a backbone gives them, and labels."""
    torch.manual_seed(1)
    return torch.randn(CLIPS, CHANNELS, *GRID, requires_grad=True), torch.randint(CLASSES, (CLIPS,))


def loss_of(model: nn.Module, features: Tensor, labels: Tensor, *, bfloat16: bool = False) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(features)
    return cross_entropy(logits.float(), labels)


def step(model: nn.Module, *, bfloat16: bool = False) -> Callable[[], object]:
    features, labels = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        features.grad = None
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, features, labels, bfloat16=bfloat16).backward()
        optimizer.step()

    return run


def differences(ours: Ours, peer: PlainHead, *, bfloat16: bool = False) -> tuple[float, float]:
    """Relative, of the logits, and the largest of a gradient; ours in float32 or bfloat16, the peer in float32."""
    features, labels = batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = ours(features)
    with torch.no_grad():
        apart = distance(logits, peer(features))
    names = [name for name, _ in peer.named_parameters()]
    gradients = []
    for model, low in ((ours, bfloat16), (peer, False)):
        parameters = dict((model.head if isinstance(model, Ours) else model).named_parameters())
        loss = loss_of(model, features, labels, bfloat16=low)
        gradients.append(torch.autograd.grad(loss, [features, *(parameters[name] for name in names)]))
    return apart, max(distance(one, other) for one, other in zip(*gradients, strict=True))


def check(ours: Ours, peer: PlainHead) -> tuple[float, float]:
    """Stops where logits or gradients are not the peer's but for float32's rounding."""
    logits, gradients = differences(ours, peer)
    if max(logits, gradients) > EXACT:
        raise SystemExit(f"not equal to {EXACT}: logits differ by {logits:.1e}, gradients by {gradients:.1e}")
    return logits, gradients


def of_width(ffn_dim: int, *, turns: int, bfloat16_turns: int) -> tuple[list[Row], dict[str, Any]]:
    """Both heads at one width."""
    ours, peer = heads(ffn_dim)
    logits, gradients = check(ours, peer)
    times = measure({"peer": step(peer), "ours": step(ours)}, turns=turns)
    at = f"C = {CHANNELS}, N = 196, batch {CLIPS}, FFN {ffn_dim}"
    name = "`nn.TransformerEncoder` + dense propagation + mean"
    rows = [
        Row(f"the head's training step, {at}", name, ratio(times["peer"], times["ours"]), "speed", 1.35, "at least")
    ]
    found = {"ffn_dim": ffn_dim, "logits_differ": logits, "gradients_differ": gradients, "seconds": times}
    if not bfloat16_turns:
        return rows, found
    rounded, _ = differences(ours, peer, bfloat16=True)
    low = measure(
        {"peer": step(peer), "ours, bfloat16": step(ours, bfloat16=True), "peer, bfloat16": step(peer, bfloat16=True)},
        turns=bfloat16_turns,
    )
    for by in ("peer", "peer, bfloat16"):
        told = f"{name}, {'bfloat16' if by.endswith('16') else 'float32'}"
        target = (2.1, "at least") if by == "peer" else (None, None)
        rows.append(Row(f"likewise in bfloat16, {at}", told, ratio(low[by], low["ours, bfloat16"]), "speed", *target))  # type: ignore[arg-type]
    rows.append(
        Row(f"its logits, {at}", "float32: relative difference", spread([rounded]), "number", ROUNDED, "at most")
    )
    return rows, found | {"logits_differ_bfloat16": rounded, "bfloat16_seconds": low}


def with_dropout(*, turns: int) -> Row:
    """With dropout no map can be exchanged with the mean: what is left is one product for the propagation."""
    ours, peer = heads(WIDTHS[0], dropout=0.1)
    check(ours.eval(), peer.eval())
    times = measure({"peer": step(peer.train()), "ours": step(ours.train())}, turns=turns)
    part = f"the head's training step with dropout 0.1, FFN {WIDTHS[0]}"
    return Row(part, "the same with dropout 0.1", ratio(times["peer"], times["ours"]), "speed")


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by an instruction of its own (Linux; elsewhere not known: False)."""
    info = Path("/proc/cpuinfo")
    return bool(re.search("|".join(BFLOAT16), info.read_text())) if info.exists() else False


def page(where: dict[str, Any], found: list[dict[str, Any]], turns: int) -> str:
    lines = [
        "# The head's training step",
        "",
        f"{where['date']}, {where['cpu']}, {where['cores']} cores, {where['threads']} thread(s), load "
        f"{where['load_before']} before; torch {where['torch']}; {turns} turns.",
        f"bfloat16 instructions: {'yes' if where['bfloat16'] else 'none of ' + ', '.join(BFLOAT16)}.",
        "",
        "| FFN | ours, ms | peer, ms | logits differ by | gradients differ by, at the most |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        ours, peer = (1e3 * spread(one["seconds"][name]).median for name in ("ours", "peer"))
        cells = (
            one["ffn_dim"],
            digits(ours),
            digits(peer),
            f"{one['logits_differ']:.1e}",
            f"{one['gradients_differ']:.1e}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments(__doc__, turns=9, quick_turns=3).parse_args()
    torch.set_num_threads(args.threads)
    where = machine("torch", threads=torch.get_num_threads(), bfloat16=has_bfloat16())
    turns = turns_of(args)
    low = {WIDTHS[0]: 1} if args.quick else dict.fromkeys(WIDTHS, min(turns, BFLOAT16_TURNS))
    made = [of_width(width, turns=turns, bfloat16_turns=low.get(width, 0)) for width in WIDTHS]
    rows = [row for rows, _ in made for row in rows] + [with_dropout(turns=turns)]
    found = [one for _, one in made]
    write("head", rows, out=args.out, machine=where, text=page(where, found, turns), turns=turns, widths=found)


if __name__ == "__main__":
    main()
