"""The kernel's audit log of seccomp: which calls a filter logged or denied, by session.

Follows audit(7) of libaudit, <linux/audit.h> and kernel/audit.c: records come by netlink to the
multicast group AUDIT_NLGRP_READLOG (Linux 3.16), also where an audit daemon runs. They are told
apart by the session of their process, which children inherit and a container cannot change; a
process number may be gone before its record is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from hyperbox.errors import HarnessError, KernelFeatureMissing
from hyperbox.linux.refusal import refusal
from hyperbox.linux.seccomp import log_own_call

__all__ = ["ALLOWED_AND_LOGGED", "AuditListener", "SeccompRecord", "parse_seccomp_record"]

ALLOWED_AND_LOGGED = 0x7FFC0000  # SECCOMP_RET_LOG
_FAMILY = 9  # NETLINK_AUDIT
_GROUP = 1  # AUDIT_NLGRP_READLOG, as a mask
_GET, _SECCOMP = 1000, 1326  # AUDIT_GET, AUDIT_SECCOMP
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("<IHHII")  # struct nlmsghdr
_LOST = 6  # place of the member in struct audit_status, in words
_RECEIVE_BUFFER_FORCE = 33  # SO_RCVBUFFORCE
_LOGIN = Path("/proc/thread-self/loginuid")
_SESSION = Path("/proc/thread-self/sessionid")
_SOCKETS = Path("/proc/net/netlink")
_UNSET = 0xFFFFFFFF
_DENIED = (errno.EPERM, errno.EACCES)
_ABSENT = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOENT, *_DENIED)
_CONTROL = dict.fromkeys(_DENIED, "run as root, or with CAP_AUDIT_CONTROL")
_MARK = 0x3FFFFFF0  # numbers of no system call: the first and the last record of a listener
_PATIENCE_S = 10.0
_ATTEMPTS = 20
_RECORD = re.compile(
    rb"\bses=(?P<session>\d+) .*?\bcomm=(?P<command>\S+)(?: exe=(?P<program>\S+))?"
    rb".*\barch=(?P<architecture>[0-9a-f]+) syscall=(?P<number>\d+) "
    rb".*\bcode=0x(?P<action>[0-9a-f]+)"
)


class SeccompRecord(NamedTuple):
    """A call that a filter logged: numbers as the kernel has them, and the program's path."""

    session: int
    architecture: int
    number: int
    action: int
    program: str


def parse_seccomp_record(text: bytes) -> SeccompRecord | None:
    """Return what the text of an AUDIT_SECCOMP record says; None if it is none. Pure."""
    found = _RECORD.search(text)
    if found is None:
        return None
    return SeccompRecord(
        session=int(found["session"]),
        architecture=int(found["architecture"], 16),
        number=int(found["number"]),
        action=int(found["action"], 16),
        program=_untrusted(found["program"] or found["command"]),
    )


def _untrusted(word: bytes) -> str:
    """Return a text that a process chose: in quotes, or in hexadecimal if it has others than those.

    See audit_log_untrustedstring() in kernel/audit.c.
    """
    if word.startswith(b'"'):
        return word.strip(b'"').decode(errors="backslashreplace")
    try:
        return bytes.fromhex(word.decode()).decode(errors="backslashreplace")
    except ValueError:
        return word.decode(errors="backslashreplace")


class AuditListener:
    """Counts seccomp's records of what this thread starts, from entering to leaving the block.

    Entering gives this thread an audit session of its own and takes the first record, a call of
    its own, as the proof that records arrive. The session is put back at the end.

    Parameters
    ----------
    buffer_bytes
        For records that have not been read; what does not fit is lost, and counted.

    Raises
    ------
    KernelFeatureMissing
        On entering, if the kernel has no audit, or refuses it to this process.
    """

    def __init__(self, buffer_bytes: int = 64 << 20) -> None:
        self.records: Counter[SeccompRecord] = Counter()
        self.session = _UNSET
        self._buffer_bytes = buffer_bytes
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._marks: set[int] = set()
        self._arrived = threading.Condition()
        self._before = _UNSET
        self._lost_before = 0
        self._end = -1

    def __enter__(self) -> AuditListener:
        self._socket = _opened(self._buffer_bytes)
        try:
            self._lost_before = _lost()
            self._before = _number(_LOGIN)
            self.session = _new_session(self._before)
            waiting, self._end = os.pipe2(os.O_CLOEXEC)
            self._thread = threading.Thread(target=self._receive, args=(waiting,), daemon=True)
            self._thread.start()
            self._probe()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        if self._thread is not None:
            self._thread.join()
        if self.session != _UNSET:
            with contextlib.suppress(OSError):  # no right to: it stays, which harms nothing
                _LOGIN.write_text(str(self._before))
            self.session = _UNSET
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def finish(self) -> int:
        """Wait until everything logged so far has been counted; return how many were lost.

        What the kernel could not queue counts whoever logged it: the kernel does not say whose it
        was.
        """
        arrived = self._marked(_MARK + 1)
        assert self._socket is not None
        lost = _lost() - self._lost_before + _drops(self._socket)
        return lost if arrived else max(lost, 1)

    def _probe(self) -> None:
        if not self._marked(_MARK):
            raise KernelFeatureMissing("the audit log does not get what seccomp logs")

    def _marked(self, number: int) -> bool:
        """Log a call of our own; return whether it has arrived, and so all before it.

        It is made again where there was no room for it in the buffer.
        """
        for _ in range(_ATTEMPTS):
            log_own_call(number)
            with self._arrived:
                if self._arrived.wait_for(lambda: number in self._marks, _PATIENCE_S / _ATTEMPTS):
                    return True
        return False

    def _receive(self, waiting: int) -> None:
        assert self._socket is not None
        poll = select.poll()
        for descriptor in (self._socket.fileno(), waiting):
            poll.register(descriptor, select.POLLIN)
        try:
            while all(descriptor != waiting for descriptor, _ in poll.poll()):
                self._take()
        finally:
            os.close(waiting)

    def _take(self) -> None:
        assert self._socket is not None
        try:
            message = self._socket.recv(1 << 16)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # the buffer ran over; `_drops` has how often
                raise
            return
        if len(message) < _HEADER.size or _HEADER.unpack_from(message)[1] != _SECCOMP:
            return
        record = parse_seccomp_record(message[_HEADER.size :])
        if record is None or record.session != self.session:
            return
        if record.number in (_MARK, _MARK + 1):
            with self._arrived:
                self._marks.add(record.number)
                self._arrived.notify_all()
        else:
            self.records[record] += 1


def _opened(buffer_bytes: int) -> socket.socket:
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _FAMILY)
    except OSError as error:
        raise refusal("no audit log: cannot open its socket", error, missing=_ABSENT) from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, buffer_bytes)
        opened.bind((0, _GROUP))
    except OSError as error:
        opened.close()
        hint = "run as root, or with CAP_AUDIT_READ and CAP_NET_ADMIN"
        hints = dict.fromkeys(_DENIED, hint)
        raise refusal(
            "cannot listen to the audit log", error, missing=_DENIED, hints=hints
        ) from error
    return opened


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError as error:
        what = f"this kernel does not audit (CONFIG_AUDITSYSCALL): cannot read {path}"
        raise refusal(what, error, missing=_ABSENT) from error


def _new_session(before: int) -> int:
    """Enter a session of our own; who logged in stays as it was, or is this user."""
    try:
        _LOGIN.write_text(str(os.getuid() if before == _UNSET else before))
    except OSError as error:
        raise refusal(f"cannot write {_LOGIN}", error, missing=_DENIED, hints=_CONTROL) from error
    return _number(_SESSION)


def _lost() -> int:
    """Return how many records the kernel has lost since it booted."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _FAMILY) as asking:
        asking.settimeout(_PATIENCE_S)
        asking.sendto(_HEADER.pack(_HEADER.size, _GET, _REQUEST, 1, 0), (0, 0))
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                message = asking.recv(1 << 16)
            except OSError as error:
                what = "cannot read the state of the audit log"
                raise refusal(what, error, missing=_DENIED, hints=_CONTROL) from error
            if _HEADER.unpack_from(message)[1] == _GET:
                return int(struct.unpack_from("<7I", message, _HEADER.size)[_LOST])
            _refused(message)
    raise HarnessError("the kernel does not answer about its audit log")


def _refused(message: bytes) -> None:
    if _HEADER.unpack_from(message)[1] == 2:  # NLMSG_ERROR
        (number,) = struct.unpack_from("<i", message, _HEADER.size)
        if number:
            hints = {errno.EPERM: "run as root, or with CAP_AUDIT_CONTROL"}
            raise refusal("state of the audit log", -number, missing=(-number,), hints=hints)


def _drops(opened: socket.socket) -> int:
    """Return how many records did not fit the buffer of a socket."""
    inode = str(os.fstat(opened.fileno()).st_ino)
    for line in _SOCKETS.read_text().splitlines()[1:]:
        fields = line.split()  # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        if len(fields) > 9 and fields[9] == inode:
            return int(fields[8])
    return 0
