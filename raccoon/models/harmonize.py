"""Matching the colour of what was painted to what surrounds it.

An autoencoder shifts the colours of flat regions by a level or two, which shows as a faint patch where the result is
pasted back. Outside the mask the shift is known, there both pictures show the same thing; its smooth part is carried
into the mask and taken away.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Each scale counts a tenth of the finer one, so that it decides only where the finer one sees nothing.
_SCALES = 4
_FALL = 0.1
# A larger difference is no shift of colour: the edge of something, or something that was painted over the border.
_LIMIT = 0.1


def match_surround(painted: Tensor, source: Tensor, mask: Tensor, *, radius: float = 2.0) -> Tensor:
    """Add to the painted clip the smooth part of (source - painted) outside the mask.

    Args:
        painted: float [F, 3, H, W] in [0, 1].
        source: float [F, 3, H, W] in [0, 1], the clip that was edited.
        mask: {0, 1} [F, H, W], 1 = was repainted.
        radius: of the finest of four Gaussians, in pixels; each of the others is twice as wide.

    Returns:
        float [F, 3, H, W] in [0, 1]; a frame without anything outside its mask comes back as it is.
    """
    error = source - painted
    known = ((1 - mask[:, None].to(error.dtype)) * (error.abs() < _LIMIT).all(dim=1, keepdim=True)).contiguous()
    total, weights = torch.zeros_like(error), torch.zeros_like(known)
    for scale in range(_SCALES):
        sigma = radius * 2**scale
        total += _FALL**scale * _blur(error * known, sigma)
        weights += _FALL**scale * _blur(known, sigma)
    return (painted + total / weights.clamp_min(1e-6)).clamp(0, 1)


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [F, C, H, W], with nothing beyond the border."""
    reach = max(1, round(3 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = functional.conv2d(functional.pad(flat, (0, 0, reach, reach)), kernel.view(1, 1, -1, 1))
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0)), kernel.view(1, 1, 1, -1))
    return flat.view_as(x)
