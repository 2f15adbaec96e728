"""Compile the shipped Triton kernels for a GPU that is not there, and read what the compiler made of them.

The interpreter that runs the kernels on a CPU accepts things a GPU's compiler does not (bfloat16 dots, tiles too small
for the matrix units) and says nothing about registers. Triton's wheel carries ptxas, cuobjdump and nvdisasm, so a
machine without a GPU can compile every shipped configuration to machine code for sm_90 and sm_80 and read registers,
spills and the width of the loads:

    python -m raccoon_kernels.compile_check

It compiles in a process of its own without TRITON_INTERPRET, because that mode is fixed when a kernel is decorated.
On the triton version that the configurations were chosen with, a spill or a missing 128-bit load where one is
expected is a fault and the exit code is 1; on other versions it is only reported.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

PINNED_TRITON = "3.7.1"
ARCHITECTURES = (90, 80)
# Bytes that one program may take of a multiprocessor, by architecture; a launch that asks for more fails.
# Source: CUDA C++ Programming Guide, technical specifications per compute capability.
SHARED_LIMITS = {75: 65536, 80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
_WIDE_LOAD = re.compile(r"\bLDG(?:STS)?\.\S*\b128\b|\bUBLKCP\b|\bUTMALDG\b")
_RESOURCES = re.compile(r"REG:(\d+)\s+STACK:(\d+)\s+SHARED:(\d+)\s+LOCAL:(\d+)")


@dataclass(frozen=True, slots=True)
class ShippedKernel:
    """One configuration of a kernel that the launchers use.

    `signature` maps every argument in order to its Triton type ("*fp32", "i32", ...; "constexpr" for the constants);
    `constexprs` holds the values of those. Pointers are taken as 16-byte aligned, as torch's allocations are;
    `divisible_by_16` names the integers that are multiples of 16 in practice. Without that knowledge the compiler
    splits loads, so it is part of the configuration.
    """

    name: str
    fn: Any  # the @triton.jit function
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int
    num_stages: int
    expect_wide_loads: bool = False
    divisible_by_16: tuple[str, ...] = ()
    max_registers: int | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler made of one configuration for one architecture."""

    name: str
    arch: int  # 90 is sm_90
    error: str = ""  # the compiler's last line, if it refused
    registers: int = 0
    stack_bytes: int = 0  # above 0: values spilled to memory
    shared_bytes: int = 0
    num_instructions: int = 0
    num_wide_loads: int = 0  # 128-bit loads and bulk copies
    matrix_instructions: str = ""  # HGMMA, HMMA, or nothing
    expects_wide_loads: bool = False


class ToolMissingError(RuntimeError):
    """Triton, or the disassembler that its wheel carries, is not on this machine."""


def compile_shipped(architectures: Sequence[int] = ARCHITECTURES) -> tuple[str, list[Compiled]]:
    """Compile every shipped configuration in a process of its own; returns triton's version and one entry each.

    Raises ToolMissingError where triton is not installed, and RuntimeError with the process' last lines if it ends
    without an answer.
    """
    if importlib.util.find_spec("triton") is None:
        raise ToolMissingError("compiling the kernels needs triton, which is not installed; pip install triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "raccoon_kernels.compile_check", "--child"]
    command += [f"--arch={arch}" for arch in architectures]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    answer = [line for line in process.stdout.splitlines() if line.startswith("{")]
    if process.returncode or not answer:
        tail = "\n".join((process.stdout + process.stderr).splitlines()[-12:])
        raise RuntimeError(
            f"the compiling process must end with an answer, it ended with {process.returncode}:\n{tail}"
        )
    decoded = json.loads(answer[-1])
    return decoded["triton"], [Compiled(**entry) for entry in decoded["compiled"]]


def faults_of(compiled: Sequence[Compiled]) -> list[str]:
    """Return a sentence for what does not compile, spills, is too large, or lacks the wide loads that it expects."""
    faults = []
    for entry in compiled:
        where = f"{entry.name} for sm_{entry.arch}"
        if entry.error:
            faults.append(f"{where} must compile: {entry.error}")
            continue
        if entry.stack_bytes:
            faults.append(f"{where} must keep its values in registers, {entry.stack_bytes} bytes spill to memory")
        limit = SHARED_LIMITS.get(entry.arch)
        if limit is not None and entry.shared_bytes > limit:
            faults.append(f"{where} must fit into {limit} bytes of shared memory, it takes {entry.shared_bytes}")
        if entry.expects_wide_loads and not entry.num_wide_loads:
            faults.append(f"{where} must load 128 bits at a time, no such load is in its machine code")
    return faults


def compile_one(kernel: ShippedKernel, arch: int) -> Compiled:
    """Compile one configuration for sm_`arch` in this process and read its resources and instructions.

    Raises ToolMissingError where triton or its disassembler is missing, and RuntimeError if this process runs
    Triton's interpreter, whose functions cannot be compiled.
    """
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ImportError as err:
        raise ToolMissingError(
            "compiling the kernels needs triton, which is not installed; pip install triton"
        ) from err
    if not hasattr(kernel.fn, "cache_key"):
        raise RuntimeError(
            f"{kernel.name} must be a compilable @triton.jit function, got {type(kernel.fn).__name__}; "
            "unset TRITON_INTERPRET before raccoon_kernels is imported"
        )
    names = list(kernel.signature)
    aligned = {n for n, kind in kernel.signature.items() if kind.startswith("*")} | set(kernel.divisible_by_16)
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in sorted(aligned)}
    source = ASTSource(kernel.fn, dict(kernel.signature), dict(kernel.constexprs), attributes)
    options: dict[str, int] = {"num_warps": kernel.num_warps, "num_stages": kernel.num_stages}
    if kernel.max_registers is not None:
        options["maxnreg"] = kernel.max_registers
    compiled = Compiled(kernel.name, arch, expects_wide_loads=kernel.expect_wide_loads)
    try:
        made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    except (triton.CompilationError, RuntimeError, ValueError) as err:
        return replace(compiled, error=(str(err).strip().splitlines() or [type(err).__name__])[-1])
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(made.asm["cubin"])
        resources = _RESOURCES.search(_tool("cuobjdump", "-res-usage", str(cubin)))
        machine_code = _tool("nvdisasm", "-c", str(cubin))
    if resources is None:
        raise ToolMissingError("cuobjdump must print REG, STACK and SHARED of a kernel, it printed neither")
    registers, stack, _, local = (int(number) for number in resources.groups())
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.+?);", machine_code, flags=re.MULTILINE)
    return replace(
        compiled,
        registers=registers,
        stack_bytes=stack + local,
        shared_bytes=int(made.metadata.shared),
        num_instructions=len(instructions),
        num_wide_loads=sum(bool(_WIDE_LOAD.search(line)) for line in instructions),
        matrix_instructions="/".join(kind for kind in ("HGMMA", "HMMA") if any(kind in line for line in instructions)),
    )


def table(compiled: Sequence[Compiled]) -> list[str]:
    """Return the lines of a Markdown table, one row per configuration and architecture."""
    lines = [
        "| kernel | sm | registers | spilled bytes | shared bytes | instructions | 128-bit loads | matrix units |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in compiled:
        if c.error:
            lines.append(f"| {c.name} | {c.arch} | does not compile: {c.error} | | | | | |")
            continue
        lines.append(
            f"| {c.name} | {c.arch} | {c.registers} | {c.stack_bytes} | {c.shared_bytes} | {c.num_instructions} "
            f"| {c.num_wide_loads} | {c.matrix_instructions or '-'} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, print the table and the faults; 0 if there are none or the triton version is not the pinned one."""
    parser = argparse.ArgumentParser(
        prog="python -m raccoon_kernels.compile_check", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--arch", type=int, action="append", help="compute capability times ten; default 90 and 80")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    architectures = tuple(arguments.arch or ARCHITECTURES)
    if arguments.child:
        return _child(architectures)
    version, compiled = compile_shipped(architectures)
    faults = faults_of(compiled)
    is_pinned = version == PINNED_TRITON
    print(f"triton {version}" + ("" if is_pinned else f", not the pinned {PINNED_TRITON}: reported, not judged"))
    print("\n".join(table(compiled)))
    for fault in faults:
        print(f"{'fault' if is_pinned else 'note'}: {fault}")
    return 1 if faults and is_pinned else 0


def _child(architectures: Sequence[int]) -> int:
    import triton

    from .shipped import shipped_kernels

    compiled = [asdict(compile_one(kernel, arch)) for arch in architectures for kernel in shipped_kernels(arch)]
    print(json.dumps({"triton": triton.__version__, "compiled": compiled}))
    return 0


def _tool(name: str, *arguments: str) -> str:
    from triton import knobs

    try:
        path = getattr(knobs.nvidia, name).path
        return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, RuntimeError, subprocess.CalledProcessError) as err:
        raise ToolMissingError(f"reading a compiled kernel needs {name}, which triton's wheel carries: {err}") from err


if __name__ == "__main__":
    sys.exit(main())
