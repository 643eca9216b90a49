"""The guard of one engine: when it ends, nothing of the engine is left.

Run as `python -I -S guard.py` by the launcher's Python; standard library only. Two processes: the
outer one waits, clears the folders away and leaves; the inner one (PID 1 of the engine's namespaces
where they are granted) starts the host, reaps, and listens on the socket.

stdin: one JSON object with `namespaces` (of "user", "net", "ipc", "pid"), `folders` (removed at the
end), `fd` (the listening socket), `argv` and `env` of the host (no argv: only try the namespaces,
then leave), `grace_s` (how long to live without a connection), `is_background` (be nice until told
to serve, where that can be undone).

JSON lines on the socket, in: `{"do": "go", "argv": [...], "env": {...}}`, `{"do": "signal",
"signum": 15}`, `{"do": "kill"}`; out: `{"event": "state", "outer": PID, "inner": PID,
"imported": …}` when somebody connects, `{"event": "imported", …}` as the host says it,
`{"event": "exited", "code": …}` when all is reaped. The host reads the go line on stdin and writes
its events to file descriptor 3.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

Record = dict[str, Any]
CLONE = {"user": 0x10000000, "net": 0x40000000, "ipc": 0x08000000, "pid": 0x20000000}
CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 2, 4, 8, 16384, 1 << 19
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
FILE_CAPABILITIES = frozenset(range(5))  # CHOWN … FSETID: root stays able to read its weights
LAST_CAPABILITY = 63
BACKGROUND_NICENESS = 19
EVENTS_FD = 3
SETUP_FAILED = 71  # EX_OSERR

libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    config = json.load(sys.stdin)
    os.umask(0o077)
    try:
        enter(config["namespaces"])
    except OSError as error:
        return complain("no namespaces", error)
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    config["outer"] = os.getpid()
    tether_end, tether = os.pipe()
    inner = os.fork()
    if inner == 0:
        os.close(tether)
        os._exit(run_inner(config, tether_end))
    os.close(tether_end)
    return run_outer(config, inner)


def run_outer(config: Record, inner: int) -> int:
    signal.signal(signal.SIGTERM, lambda *_: os.kill(inner, signal.SIGKILL))
    _, status = os.waitpid(inner, 0)
    end_all(is_init=False)
    for folder in config.get("folders", ()):
        remove(folder)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def run_inner(config: Record, tether_end: int) -> int:
    namespaces = config["namespaces"]
    try:
        pid_outside = int(Path("/proc/self").readlink().name)
        if "pid" in namespaces:
            call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            settle()
        if "net" in namespaces:
            raise_loopback()
    except OSError as error:
        return complain("namespaces are not usable", error)
    if not config["argv"]:
        return 0
    return Inner(config, pid_outside, tether_end).run()


def complain(what: str, error: OSError) -> int:
    print(f"guard: {what}: {error}", file=sys.stderr, flush=True)
    return SETUP_FAILED


def enter(namespaces: list[str]) -> None:
    """Leave the namespaces we are in; a PID namespace is for our children."""
    if not namespaces:
        return
    uid, gid = os.geteuid(), os.getegid()
    flags = 0
    for name in namespaces:
        flags |= CLONE[name]
    call("unshare", flags)
    if "user" in namespaces:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid} {uid} 1")
        write("/proc/self/gid_map", f"{gid} {gid} 1")


def settle() -> None:
    """A /proc that shows this namespace, and a /dev/shm that ends with it."""
    call("unshare", CLONE_NEWNS)
    call("mount", None, b"/", None, MS_REC | MS_SLAVE, None)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    call("mount", b"proc", b"/proc", b"proc", flags, None)
    call("mount", b"tmpfs", b"/dev/shm", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777")


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


class Inner:
    """The process that starts the host, and that all of the engine ends with."""

    def __init__(self, config: Record, pid_outside: int, tether_end: int) -> None:
        self.config = config
        self.is_init = "pid" in config["namespaces"]
        self.pid_outside = pid_outside
        self.imported: Record | None = None
        self.exit_code: int | None = None
        self.is_over = False
        self.deadline = time.monotonic() + config["grace_s"]
        self.buffers: dict[socket.socket, bytes] = {}  # connection -> bytes of an unfinished line
        self.is_nice = config["is_background"] and can_undo_nice()
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(fileno=config["fd"])
        self.listener.setblocking(False)
        self.on_readable(self.listener, self.accept)
        self.on_readable(tether_end, self.end)  # end of file: the outer process is gone
        self.watch_children()
        self.order: int | None = None
        self.host = self.start_host()

    def on_readable(self, source: socket.socket | int, act: Callable[[], Any]) -> None:
        self.selector.register(source, selectors.EVENT_READ, act)

    def watch_children(self) -> None:
        if not self.is_init:
            call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.end())
        signal.set_wakeup_fd(writable)
        self.on_readable(readable, lambda: self.reap(readable))

    def start_host(self) -> int:
        order_end, self.order = os.pipe()
        self.events, events_end = os.pipe()
        begun, begun_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.become_host(order_end, events_end)
        for end in (order_end, events_end, begun_end):
            os.close(end)
        os.read(begun, 1)  # end of file: its program runs, in its own session
        os.close(begun)
        self.on_readable(self.events, self.read_events)
        return pid

    def become_host(self, order_end: int, events_end: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setsid()
            call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.dup2(order_end, 0)
            os.dup2(events_end, EVENTS_FD)
            os.set_inheritable(EVENTS_FD, True)
            if self.is_nice:
                os.setpriority(os.PRIO_PROCESS, 0, BACKGROUND_NICENESS)
                write_if_there("/proc/self/autogroup", str(BACKGROUND_NICENESS))
            if self.config["namespaces"]:
                drop_privileges()
            argv = self.config["argv"]
            os.execvpe(argv[0], argv, self.config["env"])
        except OSError as error:
            complain(f"cannot start {self.config['argv'][0]}", error)
        finally:
            os._exit(127)

    def run(self) -> int:
        while not self.is_over:
            timeout_s = None if self.buffers else self.deadline - time.monotonic()
            if timeout_s is not None and timeout_s <= 0:
                break
            for key, _ in self.selector.select(timeout_s):
                key.data()
        end_all(self.is_init)
        self.tell({"event": "exited", "code": self.exit_code})
        return 0

    def end(self) -> None:
        self.is_over = True

    def reap(self, wakeups: int) -> None:
        os.read(wakeups, 4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.host:
                    self.exit_code = os.waitstatus_to_exitcode(status)
                    self.is_over = True

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        self.buffers[connection] = b""
        self.on_readable(connection, lambda: self.read_orders(connection))
        state: Record = {"event": "state", "imported": self.imported}
        state |= {"outer": self.config["outer"], "inner": self.pid_outside}
        self.send(connection, state)

    def read_orders(self, connection: socket.socket) -> None:
        try:
            received = connection.recv(65536)
        except OSError:
            received = b""
        if not received:
            return self.drop(connection)
        *whole, rest = (self.buffers[connection] + received).split(b"\n")
        self.buffers[connection] = rest
        for line in whole:
            self.obey(json.loads(line))

    def obey(self, order: Record) -> None:
        if order["do"] == "kill":
            self.end()
        elif order["do"] == "signal" and self.exit_code is None:
            os.kill(self.host, order["signum"])
        elif order["do"] == "go" and self.order is not None:
            if self.is_nice:
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PGRP, self.host, 0)
                write_if_there(f"/proc/{self.host}/autogroup", "0")
            with contextlib.suppress(BrokenPipeError):
                os.write(self.order, json.dumps(order).encode() + b"\n")
            os.close(self.order)
            self.order = None

    def read_events(self) -> None:
        """Each event comes in one write of less than PIPE_BUF bytes, so lines are whole."""
        received = os.read(self.events, 65536)
        if not received:
            self.selector.unregister(self.events)
        for line in received.splitlines():
            self.imported = json.loads(line)
            self.tell(self.imported)

    def tell(self, event: Record) -> None:
        for connection in list(self.buffers):
            self.send(connection, event)

    def send(self, connection: socket.socket, event: Record) -> None:
        try:
            connection.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            self.drop(connection)

    def drop(self, connection: socket.socket) -> None:
        if self.buffers.pop(connection, None) is not None:
            self.selector.unregister(connection)
            connection.close()
            self.deadline = time.monotonic() + self.config["grace_s"]


def can_undo_nice() -> bool:
    """Only the privileged may become less nice again; we try it on ourselves."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, niceness + 1)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except PermissionError:
        return False
    return True


def drop_privileges() -> None:
    """Being root inside gives nothing: no network administration, no mounts, no devices."""
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in FILE_CAPABILITIES:
            with contextlib.suppress(OSError):  # beyond what this kernel knows, or not ours
                call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def end_all(is_init: bool) -> None:
    """Kill and reap until there is nobody left."""
    while True:
        if is_init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found[1:]


def remove(folder: str) -> None:
    """As far as that is possible, with all that is in it; links are not followed."""
    with contextlib.suppress(OSError):
        for entry in Path(folder).iterdir():
            if entry.is_dir() and not entry.is_symlink():
                remove(str(entry))
            else:
                entry.unlink(missing_ok=True)
        Path(folder).rmdir()


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def write_if_there(path: str, text: str) -> None:
    """Kernels with autogroups weigh sessions, and look at niceness only within one."""
    with contextlib.suppress(OSError):
        write(path, text)


def call(name: str, *arguments: int | bytes | None) -> None:
    """A function of libc; OSError when it fails. Integers go as longs, as variadic prctl wants."""
    passed = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*passed) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
