# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN201
# mypy: disallow-untyped-defs=False
"""Products on the matrix units that lose nothing: the operands cut into bfloat16 terms.

A count up to 256 is one bfloat16 number and one up to 65536 the sum of two; a float32 number is the sum of three.
"""

import torch
import triton
import triton.language as tl

IS_INTERPRETED = bool(triton.knobs.runtime.interpret)


@triton.jit
def multiply(a, b, A_TERMS: tl.constexpr, B_TERMS: tl.constexpr):
    """Return a @ b: in float32 where A_TERMS is 0, else with the operands cut into bfloat16 terms, small ones first.

    The matrix units truncate when they add, so callers add one product after the other in float32 themselves.
    """
    if A_TERMS == 0:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    a0 = a.to(tl.bfloat16)
    b0 = b.to(tl.bfloat16)
    part = tl.zeros([a.shape[0], b.shape[1]], dtype=tl.float32)
    if B_TERMS > 1:
        rest = b.to(tl.float32) - b0.to(tl.float32)
        b1 = rest.to(tl.bfloat16)
        if B_TERMS > 2:
            part = tl.dot(a0, (rest - b1.to(tl.float32)).to(tl.bfloat16), part)
        part = tl.dot(a0, b1, part)
    if A_TERMS > 1:
        a1 = (a - a0.to(tl.float32)).to(tl.bfloat16)
        if B_TERMS > 1:
            part = tl.dot(a1, b1, part)
        part = tl.dot(a1, b0, part)
    return tl.dot(a0, b0, part)


def num_terms(is_uniform: bool, area: int, dtype: torch.dtype) -> tuple[int, int]:
    """How many bfloat16 terms the weights and the other operand need; (0, 0) multiplies in float32."""
    if IS_INTERPRETED or not is_uniform or area > 2**16:
        return 0, 0
    return (1 if area <= 256 else 2), {torch.bfloat16: 1, torch.float16: 2, torch.float32: 3}[dtype]
