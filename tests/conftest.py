"""Triton's mode for the whole session.

Triton fixes whether its own functions are interpreted when it is first imported, and torch or Lightning may import it
before a kernel test does. So the choice is made here, before anything else: without a GPU kernels are interpreted, with
one they are compiled.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
