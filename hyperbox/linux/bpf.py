"""BPF programs that were compiled ahead of time: load, attach, maps, ring buffer.

Follows Documentation/bpf/ of the kernel and libbpf's documentation. libbpf.so.1 does the work; no
compiler, no headers and no pinned files are involved, and everything ends with the process or with
`BpfObject.close`. Programs are raw tracepoints (Linux 4.17), which need no BTF.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from hyperbox.errors import HarnessError, HyperboxError, KernelFeatureMissing, MissingDependency
from hyperbox.linux.refusal import refusal

__all__ = ["BpfMap", "BpfObject", "PerfBuffer", "RingBuffer", "member_offset"]

_LIBRARY = "libbpf.so.1"
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_BTF = Path("/sys/kernel/btf/vmlinux")
_STRUCT, _UNION = 4, 5  # BTF_KIND_*, Documentation/bpf/btf.rst
_MISSING = (errno.EPERM, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP)
_HINTS = {
    errno.EPERM: "run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE",
    errno.ENOSYS: "boot a kernel with CONFIG_BPF_SYSCALL=y",
}
_MOST_LOG = 8192
_LEAST_WARNING = 0  # LIBBPF_WARN
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_PERF_SAMPLE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32
)
_PERF_LOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64)
_RECURSION_MISSES = 208  # bpf_prog_info.recursion_misses of <linux/bpf.h>, Linux 5.12
_PROGRAM_INFO = 256  # bytes; kernels fill what they know of it
_POINTER, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_set_print": (_POINTER, (_PRINT,)),
    "bpf_object__open_file": (_POINTER, (_TEXT, _POINTER)),
    "bpf_object__load": (_INT, (_POINTER,)),
    "bpf_object__close": (None, (_POINTER,)),
    "bpf_object__find_map_by_name": (_POINTER, (_POINTER, _TEXT)),
    "bpf_object__find_program_by_name": (_POINTER, (_POINTER, _TEXT)),
    "bpf_program__attach": (_POINTER, (_POINTER,)),
    "bpf_program__fd": (_INT, (_POINTER,)),
    "bpf_program__set_autoload": (_INT, (_POINTER, ctypes.c_bool)),
    "bpf_obj_get_info_by_fd": (_INT, (_INT, _POINTER, _POINTER)),
    "bpf_link__destroy": (_INT, (_POINTER,)),
    "bpf_map__fd": (_INT, (_POINTER,)),
    "bpf_map__set_autocreate": (_INT, (_POINTER, ctypes.c_bool)),
    "bpf_map__set_max_entries": (_INT, (_POINTER, ctypes.c_uint32)),
    "bpf_map__max_entries": (ctypes.c_uint32, (_POINTER,)),
    "bpf_map__key_size": (ctypes.c_uint32, (_POINTER,)),
    "bpf_map__value_size": (ctypes.c_uint32, (_POINTER,)),
    "bpf_map_lookup_elem": (_INT, (_INT, _POINTER, _POINTER)),
    "bpf_map_update_elem": (_INT, (_INT, _POINTER, _POINTER, ctypes.c_uint64)),
    "bpf_map_get_next_key": (_INT, (_INT, _POINTER, _POINTER)),
    "ring_buffer__new": (_POINTER, (_INT, _SAMPLE, _POINTER, _POINTER)),
    "ring_buffer__consume": (_INT, (_POINTER,)),
    "ring_buffer__free": (None, (_POINTER,)),
    "perf_buffer__new": (
        _POINTER,
        (_INT, ctypes.c_size_t, _PERF_SAMPLE, _PERF_LOST, _POINTER, _POINTER),
    ),
    "perf_buffer__consume": (_INT, (_POINTER,)),
    "perf_buffer__free": (None, (_POINTER,)),
    "btf__load_vmlinux_btf": (_POINTER, ()),
    "btf__free": (None, (_POINTER,)),
    "btf__find_by_name_kind": (_INT, (_POINTER, _TEXT, ctypes.c_uint32)),
    "btf__type_by_id": (_POINTER, (_POINTER, ctypes.c_uint32)),
    "btf__name_by_offset": (_TEXT, (_POINTER, ctypes.c_uint32)),
}


class _Library:
    """libbpf with the types of what is called, and the end of what it complains of."""

    def __init__(self) -> None:
        try:
            self._loaded = ctypes.CDLL(_LIBRARY, use_errno=True)
        except OSError as error:
            raise MissingDependency(
                f"{_LIBRARY} cannot be loaded: {error}", hint="apt-get install libbpf1"
            ) from None
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self._loaded, name)
            function.restype, function.argtypes = result, arguments
        self._libc = ctypes.CDLL(None)
        self._libc.vsnprintf.argtypes = (_TEXT, ctypes.c_size_t, _TEXT, _POINTER)
        self._lines: list[str] = []
        self._print = _PRINT(self._keep)  # kept, or it would be collected under libbpf's feet
        self._loaded.libbpf_set_print(self._print)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)

    def complaint(self) -> str:
        """Return what libbpf said last, and forget it; empty if nothing."""
        lines, self._lines = self._lines, []
        return lines[-1].removeprefix("libbpf: ") if lines else ""

    def _keep(self, level: int, form: bytes, arguments: int) -> int:
        if level == _LEAST_WARNING:
            text = ctypes.create_string_buffer(_MOST_LOG)
            self._libc.vsnprintf(text, _MOST_LOG, form, arguments)
            self._lines = [*self._lines[-20:], text.value.decode(errors="replace").strip()]
        return 0


@cache
def _library() -> _Library:
    return _Library()


def _refused(what: str, number: int) -> HyperboxError:
    """Return the error for an operation on BPF that failed with an errno."""
    complaint = _library().complaint()
    if number == errno.EPERM:
        with contextlib.suppress(OSError):
            if "[confidentiality]" in _LOCKDOWN.read_text():
                return KernelFeatureMissing(
                    f"{what}: this kernel is locked down (confidentiality), which forbids BPF",
                    hint="boot without lockdown=confidentiality",
                )
    tried = f"{what} ({complaint})" if complaint else what
    return refusal(tried, number, missing=_MISSING, hints=_HINTS)


class BpfMap:
    """A map of a loaded object; keys and values are bytes of fixed size."""

    def __init__(
        self, name: str, descriptor: int, key_size: int, value_size: int, entries: int
    ) -> None:
        self.name = name
        self.descriptor = descriptor
        self.key_size = key_size
        self.value_size = value_size
        self.entries = entries

    def __getitem__(self, key: bytes) -> bytes:
        """Return the value of a key; KeyError if there is none."""
        value = ctypes.create_string_buffer(self.value_size)
        if _library().bpf_map_lookup_elem(self.descriptor, self._key(key), value):
            self._failed("lookup", key)
        return value.raw

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Set the value of a key.

        Raises
        ------
        HyperboxError
            If the kernel refuses it, for example because the map is full.
        """
        if len(value) != self.value_size:
            raise ValueError(f"map {self.name}: a value has {self.value_size} bytes")
        if _library().bpf_map_update_elem(self.descriptor, self._key(key), value, 0):
            raise _refused(f"update of map {self.name}", ctypes.get_errno())

    def mapped(self) -> mmap.mmap:
        """Return the values of an array that is BPF_F_MMAPABLE (Linux 5.5), shared with programs.

        They lie one after the other, each at a multiple of 8 bytes.

        Raises
        ------
        HyperboxError
            If the kernel refuses it.
        """
        size = self.entries * ((self.value_size + 7) // 8 * 8)
        whole = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        try:
            return mmap.mmap(self.descriptor, whole)
        except OSError as error:
            raise _refused(f"mmap of map {self.name}", error.errno or errno.EINVAL) from None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each key with its value; what is added meanwhile may be missed."""
        key = None
        while (key := self._next(key)) is not None:
            with contextlib.suppress(KeyError):  # removed meanwhile
                yield key, self[key]

    def _next(self, key: bytes | None) -> bytes | None:
        following = ctypes.create_string_buffer(self.key_size)
        if _library().bpf_map_get_next_key(self.descriptor, key, following):
            return None
        return following.raw

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name}: a key has {self.key_size} bytes")
        return key

    def _failed(self, what: str, key: bytes) -> None:
        number = ctypes.get_errno()
        if number == errno.ENOENT:
            raise KeyError(key)
        raise _refused(f"{what} in map {self.name}", number)


class RingBuffer:
    """The consumer's side of a ring buffer (Documentation/bpf/ringbuf.rst, Linux 5.8)."""

    def __init__(self, ring: BpfMap, consume: Callable[[bytes], None]) -> None:
        self._consume = consume
        self._callback = _SAMPLE(self._sample)
        library = _library()
        self._ring = library.ring_buffer__new(ring.descriptor, self._callback, None, None)
        if not self._ring:
            raise _refused(f"ring buffer {ring.name}", ctypes.get_errno())

    def drain(self) -> int:
        """Pass on what is there now without waiting; return how many records that were."""
        count = int(_library().ring_buffer__consume(self._ring))
        if count < 0:
            raise _refused("ring buffer", -count)
        return count

    def close(self) -> None:
        """Free it; harmless twice."""
        if self._ring:
            _library().ring_buffer__free(self._ring)
            self._ring = None

    def _sample(self, _context: int, data: int, size: int) -> int:
        self._consume(ctypes.string_at(data, size))
        return 0


class PerfBuffer:
    """The consumer's side of a perf event array: a buffer for each processor (Linux 4.4).

    What does not fit is an error to the program that writes, which has to count it.
    """

    def __init__(self, array: BpfMap, consume: Callable[[bytes], None], pages: int) -> None:
        self._consume = consume
        self._callbacks = _PERF_SAMPLE(self._sample), _PERF_LOST(lambda *_: None)
        self._buffer = _library().perf_buffer__new(
            array.descriptor, pages, *self._callbacks, None, None
        )
        if not self._buffer:
            raise _refused(f"perf buffer {array.name}", ctypes.get_errno())

    def drain(self) -> None:
        """Pass on what is there now without waiting, processor by processor."""
        status = int(_library().perf_buffer__consume(self._buffer))
        if status < 0:
            raise _refused("perf buffer", -status)

    def close(self) -> None:
        """Free it; harmless twice."""
        if self._buffer:
            _library().perf_buffer__free(self._buffer)
            self._buffer = None

    def _sample(self, _context: int, _processor: int, data: int, size: int) -> None:
        self._consume(ctypes.string_at(data, size))


class BpfObject:
    """An object file, loaded into the kernel; a context manager that unloads it.

    Parameters
    ----------
    sizes
        Numbers of entries of maps, where they are not those of the file.
    without
        Names of programs and maps that are left out, for kernels that lack what they use.

    Raises
    ------
    MissingDependency
        If libbpf is missing.
    KernelFeatureMissing
        If this kernel, or what it allows this process, cannot load it; with the reason.
    HarnessError, WorkloadError
        If it cannot be read, or fails for another reason; with what libbpf said.
    """

    def __init__(
        self, path: Path, *, sizes: Mapping[str, int] | None = None, without: Sequence[str] = ()
    ) -> None:
        library = _library()
        self.path = path
        self._links: dict[str, int] = {}
        self._object = library.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise HarnessError(
                f"{path}: {library.complaint() or 'cannot be read'}",
                hint="install hyperbox again: its build compiles the BPF programs",
            )
        self._shape(sizes or {}, without)
        failed = library.bpf_object__load(self._object)
        if failed:
            error = _refused(f"load of {path.name}", -failed)
            self.close()
            raise error

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def map(self, name: str) -> BpfMap:
        """Return a map by its name; KeyError if the object has none of that name."""
        library = _library()
        found = library.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise KeyError(name)
        return BpfMap(
            name,
            library.bpf_map__fd(found),
            library.bpf_map__key_size(found),
            library.bpf_map__value_size(found),
            library.bpf_map__max_entries(found),
        )

    def attach(self, *programs: str) -> None:
        """Attach programs to what their sections name.

        Raises
        ------
        HyperboxError
            If one cannot be attached; those before it stay attached.
        """
        for name in programs:
            link = _library().bpf_program__attach(self._program(name))
            if not link:
                raise _refused(f"attach of {name}", ctypes.get_errno())
            self._links[name] = link

    def detach(self, *programs: str) -> None:
        """Detach programs, without names all; maps stay readable. Harmless twice."""
        for name in programs or tuple(self._links):
            if name in self._links:
                _library().bpf_link__destroy(self._links.pop(name))

    def missed(self, *programs: str) -> int:
        """Return how often the kernel did not run programs because they ran on that processor.

        Kernels before 5.12 do not count it.
        """
        missed = 0
        for name in programs:
            info = ctypes.create_string_buffer(_PROGRAM_INFO)
            size = ctypes.c_uint32(_PROGRAM_INFO)
            descriptor = _library().bpf_program__fd(self._program(name))
            if _library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size)):
                raise _refused(f"information on {name}", ctypes.get_errno())
            missed += struct.unpack_from("<Q", info, _RECURSION_MISSES)[0]
        return missed

    def close(self) -> None:
        """Detach and unload; harmless twice."""
        self.detach()
        if self._object:
            _library().bpf_object__close(self._object)
            self._object = None

    def _program(self, name: str) -> int:
        program = _library().bpf_object__find_program_by_name(self._object, name.encode())
        if not program:
            raise KeyError(name)
        return int(program)

    def _shape(self, sizes: Mapping[str, int], without: Sequence[str]) -> None:
        """Leave out what is not wanted, and set sizes; before it is loaded."""
        library = _library()
        for name in without:
            found = library.bpf_object__find_map_by_name(self._object, name.encode())
            if found:
                library.bpf_map__set_autocreate(found, False)
            else:
                library.bpf_program__set_autoload(self._program(name), False)
        for name, entries in sizes.items():
            found = library.bpf_object__find_map_by_name(self._object, name.encode())
            if not found:
                raise KeyError(name)
            library.bpf_map__set_max_entries(found, entries)


class _BtfType(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size", ctypes.c_uint32))


class _BtfMember(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


def member_offset(structure: str, *members: str) -> int | None:
    """Return where a member lies in a structure of the running kernel, in bytes.

    Further `members` are members of the member before; unnamed structures and unions are looked
    into. None if the kernel has no BTF (CONFIG_DEBUG_INFO_BTF) or no such member.
    """
    if not _BTF.exists():
        return None
    library = _library()
    btf = library.btf__load_vmlinux_btf()
    if not btf:
        return None
    try:
        kind = library.btf__find_by_name_kind(btf, structure.encode(), _STRUCT)
        return None if kind < 0 else _offset(btf, kind, members)
    finally:
        library.btf__free(btf)


def _offset(btf: int, kind: int, members: Sequence[str]) -> int | None:
    if not members:
        return 0
    library = _library()
    for member, bits in _members(btf, kind):
        name = library.btf__name_by_offset(btf, member.name).decode()
        if name == members[0]:
            inner = _offset(btf, member.type, members[1:])
        elif not name:
            inner = _offset(btf, member.type, members)
        else:
            continue
        if inner is not None:
            return bits // 8 + inner
    return None


def _members(btf: int, kind: int) -> Iterator[tuple[_BtfMember, int]]:
    address = _library().btf__type_by_id(btf, kind)
    described = _BtfType.from_address(address)
    if (described.info >> 24) & 0x1F not in (_STRUCT, _UNION):
        return
    fields = (_BtfMember * (described.info & 0xFFFF)).from_address(
        address + ctypes.sizeof(_BtfType)
    )
    with_bitfields = described.info >> 31  # the upper byte of the offset is then a width
    for member in fields:
        yield member, member.offset & 0xFFFFFF if with_bitfields else member.offset
