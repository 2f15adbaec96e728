"""sRGB to CIELAB, where equal distances look about equally different.

Superpixels and their clusters compare colours by Euclidean distance; in sRGB that distance says little about what an
eye sees. Plain tensor arithmetic on any device, in float32.
Source: IEC 61966-2-1 (sRGB) and CIE 15 (CIELAB), D65 white, 2 degree observer.
"""

import torch
from torch import Tensor

# Linear sRGB to XYZ, IEC 61966-2-1, each row divided by the D65 white so that white becomes (1, 1, 1).
_WHITE = (0.950456, 1.0, 1.088754)
_RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
# CIE 15: below this the cube root is replaced by a line.
_EPSILON, _SLOPE, _OFFSET = 0.008856, 7.787, 16.0 / 116.0


def srgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB to CIELAB.

    Args:
        rgb: [..., 3, H, W] floating, in [0, 1].

    Returns:
        float32 [..., 3, H, W]: L in [0, 100], a and b in about [-110, 110]; grey has a = b = 0 to within 0.01.

    Raises:
        TypeError: if rgb is not floating: 0..255 integers would silently pass as bright nonsense.
        ValueError: if the third axis from the end does not hold three channels.
    """
    if not rgb.is_floating_point():
        raise TypeError(f"rgb must be floating in [0, 1], got {rgb.dtype}; divide 8-bit frames by 255")
    if rgb.ndim < 3 or rgb.shape[-3] != 3:
        raise ValueError(f"rgb must be [..., 3, H, W], got {list(rgb.shape)}; put the channels before height and width")
    rgb = rgb.float()
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0.0) + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear.unbind(-3)
    # Written out rather than as a matmul: a GPU may run a matmul in tf32, which costs 0.1 of L.
    xyz = [
        (row[0] / white) * red + (row[1] / white) * green + (row[2] / white) * blue
        for row, white in zip(_RGB_TO_XYZ, _WHITE, strict=True)
    ]
    fx, fy, fz = (torch.where(v > _EPSILON, v.clamp_min(_EPSILON) ** (1.0 / 3.0), _SLOPE * v + _OFFSET) for v in xyz)
    return torch.stack((116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)), dim=-3)
