"""One case of the benchmark: check every provider against float64, then time those that passed against each other."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .bench_cases import DTYPES, GRADIENT_OPS, MODES, Case, Inputs, Mode, make_inputs
from .bench_providers import Provider, providers
from .bench_report import Result, Status
from .bench_timing import captured, peak_memory, time_interleaved
from .bench_truth import Truth, relative_error
from .bench_yardsticks import Function, Unavailable
from .dispatch import has_triton

# ||out - float64|| / ||float64|| above which a result is wrong. The bounds tell a wrong result from a rounded one; how
# the kernels' rounding compares with plain torch's is a target of its own.
_TOLERANCE = {"fp32": 1e-5, "u8": 1e-5, "fp16": 5e-3, "bf16": 3e-2}
# Twenty iterations of k-means carry on a point that rounding puts into another cluster; others round their distances to
# tf32 (flash-kmeans: 2e-3 seen on an H200), ours must not.
_CLUSTERING_TOLERANCE = {"ours": 1e-3, "eager": 1e-2, "compiled": 1e-2, "other": 1e-2}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a case is run."""

    device: torch.device
    modes: tuple[Mode, ...] = ("fwd",)
    repeats: int = 20
    budget_s: float = 60.0  # for the timed rounds of one mode of one case
    compile_modes: tuple[Mode, ...] = MODES  # in which torch.compile takes part; empty for none
    use_graph: bool = False
    only: tuple[str, ...] = ()  # names of providers; empty for all
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Expected:
    inputs: Inputs
    truth: Truth
    gradient: Tensor | None  # at the result


def failures() -> tuple[type[Exception], ...]:
    """What a provider that cannot run here may raise: a library's own assertions, a kernel that does not fit, ..."""
    kinds: list[type[Exception]] = [RuntimeError, ImportError, ValueError, TypeError, AssertionError, AttributeError]
    kinds += [LookupError, OSError, ArithmeticError]
    if has_triton():
        from triton import TritonError

        kinds.append(TritonError)
    return tuple(kinds)


def run_case(case: Case, settings: Settings, *, chosen: Sequence[Provider] | None = None) -> list[Result]:
    """Check and time the providers of a case in every mode that it has.

    A provider whose result is wrong, or that raises where it should not, is reported as "wrong" and not timed; one
    that cannot run here is reported as "unavailable" with its reason. `chosen` replaces the known providers.
    """
    if chosen is None:
        chosen = providers(case.op, compiled=bool(settings.compile_modes))
    if settings.only:
        chosen = [provider for provider in chosen if provider.name in settings.only]
    inputs = make_inputs(case, settings.device, seed=settings.seed)
    truth = Truth(inputs)
    gradient = None
    if truth.result is not None and case.op in GRADIENT_OPS:
        generator = torch.Generator(device=settings.device).manual_seed(settings.seed + 1)
        gradient = torch.randn(truth.result.shape, generator=generator, device=settings.device)
    expected = _Expected(inputs, truth, gradient)
    if any(provider.kind == "compiled" for provider in chosen):
        torch._dynamo.reset()  # or the sizes of earlier cases count towards the limit on recompilations
    results = []
    for mode in settings.modes:
        if mode == "fwd" or (case.op in GRADIENT_OPS and DTYPES[case.dtype].is_floating_point):
            results += _run_mode(mode, chosen, expected, settings)
    return results


def _run_mode(mode: Mode, chosen: Sequence[Provider], expected: _Expected, settings: Settings) -> list[Result]:
    results: list[Result] = []
    calls: dict[str, Callable[[], object]] = {}
    for provider in chosen:
        if mode != "fwd" and not provider.is_differentiable:
            continue
        if provider.kind == "compiled" and mode not in settings.compile_modes:
            continue
        result, call = _check(provider, mode, expected)
        results.append(result)
        if call is not None:
            calls[provider.name] = call
    for index, result in enumerate(results):
        if result.provider in calls:
            results[index] = replace(result, peak_bytes=peak_memory(calls[result.provider], settings.device))
    timings = time_interleaved(calls, settings.device, repeats=settings.repeats, budget_s=settings.budget_s)
    results = [replace(result, timing=timings.get(result.provider)) for result in results]
    if settings.use_graph and mode == "fwd":
        results += _graphed(results, calls, settings)
    return results


def _check(provider: Provider, mode: Mode, expected: _Expected) -> tuple[Result, Callable[[], object] | None]:
    inputs = expected.inputs
    result = Result(case=inputs.case, mode=mode, provider=provider.name, kind=provider.kind)
    try:
        # Inductor's own warnings (no lowering, a cache that is full) are about speed, which is what is measured.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function = provider.build(inputs)
            call, found = _call_of(function, mode, expected)
            again = _first(found())
            result = replace(result, is_deterministic=bool(torch.equal(again, _first(found()))))
    except Unavailable as reason:
        return replace(result, status="unavailable", note=str(reason)), None
    except failures() as err:
        # Ours must run wherever it says it can; another's failure is its own affair.
        line = (str(err).strip().splitlines() or [""])[0][:200]
        status: Status = "wrong" if provider.kind == "ours" else "unavailable"
        return replace(result, status=status, note=f"raised {type(err).__name__}: {line}"), None
    answer, gradient = expected.truth.result, expected.gradient
    if not provider.is_checked or answer is None:
        return result, call
    try:
        slices = iter(answer) if mode == "fwd" or gradient is None else expected.truth.gradient(gradient)
        error, greatest = relative_error(again, slices)
    except ValueError as err:
        return replace(result, status="wrong", note=str(err)), None
    result = replace(result, error=error, max_abs_error=greatest)
    bound = _TOLERANCE[inputs.case.dtype]
    if inputs.case.op == "overlapping_kmeans":
        bound = _CLUSTERING_TOLERANCE[provider.kind]
    if not error <= bound:  # also when it is NaN
        return replace(
            result, status="wrong", note=f"error {error:.2e} against float64, at most {bound:.0e} passes"
        ), None
    return result, call


def _call_of(
    function: Function, mode: Mode, expected: _Expected
) -> tuple[Callable[[], object], Callable[[], Tensor | tuple[Tensor, ...]]]:
    """Return what is timed, and what gives the tensor that is checked."""
    given = expected.inputs.differentiable
    if mode == "fwd":
        return (lambda: function(given)), (lambda: function(given))
    leaf = given.detach().requires_grad_()
    gradient = expected.gradient
    assert gradient is not None, "an operation without a gradient is not run backwards"

    def both() -> Tensor:
        out = _first(function(leaf))
        return torch.autograd.grad(out, leaf, gradient.to(out.dtype))[0]

    if mode == "full":
        return both, both
    # A compiled backward may write over what it saved, unless told that it will run again.
    with torch._functorch.config.patch(donated_buffer=False):
        out = _first(function(leaf))
        given_out = gradient.to(out.dtype)
        torch.autograd.grad(out, leaf, given_out, retain_graph=True)

    def backward() -> Tensor:
        return torch.autograd.grad(out, leaf, given_out, retain_graph=True)[0]

    return backward, backward


def _graphed(results: Sequence[Result], calls: dict[str, Callable[[], object]], settings: Settings) -> list[Result]:
    replays: dict[str, Callable[[], object]] = {}
    graphed = []
    # Every graph has memory of its own, for which what the launched calls left cached is too much beside it.
    torch.cuda.empty_cache()
    for result in results:
        if result.timing is None or result.kind == "compiled":
            continue
        try:
            replays[result.provider] = captured(calls[result.provider], settings.device)
            # What was checked is the call that is launched: a replay has no figures but its time.
            unchecked = replace(result, error=None, max_abs_error=None, is_deterministic=None, peak_bytes=None)
            graphed.append(replace(unchecked, graph=True))
        except failures() as err:
            torch.cuda.synchronize(settings.device)
            line = (str(err).strip().splitlines() or [""])[0][:200]
            note = f"cannot be captured in a graph: {line}"
            graphed.append(replace(result, graph=True, status="unavailable", note=note, timing=None))
    timings = time_interleaved(replays, settings.device, repeats=settings.repeats, budget_s=settings.budget_s)
    return [replace(result, timing=timings.get(result.provider)) for result in graphed]


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]
