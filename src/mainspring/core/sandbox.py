"""Confinement of this process before it runs code that nobody vouches for: files, network, processes.

Files by Landlock (https://docs.kernel.org/userspace-api/landlock.html), system calls by a seccomp filter
(https://docs.kernel.org/userspace-api/seccomp_filter.html), both without privileges and for good. Only Linux has them,
on x86-64 and ARM64; elsewhere, or where the kernel lacks one, the rest holds, and `confine` says what does.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mainspring.core.errors import Unavailable

if TYPE_CHECKING:
    import ctypes

REQUIRED, AVAILABLE, OFF = "required", "available", "off"
FILES, NETWORK, PROCESSES = "files", "network", "processes"
ALL = frozenset({FILES, NETWORK, PROCESSES})

# Files that an interpreter and numerical libraries read.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
    "/etc/timezone", "/etc/ssl", "/etc/fonts", "/etc/os-release", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems",
    "/proc/sys/kernel/osrelease", "/proc/sys/vm/overcommit_memory", "/proc/driver/nvidia", "/sys/devices",
    "/sys/bus/pci", "/sys/fs/cgroup",
)  # fmt: skip
_LOADERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")  # of programs' libraries
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPUS = ("nvidia*", "dri/*", "kfd")

_EXECUTE, _READ_FILE, _READ_DIR = 1, 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE, _IOCTL = 1 << 1, 1 << 14, 1 << 15
_ACCESS_BITS = ((1, 13), (2, 14), (3, 15), (5, 16))  # version of Landlock -> how many rights on files it knows
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on both architectures
_PATH_BENEATH = 1
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals to processes outside

_NO_NEW_PRIVILEGES = 38  # of prctl
_FILTER, _ALL_THREADS, _ACTION_KNOWN = 1, 1, 2  # of seccomp
_READS_ALL = 1 << 2  # the capability to read files of others, which Landlock still has to allow
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # answers of a filter
# System calls that are refused: name -> numbers on x86-64 and ARM64.
_REFUSED = {
    # the network, and sockets of this machine's services
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "kcmp": (312, 272), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    # rights and dates of files, for which Landlock has no right
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "file_setattr": (469, 469), "truncate": (76, 45),
    # the kernel and the system
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "quotactl": (179, 60), "personality": (135, 92),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "iopl": (172, None), "ioperm": (173, None),
}  # fmt: skip
_SPAWNING = ("fork", "vfork", "execve", "execveat", "kill")
_CLONE, _CLONE3, _PRLIMIT, _TGKILL = (56, 220), (435, 435), (302, 261), (234, 131)
_SOCKETPAIR, _FCNTL = (53, 199), (72, 25)
_CLONE_THREAD, _CLONE_NEW = 0x10000, 0x7E020080  # the latter: any new namespace
_STREAM, _KIND = 1, 0xF  # of a socket
_SET_OWNER, _SET_SIGNAL, _SET_OWNER_EX = 8, 10, 15  # of fcntl: signals to whoever owns a descriptor
_SET_X32 = 0x40000000  # system calls of x86's third binary interface, which have other numbers


class _Machine(NamedTuple):
    """Numbers of an architecture: its own among audit's, of two system calls, and its column in tables of others."""

    audit: int
    seccomp: int
    capset: int
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 317, 126, 0), "aarch64": _Machine(0xC00000B7, 277, 91, 1)}


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """Rules for all processes that run foreign code.

    Attributes:
        mode: `required`: they do not run where not all parts hold; `available`: with those that do; `off`: unconfined.
        reads: Files and folders that they may read, beside what they need.
    """

    mode: str = AVAILABLE
    reads: tuple[str, ...] = ()


_policies = [Policy()]


def policy() -> Policy:
    """Return this process's policy for its children."""
    return _policies[-1]


def set_policy(wanted: Policy) -> None:
    """Set this process's policy for its children."""
    _policies[:] = [wanted]


class Confinement(msgspec.Struct, frozen=True, array_like=True):
    """Confinement of one process.

    Attributes:
        reads: Files, and folders with what is in them, that it may read beside the interpreter and those of the policy.
        hidden: Folders and files that stay closed although they are in one of `reads`.
        spawns: Whether it may start the interpreter, to which all of this applies too.
        write_bytes: The largest file that it may make of those that it has open for writing.
        threads: Whether it is confined although it has other threads already. Those stay free: only where no foreign
            code is ever run in them.
    """

    policy: Policy
    reads: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    spawns: bool = False
    write_bytes: int = 0
    threads: bool = False

    def check(self) -> None:
        """Raise if this machine cannot do what the policy requires.

        Raises:
            Unavailable: A part is missing.
        """
        _require(self.policy, available() if self.policy.mode == REQUIRED else ALL)


def enforce(wanted: Confinement) -> frozenset[str]:
    """Let this process read what it is confined to, and write, connect and start nothing; what it has open stays open.

    Returns:
        The parts that hold, of `ALL`.

    Raises:
        RuntimeError: It has another thread, which would stay free.
        Unavailable: A part is required, and this machine lacks it.
    """
    if wanted.policy.mode == OFF:
        return frozenset()
    if not wanted.threads and _threads() > 1:
        raise RuntimeError("A process is confined before its second thread starts.")
    found = _confine(wanted)
    _require(wanted.policy, found)
    return found


def _require(wanted: Policy, found: frozenset[str]) -> None:
    if wanted.mode == REQUIRED and found != ALL:
        raise Unavailable(
            f"Code cannot be confined on this machine: {', '.join(sorted(ALL - found))} would be open to it.",
            fix='use a kernel with Landlock and seccomp, or set isolation = "available" in the profile.',
        )


def _threads() -> int:
    try:
        return len([*Path("/proc/self/task").iterdir()])  # also those that are no Python's
    except OSError:
        return threading.active_count()


def _confine(wanted: Confinement) -> frozenset[str]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (wanted.write_bytes, wanted.write_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    machine = _machine()
    if machine is None:
        return frozenset()
    libc = _libc()
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return frozenset()
    found = set()
    reads = [*_interpreter(), *map(Path, wanted.policy.reads), *map(Path, wanted.reads)]
    if _restrict_files(libc, expanded(reads, [*map(Path, wanted.hidden)]), spawns=wanted.spawns):
        found.add(FILES)
    _drop_capabilities(libc, machine)
    if _filter_calls(libc, _program(machine, spawns=wanted.spawns), machine):
        found |= {NETWORK, PROCESSES}
    return frozenset(found)


def available() -> frozenset[str]:
    """Return the parts that `confine` would put in force on this machine."""
    machine = _machine()
    if machine is None:
        return frozenset()
    libc = _libc()
    filters = not libc.syscall(machine.seccomp, _ACTION_KNOWN, 0, struct.pack("=I", _ALLOW))
    return (frozenset({FILES}) if _version(libc) else frozenset()) | (ALL - {FILES} if filters else frozenset())


def _machine() -> _Machine | None:
    return _MACHINES.get(os.uname().machine) if sys.platform == "linux" else None


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _interpreter() -> list[Path]:
    """Return what the interpreter reads: not each entry of its path, which may be a folder of anything."""
    homes = {Path(each).resolve() for each in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)}
    packages = [Path(each) for each in sys.path if Path(each).name in ("site-packages", "dist-packages")]
    return [*map(Path, _SYSTEM), *homes, *packages, Path(__file__).parents[1], Path(os.path.realpath(sys.executable))]


def expanded(reads: Iterable[Path], hidden: Collection[Path]) -> Iterator[Path]:
    """Yield what is to be read, with folders that contain something hidden replaced by the rest of their content.

    Links in such folders are left out, as they may lead anywhere.
    """
    closed = [each.resolve() for each in hidden]
    for each in reads:
        path = each.resolve()
        if any(path.is_relative_to(other) for other in closed):
            continue
        if any(other.is_relative_to(path) for other in closed):
            with suppress(OSError):  # of a process that is confined already
                yield from expanded([inner for inner in path.iterdir() if not inner.is_symlink()], closed)
        else:
            yield path


# Landlock


def _version(libc: ctypes.CDLL) -> int:
    return max(0, int(libc.syscall(_CREATE_RULESET, None, _long(0), 1)))


def _long(number: int) -> ctypes.c_size_t:
    import ctypes

    return ctypes.c_size_t(number)


def _restrict_files(libc: ctypes.CDLL, reads: Iterable[Path], *, spawns: bool) -> bool:
    version = _version(libc)
    if not version:
        return False
    known = (1 << max(bits for since, bits in _ACCESS_BITS if since <= version)) - 1
    attributes = struct.pack("=QQQ", known, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_CREATE_RULESET, attributes, _long(size), 0)
    if ruleset < 0:
        return False
    try:
        for path in reads:
            _allow(libc, ruleset, path, _READ_FILE | _READ_DIR)
        _allow(libc, ruleset, Path(__file__).parents[2], _READ_DIR)  # an import looks for this package there
        for path in (Path(os.path.realpath(sys.executable)), *map(Path, _LOADERS)) if spawns else ():
            _allow(libc, ruleset, path, _EXECUTE)
        for device in _devices():
            _allow(libc, ruleset, device, (_READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL) & known)
        return not libc.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _devices() -> Iterator[Path]:
    yield from map(Path, _DEVICES)
    for pattern in _GPUS:
        yield from Path("/dev").glob(pattern)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not there, or not ours to read
        return
    try:
        if not path.is_dir():
            rights &= ~_READ_DIR
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0):
            raise OSError(errno.EINVAL, "Landlock refuses a rule", str(path))
    finally:
        os.close(descriptor)


# seccomp


def _drop_capabilities(libc: ctypes.CDLL, machine: _Machine) -> None:
    kept = _READS_ALL if os.geteuid() == 0 else 0
    libc.syscall(machine.capset, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def _filter_calls(libc: ctypes.CDLL, program: bytes, machine: _Machine) -> bool:
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    wanted = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    return not libc.syscall(machine.seccomp, _FILTER, _ALL_THREADS, wanted)


def _program(machine: _Machine, *, spawns: bool) -> bytes:
    """Return a program of classic BPF over `struct seccomp_data`: number, architecture, address, arguments."""
    load, equal, above, any_bit, mask, answer = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    number, architecture, first, second = 0, 4, 16, 24
    column, refused, unknown = machine.column, _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    lines: list[tuple[int, int, int, int]] = [
        (load, 0, 0, architecture),
        (equal, 1, 0, machine.audit),
        (answer, 0, 0, _KILL),
        (load, 0, 0, number),
        (above, 0, 1, _SET_X32),
        (answer, 0, 0, unknown),
        # The C library asks for clone where there is no clone3, whose flags a filter cannot see.
        (equal, 0, 1, _CLONE3[column]),
        (answer, 0, 0, unknown),
    ]

    def only(call: int, place: int, *test: tuple[int, int, int, int]) -> None:
        """Add that a call is refused unless a test of its argument, with jumps to behind it by 1, allows it."""
        body = [(load, 0, 0, place), *test, (answer, 0, 0, refused), (answer, 0, 0, _ALLOW)]
        lines.extend([(equal, 0, len(body), call), *body])

    if spawns:
        only(_CLONE[column], first, (any_bit, 0, 1, _CLONE_NEW))
    else:
        only(_CLONE[column], first, (any_bit, 1, 0, _CLONE_THREAD))
        only(_TGKILL[column], first, (equal, 1, 0, os.getpid()))
    only(_PRLIMIT[column], first, (equal, 1, 0, 0))  # its own limits
    only(_SOCKETPAIR[column], second, (mask, 0, 0, _KIND), (equal, 1, 0, _STREAM))
    owning = ((equal, 2, 0, _SET_OWNER), (equal, 1, 0, _SET_SIGNAL), (equal, 0, 1, _SET_OWNER_EX))
    only(_FCNTL[column], second, *owning)
    for name, numbers in _REFUSED.items():
        call = numbers[column]
        if call is not None and not (spawns and name in _SPAWNING):
            lines.extend([(equal, 0, 1, call), (answer, 0, 0, refused)])
    lines.append((answer, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
