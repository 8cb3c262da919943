"""Training steps compiled for an accelerator that need not be there: kernels, waits, memory."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from td.bench.networks import NETWORKS, peak_bytes, prepare
from td.bench.overhead import CASES, DENSE, TARGETED, Case
from td.errors import UserError, lookup
from td.evaluate.timing import as_markdown
from td.io import provenance
from td.io.files import write_json, write_text
from td.io.progress import progress
from td.train.population import Member, varied_step
from td.train.step import make_train_step

H100 = """
device_description_str: "NVIDIA H100 80GB HBM3"
platform_name: "CUDA"
runtime_version { major: 13 }
dnn_version_info { major: 9 minor: 7 }
gpu_device_info {
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  device_memory_size: 84929347584 threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 cuda_compute_capability { major: 9 }
}
"""
"""The device in XLA's description."""

TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
"""Environment without which the TPU's compiler looks for a machine."""

PLATFORMS = {"h100": "cuda", "v5e": "tpu"}
"""Target -> its platform in JAX, which is also the name of the extra with its compiler."""

KERNELS = "fusion|custom-call|copy|reduce|sort|dot|convolution|all-reduce|scatter|gather|transpose"

SIZE = 8
POPULATION = Case(f"{SIZE} networks, targeted weight", "mask=targeted,granularity=weight", TARGETED)
"""In one program, compared with one dense network."""

BATCHES = {"Transformer base": 32}
"""Rows of a batch, 128 for all others."""


class Program(NamedTuple):
    """A compiled training step."""

    kernels: int  # launched in one step
    in_loops: int  # of these, within loops
    waits: int  # conditionals and loops of unknown length, at which the host waits
    temporary: int  # bytes
    peak: int  # bytes, arguments and results included
    bytes_accessed: float | None  # where the compiler says so
    seconds: float | None  # likewise, its own estimate


def count_kernels(text: str) -> tuple[int, int, int]:
    """Count kernels that a program for a GPU launches, those within its loops, and waits of the host for the device."""
    lines: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        if found := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = found[2]
            entry = name if found[1] else entry
        lines.setdefault(name, []).append(line)

    def count(computation: str) -> tuple[int, int, int]:
        total = looped = waits = 0
        for line in lines[computation]:
            operation = re.search(rf"= .*? ({KERNELS}|while|conditional)\(", line)
            if operation is None:
                continue
            if operation[1] == "conditional":
                waits += 1
            elif operation[1] == "while":
                body = re.search(r"body=%?([\w.-]+)", line)
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                inside, _, waiting = count(body[1] if body else entry)
                times = int(trips[1]) if trips else 1
                total, looped = total + times * inside, looped + times * inside
                waits += times * waiting + (trips is None)
            else:
                total += 1
        return total, looped, waits

    return count(entry)


def device(target: str) -> Any:
    """Return a device of a target, to compile for; its plugin must be installed, the device need not be there."""
    platform = lookup(PLATFORMS, target, "target")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # what is kept there can only be read on the device
    try:
        if target == "h100":
            return topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1").devices[0]
        os.environ |= TPU
        return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]
    except Exception as error:  # a missing plugin raises one of several types
        raise UserError(f"cannot compile for {target}: pip install -e '.[lab,{platform}]' ({error})") from None


def compile_case(name: str, case: Case, count: int, target: str, there: Any) -> Program:
    """Compile a training step in bfloat16, of several networks that differ in seed and drop rate if `count` says so."""
    network, members = NETWORKS[name]._replace(batch=BATCHES.get(name, 128), dtype="bfloat16"), []
    for number in range(count):
        own = {"mask.drop_rate": 0.1 * number} if count > 1 else {}
        run, state, batch = prepare(network, case.arguments, {**case.settings, **own}, shapes_only=True)
        members.append(Member(Path(), run, state))
    step: Any = make_train_step(run.experiment)
    arguments: Any = state, jax.tree.map(jnp.asarray, batch), run.key
    if count > 1:
        one, numbers = varied_step(members)
        step = jax.jit(jax.vmap(one), donate_argnums=0)
        stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), arguments)
        arguments = *stacked, numbers
    sharding, platform = jax.sharding.SingleDeviceSharding(there), PLATFORMS[target]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arguments)
    compiled = step.trace(*shapes).lower(lowering_platforms=(platform,)).compile()
    cost = compiled.cost_analysis() if platform == "tpu" else {}
    sizes = compiled.memory_analysis().temp_size_in_bytes, peak_bytes(compiled)
    return Program(*count_kernels(compiled.as_text()), *sizes, cost.get("bytes accessed"), cost.get("optimal_seconds"))


def report(target: str, names: list[str], folder: Path) -> str:
    """Compile the steps of `td.bench.overhead` for a target and write `compiled-TARGET.json` and `.md`."""
    for name in names:
        lookup(NETWORKS, name, "network")
    there, about = device(target), provenance.describe()
    found: dict[str, dict[str, Program]] = {}
    programs = [(name, case, 1) for name in names or NETWORKS for case in CASES]
    programs += [("ResNet-32", POPULATION, SIZE)] if target == "h100" and "ResNet-32" in (names or NETWORKS) else []
    for name, case, count in progress(programs, desc=target, unit="program"):
        found.setdefault(name, {})[case.name] = compile_case(name, case, count, target, there)
    lines = [_line(name, case, program, row[DENSE]) for name, row in found.items() for case, program in row.items()]
    where = (
        f"A compiler's account, not a measurement: no {target} was there. One training step of 128 images, or of 32 "
        "pairs of 64 tokens, computed in bfloat16; kernels within loops count as often as they run; "
        f"JAX {about['versions']['jax']}; {about['date']}; commit {about['commit']}."
    )
    text = f"## Compiled for {target}\n\n{as_markdown(lines, names=2)}\n\n{where}\n"
    plain = {network: {case: program._asdict() for case, program in row.items()} for network, row in found.items()}
    write_json(folder / f"compiled-{target}.json", {"target": target, "programs": plain, **about})
    write_text(folder / f"compiled-{target}.md", text)
    return text


def _line(network: str, case: str, program: Program, dense: Program) -> dict[str, str]:
    line = {
        "network": network,
        "step": case,
        "kernels": f"{program.kernels:,}",
        "of dense": f"{program.kernels / dense.kernels:.3f}",
        "in loops": str(program.in_loops),
        "waits": str(program.waits),
        "temporary MiB": f"{program.temporary / 2**20:.0f} ({program.temporary / dense.temporary:.2f})",
        "peak MiB": f"{program.peak / 2**20:.0f} ({program.peak / dense.peak:.2f})",
    }
    if program.bytes_accessed is None:
        return line
    seconds = program.seconds or 0.0
    return line | {
        "GB accessed": f"{program.bytes_accessed / 1e9:.3g}",
        "estimated ms": f"{1e3 * seconds:.3g}" if seconds > 0 else "",  # negative: unknown
    }
