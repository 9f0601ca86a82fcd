"""From a config to a module: a 3D backbone with a head on its tokens.

Legend: B clips, F frames, S pixels of the crop's side, T time steps, P sites, C channels, K classes.
"""

from jaxtyping import Float
from torch import Tensor, nn

from taghead.backbones import BACKBONES, freeze, grid_of
from taghead.backbones.own import build_own, features_of
from taghead.config import Config
from taghead.head import LinearHead, TAGHead, grid_tokens


class VideoModel(nn.Module):
    """A backbone and a head: clips in, logits out.

    Args:
        backbone: A module with ``channels`` that maps (B, 3, F, S, S) to (B, C, T, H, W).
        head: `TAGHead`, `LinearHead`, or anything with ``embed`` and ``classify``.
    """

    def __init__(self, backbone: nn.Module, head: TAGHead | LinearHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def tokens(self, clip: Float[Tensor, "B 3 F S S"]) -> Float[Tensor, "B T P C"]:
        """The backbone's features as a grid of tokens."""
        return grid_tokens(self.backbone(clip))

    def forward(self, clip: Float[Tensor, "B 3 F S S"]) -> Float[Tensor, "B K"]:
        """The logits of each clip."""
        return self.head(self.tokens(clip))


def build_model(config: Config, num_classes: int) -> VideoModel:
    """Builds the backbone, then the head, drawing from torch's global generator in that order.

    Args:
        config: The experiment.
        num_classes: K.

    Raises:
        InputError: A user's own backbone fails, or does not take the config's clips.
    """
    model, data = config.model, config.data
    if model.backbone_source is not None:
        backbone = build_own(model.backbone, model.backbone_source, norm_momentum=model.norm_momentum)
        size = {"num_frames": data.num_frames, "crop_size": data.crop_size}
        channels, *grid = features_of(backbone, name=model.backbone, **size)
    else:
        options = {} if model.norm_momentum is None else {"norm_momentum": model.norm_momentum}
        backbone, channels = BACKBONES[model.backbone](**options), BACKBONES[model.backbone].channels
        grid = [*grid_of(model.backbone, data.num_frames, data.crop_size)]
    if model.freeze_backbone:
        freeze(backbone)
    if model.head == "linear":
        return VideoModel(backbone, LinearHead(channels, num_classes))
    return VideoModel(backbone, TAGHead(channels, (grid[0], grid[1], grid[2]), num_classes, **config.head.model_dump()))
