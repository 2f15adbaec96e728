# A Triton kernel takes pointers and numbers that no annotation names.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False
"""The iterations of k-means and (k,l)-means in one kernel.

A clip's programs keep blocks of points, form all distances by products on the matrix units (numbers cut into three
bfloat16 terms, so as precise as in float32), find the nearest clusters by a rolled argmin (ties to the lowest index),
and add the members to sums of their own. The program that finishes an iteration last adds those sums in a fixed order,
divides, refills empty clusters by the rule of `kmeans_lloyd.refill_empty`, writes how far the centroids moved, and lets
the others go on.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import triton
import triton.language as tl

from raccoon_kernels.launch import Launch, capability
from raccoon_kernels.triton_kmeans_update import update_centroids
from raccoon_kernels.triton_products import IS_INTERPRETED


@triton.jit
def _terms(x, TERMS: tl.constexpr):
    """Cut float32 numbers into three bfloat16 terms, which hold all their bits; TERMS 0 leaves them whole."""
    if TERMS == 0:
        return x, x, x
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _load_terms(columns_ptr, rows, valid, N, D: tl.constexpr, BLOCK_D: tl.constexpr, TERMS: tl.constexpr):
    """Load points [BLOCK_N, BLOCK_D] in terms; where there is room, column D holds ones, which count."""
    features = tl.arange(0, BLOCK_D)
    source = columns_ptr + features.to(tl.int64)[None, :] * N + rows[:, None]
    x = tl.load(source, mask=valid[:, None] & (features < D)[None, :], other=0.0)
    return _terms(tl.where((features == D)[None, :], 1.0, x), TERMS)


@triton.jit
def _scores(
    high,
    middle,
    low,
    centroids_ptr,
    k,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TERMS: tl.constexpr,
):
    """Squared distances [BLOCK_N, BLOCK_K] less the points' own squares, which change no order."""
    features, clusters = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_K)
    is_element = (features < D)[:, None] & (clusters < k)[None, :]
    # Past the first-level cache, which does not see what other multiprocessors write.
    c = tl.load(
        centroids_ptr + clusters[None, :] * D + features[:, None], mask=is_element, other=0.0, cache_modifier=".cg"
    )
    squares = tl.sum(c * c, axis=0)
    if TERMS == 0:
        product = tl.dot(high, c, input_precision="ieee")
    else:
        c_high, c_middle, c_low = _terms(c, TERMS)
        # What is left out is smaller than a float32 product rounds away.
        product = tl.dot(low, c_high)
        product = tl.dot(high, c_low, product)
        product = tl.dot(middle, c_middle, product)
        product = tl.dot(middle, c_high, product)
        product = tl.dot(high, c_middle, product)
        product = tl.dot(high, c_high, product)
    return tl.where((clusters < k)[None, :], squares[None, :] - 2.0 * product, float("inf"))


@triton.jit
def _nearest_members(scores, overlap, BLOCK_K: tl.constexpr):
    clusters = tl.arange(0, BLOCK_K)
    nearest = tl.argmin(scores, axis=1)
    members = clusters[None, :] == nearest[:, None]
    for _ in range(1, overlap):
        chosen = tl.argmin(tl.where(members, float("inf"), scores), axis=1)
        members = members | (clusters[None, :] == chosen[:, None])
    return nearest, members


@triton.jit
def _member_sums(members, high, middle, low, TERMS: tl.constexpr):
    """Add the members of each cluster [BLOCK_K, BLOCK_D]."""
    BLOCK_N: tl.constexpr = members.shape[0]
    BLOCK_K: tl.constexpr = members.shape[1]
    BLOCK_D: tl.constexpr = high.shape[1]
    if TERMS == 0:
        return tl.dot(tl.trans(members.to(tl.float32)), high, input_precision="ieee")
    if BLOCK_D > 16:
        is_member = tl.trans(members.to(tl.bfloat16))
        total = tl.dot(is_member, low)
        total = tl.dot(is_member, middle, total)
        return tl.dot(is_member, high, total)
    # Products of 32 points each, which a warp has: one product of all would be done by every warp.
    PARTS: tl.constexpr = BLOCK_N // 32
    is_member = tl.permute(tl.reshape(members.to(tl.bfloat16), [PARTS, 32, BLOCK_K]), [0, 2, 1])
    part = tl.dot(is_member, tl.reshape(low, [PARTS, 32, BLOCK_D]))
    part = tl.dot(is_member, tl.reshape(middle, [PARTS, 32, BLOCK_D]), part)
    part = tl.dot(is_member, tl.reshape(high, [PARTS, 32, BLOCK_D]), part)
    return tl.sum(part, axis=0)


@triton.jit(do_not_specialize=["num_iterations"])
def _kmeans_lloyd_kernel(
    columns_ptr,  # [D, N] float32
    clips_ptr,  # [B + 1] int64
    centroids_ptr,  # [B, k, D] float32
    shifts_ptr,  # [B] float32: the last squared shift
    limits_ptr,  # [B] float32: the shift that ends a clip's loop
    state_ptr,  # [B, 2] int64: programs that have arrived, iterations that are released
    iterations_ptr,  # [B] int64
    nearest_ptr,  # [N] int32
    sums_ptr,  # [B, programs, BLOCK_K, SUMS_D] float32; column D counts the points where COUNTS_IN_SUMS
    counts_ptr,  # [B, programs, BLOCK_K] int32; not used where COUNTS_IN_SUMS
    num_iterations,
    N,
    k,
    overlap,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SUMS_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    TERMS: tl.constexpr,
    COUNTS_IN_SUMS: tl.constexpr,
    IS_ONE_BLOCK: tl.constexpr,
):
    clip = tl.program_id(1).to(tl.int64)
    begin, end = tl.load(clips_ptr + clip), tl.load(clips_ptr + clip + 1)
    limit = tl.load(limits_ptr + clip)
    shift = tl.load(shifts_ptr + clip, cache_modifier=".cg")
    clusters = tl.arange(0, BLOCK_K)
    features = tl.arange(0, BLOCK_D)
    num_programs = tl.num_programs(0)
    centroids = centroids_ptr + clip * k * D
    out = clip * num_programs + tl.program_id(0)
    first = begin + tl.program_id(0) * BLOCK_N
    if IS_ONE_BLOCK:
        # The points stay in registers over all iterations.
        rows = first + tl.arange(0, BLOCK_N)
        valid = rows < end
        high, middle, low = _load_terms(columns_ptr, rows, valid, N, D, BLOCK_D, TERMS)
    # What earlier launches released.
    done = tl.load(state_ptr + clip * 2 + 1, cache_modifier=".cg")
    last = done + num_iterations
    while (done < last) & ((shift <= limit) == 0):
        if IS_ONE_BLOCK:
            scores = _scores(high, middle, low, centroids, k, D, BLOCK_D, BLOCK_K, TERMS)
            nearest, members = _nearest_members(scores, overlap, BLOCK_K)
            members = members & valid[:, None]
            tl.store(nearest_ptr + rows, nearest.to(tl.int32), mask=valid)
            sums = _member_sums(members, high, middle, low, TERMS)
            if not COUNTS_IN_SUMS:
                counts = tl.sum(members.to(tl.int32), axis=0)
        else:
            sums = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
            counts = tl.zeros([BLOCK_K], dtype=tl.int32)
            for start in tl.range(first, end, num_programs * BLOCK_N, num_stages=1):
                rows = start + tl.arange(0, BLOCK_N)
                valid = rows < end
                high, middle, low = _load_terms(columns_ptr, rows, valid, N, D, BLOCK_D, TERMS)
                scores = _scores(high, middle, low, centroids, k, D, BLOCK_D, BLOCK_K, TERMS)
                nearest, members = _nearest_members(scores, overlap, BLOCK_K)
                members = members & valid[:, None]
                tl.store(nearest_ptr + rows, nearest.to(tl.int32), mask=valid)
                sums += _member_sums(members, high, middle, low, TERMS)
                if not COUNTS_IN_SUMS:
                    counts += tl.sum(members.to(tl.int32), axis=0)
        target = sums_ptr + (out * BLOCK_K + clusters)[:, None] * SUMS_D + features[None, :]
        tl.store(target, sums, mask=(features < SUMS_D)[None, :] & (clusters < BLOCK_K)[:, None])
        if not COUNTS_IN_SUMS:
            tl.store(counts_ptr + out * BLOCK_K + clusters, counts)
        # All threads' sums must be written before this program counts as arrived.
        tl.debug_barrier()
        done += 1
        if tl.atomic_add(state_ptr + clip * 2, 1, sem="acq_rel") == done * num_programs - 1:
            update_centroids(
                columns_ptr,
                centroids,
                nearest_ptr,
                sums_ptr + clip * num_programs * BLOCK_K * SUMS_D,
                counts_ptr + clip * num_programs * BLOCK_K,
                shifts_ptr + clip,
                begin,
                end,
                num_programs,
                N,
                k,
                D,
                # What searches a point for an empty cluster must not cost the common case registers.
                BLOCK_N if BLOCK_N < 128 else 128,
                BLOCK_K,
                SUMS_D,
                BLOCK_P,
                COUNTS_IN_SUMS,
            )
            tl.store(iterations_ptr + clip, done)
            # All threads' centroids must be written before the others go on.
            tl.debug_barrier()
            tl.atomic_xchg(state_ptr + clip * 2 + 1, done, sem="release")
        if done < last:
            while tl.atomic_add(state_ptr + clip * 2 + 1, 0, sem="acquire") < done:
                pass
            shift = tl.load(shifts_ptr + clip, cache_modifier=".cg")


def block_config(block_k: int, block_d: int, arch: int) -> tuple[int, int]:
    """Points of a block and warps of the clustering kernel; `arch` is the compute capability times ten."""
    if block_d <= 16:
        return (512, 8) if block_k <= 32 else (256, 8)
    return (128, 8) if block_k <= 32 and arch >= 90 else (64, 8)


def num_multiprocessors(device: torch.device) -> int:
    """Programs that run at once on a device; an H100's and H200's number for one that is not there."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def lloyd_launch(
    num_points: int,
    features: int,
    k: int,
    offsets: Sequence[int],
    *,
    overlap: int,
    max_iterations: int,
    device: torch.device,
) -> tuple[Launch, int, tuple[int, int, int, int]]:
    """Plan the iterations of all clips.

    A clip of one block of points has one program, which goes on by itself. The programs of a larger clip need the new
    centroids of the one that is last, and the next launch has them: the kernel could wait for them, and several
    programs' results after such a wait have not been compared with float64 on a GPU.

    Returns:
        The launch, how often it is launched, and the shape of the sums that its programs leave.
    """
    num_clips = len(offsets) - 1
    longest = max(end - begin for begin, end in pairwise(offsets))
    block_k = max(16, triton.next_power_of_2(k))
    block_d = max(16, triton.next_power_of_2(features))
    counts_in_sums = features < block_d and longest < 2**24
    sums_d = triton.next_power_of_2(features + 1) if counts_in_sums else block_d
    block_n, num_warps = block_config(block_k, block_d, capability(device))
    blocks = triton.cdiv(longest, block_n)
    programs = triton.cdiv(blocks, triton.cdiv(blocks, max(1, num_multiprocessors(device) // num_clips)))
    is_one_launch = programs == 1 and max_iterations > 0
    # 16 sums in the registers of each thread.
    block_p = max(1, min(triton.next_power_of_2(programs), 512 * num_warps // (block_k * sums_d)))
    launch = Launch(
        _kmeans_lloyd_kernel,
        (programs, num_clips),
        (max_iterations if is_one_launch else 1, num_points, k, overlap),
        {
            "D": features,
            "BLOCK_N": block_n,
            "BLOCK_K": block_k,
            "BLOCK_D": block_d,
            "SUMS_D": sums_d,
            "BLOCK_P": block_p,
            "TERMS": 0 if IS_INTERPRETED else 3,
            "COUNTS_IN_SUMS": counts_in_sums,
            "IS_ONE_BLOCK": blocks <= programs and block_d <= 16,
        },
        num_warps=num_warps,
    )
    return launch, 1 if is_one_launch else max_iterations, (num_clips, programs, block_k, sums_d)
