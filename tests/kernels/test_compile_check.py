import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from raccoon_kernels import compile_check
from raccoon_kernels.compile_check import (
    Compiled,
    ShippedKernel,
    ToolMissingError,
    compile_one,
    compile_shipped,
    faults_of,
    table,
)

KERNELS = str(Path(compile_check.__file__).parents[1])
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

PROGRAM = """
import json, sys
from dataclasses import asdict
import triton, triton.language as tl
from raccoon_kernels.compile_check import ShippedKernel, compile_one

@triton.jit
def copy(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n, other=0.0) * 2, mask=i < n)

@triton.jit
def small_dot(x, y, n, BLOCK: tl.constexpr):
    i = tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    a = tl.load(x + i)
    tl.store(y + i, tl.dot(a, a))

@triton.jit
def too_much(x, y, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    a = tl.load(x + i)
    tl.store(y + i, a / tl.sum(a, axis=1)[:, None])

signature = {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}
kernels = [
    ShippedKernel("wide", copy, signature, {"BLOCK": 1024}, 4, 2, True, ("n",)),
    ShippedKernel("narrow", copy, signature, {"BLOCK": 1024}, 4, 2, True, ()),
    ShippedKernel("refused", small_dot, signature, {"BLOCK": 4}, 4, 2),
    ShippedKernel("spills", too_much, signature, {"BLOCK": 128}, 1, 2),
]
print(json.dumps([asdict(compile_one(kernel, 90)) for kernel in kernels]))
"""


def run(program, folder, **environment):
    path = folder / "program.py"  # Triton reads a kernel's source from its file
    path.write_text(textwrap.dedent(program))
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment = clean | {"PYTHONPATH": KERNELS, "TRITON_CACHE_DIR": str(folder / "cache")} | environment
    return subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True)


@needs_triton
def test_what_the_compiler_makes_is_read_from_its_machine_code(tmp_path):
    process = run(PROGRAM, tmp_path)
    assert process.returncode == 0, process.stderr
    wide, narrow, refused, spills = (Compiled(**entry) for entry in json.loads(process.stdout))
    assert wide.num_wide_loads > 0
    assert wide.registers > 0
    assert wide.num_instructions > 20
    assert narrow.num_wide_loads == 0
    assert "K >= 16" in refused.error
    assert spills.stack_bytes > 0
    faults = faults_of([wide, narrow, refused, spills])
    assert faults[0] == "narrow for sm_90 must load 128 bits at a time, no such load is in its machine code"
    assert faults[1].startswith("refused for sm_90 must compile: ")
    assert faults[2] == (
        f"spills for sm_90 must keep its values in registers, {spills.stack_bytes} bytes spill to memory"
    )


@needs_triton
def test_an_interpreted_kernel_cannot_be_compiled(tmp_path):
    process = run(PROGRAM, tmp_path, TRITON_INTERPRET="1")
    assert process.returncode != 0
    assert "wide must be a compilable @triton.jit function" in process.stderr
    assert "unset TRITON_INTERPRET" in process.stderr


def judge_shipped(arch):
    version, compiled = compile_shipped([arch])
    print("\n".join(table(compiled)))
    assert len(compiled) > 20
    if version != compile_check.PINNED_TRITON:
        pytest.skip(f"reported, not judged: triton {version} is not the pinned {compile_check.PINNED_TRITON}")
    assert faults_of(compiled) == []
    return {entry.name: entry for entry in compiled}


@needs_triton
def test_the_shipped_kernels_compile_for_sm_90_without_spills_and_with_wide_loads():
    compiled = judge_shipped(90)
    # Both dtypes of what streams the large inputs: pixels of few and of many channels, and features.
    for setting in ("C=3", "C=64", "d=1024 equal"):
        chosen = [entry for entry in compiled.values() if entry.expects_wide_loads and setting in entry.name]
        assert {"fp32", "bf16"} <= {entry.name.split()[1] for entry in chosen}
        assert all(entry.num_wide_loads > 0 for entry in chosen)
    pooled = [entry for name, entry in compiled.items() if name.startswith("pool_tokens_fwd") and "equal" in name]
    assert all(entry.matrix_instructions for entry in pooled)


@needs_triton
@pytest.mark.slow
def test_the_shipped_kernels_compile_for_sm_80_without_spills_and_with_wide_loads():
    judge_shipped(80)


def test_what_takes_more_shared_memory_than_there_is_is_a_fault():
    fits, too_large = Compiled("a", 90, shared_bytes=141312), Compiled("a", 89, shared_bytes=141312)
    assert faults_of([fits]) == []
    assert faults_of([too_large]) == ["a for sm_89 must fit into 101376 bytes of shared memory, it takes 141312"]
    assert faults_of([Compiled("a", 70, shared_bytes=141312)]) == []


def test_the_table_has_a_row_for_each_and_says_what_was_refused():
    lines = table([Compiled("a", 90, registers=64, num_wide_loads=8), Compiled("b", 80, error="K >= 16")])
    assert lines[2] == "| a | 90 | 64 | 0 | 0 | 0 | 8 | - |"
    assert lines[3] == "| b | 80 | does not compile: K >= 16 | | | | | |"


@pytest.mark.parametrize(("version", "code", "word"), [("3.7.1", 1, "fault"), ("3.9.0", 0, "note")])
def test_faults_are_judged_on_the_pinned_version_and_reported_on_others(version, code, word, monkeypatch, capsys):
    spilled = [Compiled("a", 90, stack_bytes=8)]
    monkeypatch.setattr(compile_check, "compile_shipped", lambda architectures: (version, spilled))
    assert compile_check.main(["--arch", "90"]) == code
    assert f"{word}: a for sm_90 must keep its values in registers, 8 bytes" in capsys.readouterr().out


def test_without_triton_the_check_says_what_to_install(monkeypatch):
    monkeypatch.setattr(compile_check.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match="triton, which is not installed; pip install triton"):
        compile_shipped()


def test_one_kernel_without_triton_says_so_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ToolMissingError, match="triton, which is not installed"):
        compile_one(ShippedKernel("a", None, {}, {}, 4, 2), 90)


def test_a_compiling_process_that_dies_is_reported_with_its_last_lines(monkeypatch):
    monkeypatch.setattr(compile_check.importlib.util, "find_spec", lambda name: name)
    dead = subprocess.CompletedProcess([], 3, stdout="", stderr="one\nsegmentation fault")
    monkeypatch.setattr(compile_check.subprocess, "run", lambda *args, **options: dead)
    with pytest.raises(RuntimeError, match=r"it ended with 3:\none\nsegmentation fault"):
        compile_shipped()


@needs_triton
def test_a_missing_disassembler_is_named(monkeypatch):
    def missing(command, **options):
        raise OSError("no such file")

    monkeypatch.setattr(compile_check.subprocess, "run", missing)
    with pytest.raises(ToolMissingError, match="needs cuobjdump, which triton's wheel carries: no such file"):
        compile_check._tool("cuobjdump", "-res-usage", "x")
