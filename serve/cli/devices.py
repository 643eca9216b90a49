"""`inhouse devices`: what engines can run on here, and who is on it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from serve.cli import machine, output
from serve.cli.flags import JsonFlag, with_settings
from serve.hardware import Cpu, Gpu, Machine, known_gpus
from serve.settings import Settings
from serve.units import show_bytes

Facts = list[tuple[str, str]]

_LONGEST_COMMAND = 48  # --json has all of it
_REACHED = {
    "NVLINK": "NVLink",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "the PCIe host bridge",
    "NODE": "PCIe, inside one socket",
    "SYS": "PCIe, between sockets",
}
_FORMATS = {"fp16": "FP16", "fp8": "FP8", "fp4": "FP4", "int8": "INT8"}


_KNOWN_HEAD = ("CARD", "MEMORY", "GB/S", "FP16", "FP8", "FP4", "NVLINK")

KnownFlag = Annotated[
    bool,
    typer.Option("--known", help="List the kinds of cards that are known instead.", metavar=" "),
]


@with_settings("paths")
def devices(settings: Settings, known: KnownFlag = False, as_json: JsonFlag = False) -> None:
    """Show the graphics cards and the processor, what is free, and who is on them.

    The bandwidth of the processor's memory is measured the first time (half a second) and kept.
    """
    if known:
        _put_known(as_json)
        return
    here = machine.read(settings, is_measured=True)
    if as_json:
        output.put_json({"device": here.device} | asdict(here))
        return
    for number, facts in enumerate(tables(here)):
        if number:
            output.put("")
        output.put_facts(facts)


def tables(machine: Machine) -> Iterator[Facts]:
    """A table for each device, the driver first; label and text of each row."""
    if driver := _driver_facts(machine):
        yield driver
    for gpu in machine.gpus:
        yield _gpu_facts(gpu, machine)
    yield _cpu_facts(machine.cpu)


def _put_known(as_json: bool) -> None:
    """What plans can be made for without having it; TFLOP/s are dense, NVLink is in GB/s."""
    if as_json:
        output.put_json([asdict(gpu) | {"flops": dict(gpu.flops)} for gpu in known_gpus()])
        return
    rows = [
        (
            gpu.name,
            show_bytes(gpu.memory_bytes),
            _scaled(gpu.bandwidth, 1e9),
            *(_scaled(gpu.flops_of(form), 1e12) for form in ("fp16", "fp8", "fp4")),
            _scaled(gpu.link_bandwidth, 1e9),
        )
        for gpu in known_gpus()
    ]
    output.put_table(_KNOWN_HEAD, rows)


def _scaled(figure: int | None, unit: float) -> str:
    return f"{figure / unit:,.0f}" if figure else ""


def _driver_facts(machine: Machine) -> Facts:
    cuda = machine.cuda and f"CUDA {machine.cuda[0]}.{machine.cuda[1]}"
    hidden = machine.hidden and f"{_numbered(machine.hidden)}, by CUDA_VISIBLE_DEVICES"
    rows = [
        ("driver", ", ".join(filter(None, (machine.driver, cuda)))),
        ("problem", machine.gpu_problem),
        ("hidden", hidden),
    ]
    return [(name, value) for name, value in rows if value]


def _gpu_facts(gpu: Gpu, machine: Machine) -> Facts:
    known = gpu.known
    rows = [
        (f"GPU {gpu.index}", f"{gpu.name}, a MIG slice" if gpu.is_slice else gpu.name),
        ("memory", _memory(gpu)),
        ("bandwidth", known and f"{known.bandwidth / 1e9:,.0f} GB/s (data sheet)"),
        ("compute", _compute(gpu)),
        ("power", gpu.power_limit_w and f"{gpu.power_limit_w:,.0f} W at most"),
        ("reaches", _reached(gpu, machine)),
    ]
    facts = [(name, value) for name, value in rows if value]
    return facts + [("process", text) for text in _processes(gpu)]


def _memory(gpu: Gpu) -> str:
    free = f"{show_bytes(gpu.free_bytes)} free of {show_bytes(gpu.total_bytes)}"
    if gpu.known and gpu.known.is_unified:
        return f"{free}, shared with the processor"
    if gpu.reserved_bytes:
        return f"{free}, besides {show_bytes(gpu.reserved_bytes)} for the driver"
    return free


def _compute(gpu: Gpu) -> str:
    capability = f"capability {gpu.compute_capability[0]}.{gpu.compute_capability[1]}"
    if gpu.known is None:
        return capability
    figures = (f"{_FORMATS[form]} {flops / 1e12:,.0f}" for form, flops in gpu.known.flops)
    return f"{capability}; dense TFLOP/s: {', '.join(figures)} (data sheet)"


def _reached(gpu: Gpu, machine: Machine) -> str:
    """`GPU 1, 2 by NVLink (18 lanes); GPU 3 by PCIe, between sockets`."""
    if gpu.is_slice:
        return ""
    ways: dict[str, list[int]] = {}
    for link in machine.links:
        if gpu.index in (link.first, link.second):
            lanes = f" ({link.lanes} lanes)" if link.lanes else ""
            other = link.second if gpu.index == link.first else link.first
            ways.setdefault(f"{_REACHED[link.kind]}{lanes}", []).append(other)
    return "; ".join(f"{_numbered(tuple(others))} by {way}" for way, others in ways.items())


def _processes(gpu: Gpu) -> Iterator[str]:
    """The largest first; what the driver or the kernel does not tell is not there."""
    for process in sorted(gpu.processes, key=lambda p: -(p.used_bytes or 0)):
        used = process.used_bytes is not None and show_bytes(process.used_bytes)
        command = process.command or "not visible from here"
        if len(command) > _LONGEST_COMMAND:
            command = f"{command[:_LONGEST_COMMAND]}…"
        parts = (str(process.pid), process.user, used, command)
        yield ", ".join(part for part in parts if part)


def _cpu_facts(cpu: Cpu) -> Facts:
    bandwidth = cpu.bandwidth and f"{cpu.bandwidth / 1e9:,.0f} GB/s (measured)"
    rows = [
        ("CPU", cpu.name),
        ("memory", f"{show_bytes(cpu.free_bytes)} free of {show_bytes(cpu.total_bytes)}"),
        ("bandwidth", bandwidth),
        ("compute", ", ".join(cpu.isa)),
        ("cores", _cores(cpu)),
    ]
    return [(name, value) for name, value in rows if value]


def _cores(cpu: Cpu) -> str:
    """`8`, or what each node has: `4 + 4 on NUMA nodes with 11 GiB + 20 GiB free`."""
    if len(cpu.nodes) < 2:
        return str(len(cpu.cores))
    text = f"{' + '.join(str(len(node)) for node in cpu.nodes)} on {len(cpu.nodes)} NUMA nodes"
    frees = " + ".join(map(show_bytes, cpu.node_free_bytes))
    return f"{text}, {frees} free" if frees else text


def _numbered(indices: tuple[int, ...]) -> str:
    return f"GPU {', '.join(map(str, indices))}"
