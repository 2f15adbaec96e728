"""RACCooN: edit a video by editing its paragraph."""

__version__ = "0.1.0"
