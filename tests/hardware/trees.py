"""Saved /proc and /sys trees: unpack a sample, or build a box."""

from pathlib import Path

MEMINFO = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {free} kB\nHugePages_Total: 0\n"
NODE_MEMINFO = (
    "Node {n} MemTotal: {total} kB\nNode {n} MemFree: {free} kB\nNode {n} Active(file): 30 kB\n"
    "Node {n} Inactive(file): 200 kB\nNode {n} SReclaimable: 1000 kB\nNode {n} HugePages_Total: 0\n"
)


def unpack(sample: Path, root: Path) -> Path:
    """A sample is one text: `== path` lines, each followed by the content of that file."""
    for part in sample.read_text().split("== ")[1:]:
        name, _, content = part.partition("\n")
        put(root, name, content)
    return root


def put(root: Path, name: str, content: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def dual_socket(root: Path) -> Path:
    """Two sockets of four cores with two threads: CPU n and n + 8 share a core, nodes alternate."""
    put(root, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Big CPU\nflags\t\t: avx2 amx_bf16\n")
    put(root, "proc/meminfo", MEMINFO.format(total=64 * 2**20, free=60 * 2**20))
    put(root, "proc/self/cgroup", "0::/user.slice\n")
    system = "sys/devices/system"
    for cpu in range(16):
        topology = f"{system}/cpu/cpu{cpu}/topology"
        put(root, f"{topology}/thread_siblings_list", f"{cpu % 8},{cpu % 8 + 8}\n")
    for n, cpus in ((0, "0,2,4,6,8,10,12,14"), (1, "1,3,5,7,9,11,13,15")):
        put(root, f"{system}/node/node{n}/cpulist", f"{cpus}\n")
        meminfo = NODE_MEMINFO.format(n=n, total=32 * 2**20, free=(n + 1) * 10000)
        put(root, f"{system}/node/node{n}/meminfo", meminfo)
    put(root, f"{system}/node/has_cpu", "0-1\n")
    return root
