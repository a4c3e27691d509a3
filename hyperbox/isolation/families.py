"""System calls that stand for one another, and those that every container needs. Data only.

What one run uses of a family depends on the C library, its version and the kernel, not on the
program: glibc 2.33 calls ``newfstatat`` where 2.31 called ``stat``; ``clone3`` is tried before
``clone``. A profile that has one of a family therefore gets all of it, as far as the default
allows it. Families are kept tight: every member does what the others do.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["FLOOR", "TIGHT_FAMILIES", "with_families"]

TIGHT_FAMILIES: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "open openat openat2 creat",
        "stat lstat fstat newfstatat statx fstatat64 stat64 lstat64 fstat64",
        "access faccessat faccessat2",
        "readlink readlinkat",
        "rename renameat renameat2",
        "unlink unlinkat rmdir",
        "mkdir mkdirat",
        "link linkat",
        "symlink symlinkat",
        "chmod fchmod fchmodat fchmodat2",
        "chown fchown lchown fchownat",
        "utime utimes utimensat futimesat",
        "dup dup2 dup3",
        "pipe pipe2",
        "getdents getdents64",
        "statfs fstatfs",
        "epoll_create epoll_create1",
        "epoll_wait epoll_pwait epoll_pwait2",
        "poll ppoll",
        "select pselect6",
        "accept accept4",
        "recvfrom recvmsg recvmmsg",
        "sendto sendmsg sendmmsg",
        "eventfd eventfd2",
        "signalfd signalfd4",
        "inotify_init inotify_init1",
        "clone clone3 fork vfork",
        "wait4 waitid",
        "kill tkill tgkill",
        "pause rt_sigsuspend",
        "nanosleep clock_nanosleep",
        "getrlimit setrlimit prlimit64",
        "setpgid setsid getpgid getpgrp getsid",
        "fsync fdatasync",
        "sendfile splice copy_file_range",
        "timer_create timer_settime timer_gettime timer_delete timer_getoverrun",
        "semget semop semctl semtimedop",
        "shmget shmat shmdt shmctl",
        "msgget msgsnd msgrcv msgctl",
        "pread64 preadv preadv2",
        "pwrite64 pwritev pwritev2",
        "time gettimeofday clock_gettime clock_getres",
        "futex futex_wait futex_wake futex_requeue futex_waitv",
    )
)

_RUNTIME_START = """
capget capset chdir close close_range dup3 epoll_ctl execve execveat faccessat2 fchdir fchown fcntl
fstat fstatfs futex getcwd getdents64 getpid getppid gettid ioctl keyctl mmap newfstatat openat
prctl read seccomp setgid setgroups setresgid setresuid setuid statfs umask write
"""  # between loading the filter and execve(), in runc 1.1, crun 1.8 and crun 1.21
_GO = "futex_requeue futex_wait futex_waitv futex_wake"
"""Threads of runc call futex() in some starts only; its family must not depend on that."""
_LIBC = """
access arch_prctl brk exit exit_group getegid geteuid getgid getrandom getuid lseek madvise mprotect
mremap munmap pread64 prlimit64 readlink rseq sched_getaffinity sched_yield set_robust_list
set_tid_address sysinfo uname writev
"""  # start and end of a program with glibc 2.36 or musl 1.2
_SIGNALS = """
kill nanosleep restart_syscall rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack tgkill tkill
wait4
"""  # handlers, restarts after a stop, abort()

FLOOR: frozenset[str] = frozenset(" ".join((_RUNTIME_START, _GO, _LIBC, _SIGNALS)).split())
"""What every container needs, from its runtime's last steps to the program's end."""


def with_families(names: Iterable[str]) -> frozenset[str]:
    """Return the names and all of every family that one of them belongs to."""
    given = frozenset(names)
    found = set(given)
    for family in TIGHT_FAMILIES:
        if family & given:
            found |= family
    return frozenset(found)
