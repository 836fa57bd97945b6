"""Random changes of training images, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Augment:
    """The following steps in this order, drawn independently for every image:

        crop:    zero padding by ``crop`` pixels on each side, then a window of the old size at a random place
        flip:    a horizontal flip with probability 1/2
        cutout:  a square of ``cutout`` x ``cutout`` pixels becomes 0; its centre is uniform over the image, so that it
                 may extend over the edge

    Padding is black before normalisation; cutout fills with 0 after normalisation, the mean. 0 or false skips a step.
    Raises ValueError for negative sizes.
    Source of cutout: DeVries and Taylor, arXiv 1708.04552, section 3.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("crop", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"augment.{name}={getattr(self, name)}: must not be negative; give pixels, or 0 to leave it out"
                )

    def draw(self, generator: torch.Generator, b: int, height: int, width: int) -> Tensor:
        """int64 [b, 5] on the CPU: the window's row and column in the padded image, 0 .. 2 crop; 1 to flip;
        the centre's row and column. The draws of a step do not depend on whether others are skipped."""
        kinds = torch.tensor([2 * self.crop + 1, 2 * self.crop + 1, 2, height, width])
        return (torch.rand(b, 5, generator=generator, dtype=torch.float64) * kinds).long()

    def apply(self, images: Tensor, draws: Tensor, black: Tensor | None = None) -> Tensor:
        """Normalised images [n, C, H, W], draws [n, 5] -> [n, C, H, W], on the images' device.

        ``black`` [C]: the normalised value of pixel 0, -mean / std; 0 if None.
        """
        channels, height, width = images.shape[1:]
        device = images.device
        dy, dx, flip, cy, cx = draws.to(device).unsqueeze(-1).unbind(1)  # [n, 1] each
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        if self.crop or self.flip:
            y = rows + dy - self.crop  # [n, H]: where each row comes from
            x = (torch.where(flip.bool(), width - 1 - columns, columns) if self.flip else columns) + dx - self.crop
            place = y.clamp(0, height - 1).unsqueeze(2) * width + x.clamp(0, width - 1).unsqueeze(1)
            place = place.flatten(1).unsqueeze(1).expand(-1, channels, -1)
            images = images.flatten(2).gather(2, place).view_as(images)
            if self.crop:
                inside = ((y >= 0) & (y < height)).unsqueeze(2) & ((x >= 0) & (x < width)).unsqueeze(1)
                fill = images.new_zeros(channels) if black is None else black.to(images)
                images = torch.where(inside.unsqueeze(1), images, fill.view(-1, 1, 1))
        if self.cutout:
            top, left = cy - self.cutout // 2, cx - self.cutout // 2
            hole = ((rows >= top) & (rows < top + self.cutout)).unsqueeze(2)
            hole = hole & ((columns >= left) & (columns < left + self.cutout)).unsqueeze(1)
            images = images.masked_fill(hole.unsqueeze(1), 0)
        return images
