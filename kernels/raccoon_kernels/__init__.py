"""Pooling kernels: superpixel means, overlapping k-means, masked multi-granular pooling.

Needs torch alone; with Triton and a CUDA device the ops run as Triton kernels. `raccoon_kernels.reference` holds the
slow float64 twins that define what is correct.
"""

from raccoon_kernels.mgs_pool import grid_weights, mgs_pool
from raccoon_kernels.overlapping_kmeans import OverlappingKMeans, overlapping_kmeans
from raccoon_kernels.superpixel_mean import superpixel_mean

__all__ = ["OverlappingKMeans", "grid_weights", "mgs_pool", "overlapping_kmeans", "superpixel_mean"]
