"""Pooling kernels: superpixel means, overlapping k-means, masked multi-granular pooling."""
