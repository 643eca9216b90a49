"""What of a machine belongs to each of a model's replicas, pure."""

from dataclasses import dataclass, replace

from serve.hardware import Cpu, Machine


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one replica among `count` of its model; `running` others have started."""

    replica: str
    index: int = 0
    count: int = 1
    running: int = 0


def share_of(machine: Machine, seat: Seat) -> Machine:
    """The machine as one replica's plan shall see it.

    Of the processor each replica gets its own cores, and of the free memory as much as those that
    are still to come. Cards are not shared out: who has started has taken its memory, which is
    seen in what is free.
    """
    if seat.count == 1 or not machine.cpu.nodes:
        return machine
    return replace(machine, cpu=_share(machine.cpu, seat))


def _share(cpu: Cpu, seat: Seat) -> Cpu:
    nodes = len(cpu.nodes)
    # A worker's memory is on one node: whole nodes, or a part of one, but nothing across.
    mine = range(seat.index % nodes, nodes, max(seat.count, nodes))
    if seat.count < nodes:
        mine = range(seat.index, nodes, seat.count)
    here = len(range(seat.index % nodes, seat.count, nodes))  # replicas on this node
    shares = tuple(_part(cpu.nodes[node], seat.index // nodes, max(here, 1)) for node in mine)
    still_here = max(1, here - seat.running // nodes)
    return replace(
        cpu,
        cores=tuple(core for cores in shares for core in cores),
        nodes=shares,
        free_bytes=cpu.free_bytes // max(1, seat.count - seat.running),
        node_free_bytes=tuple(cpu.node_free_bytes[node] // still_here for node in mine)
        if cpu.node_free_bytes
        else (),
    )


def _part(cores: tuple[int, ...], place: int, count: int) -> tuple[int, ...]:
    """An even share; where there are more replicas than cores, one core that others have too."""
    start, end = place * len(cores) // count, (place + 1) * len(cores) // count
    return cores[start:end] or (cores[place % len(cores)],)
