"""Restrict a process and its children with Linux's Landlock, which needs no privileges and no installation.

It is three system calls, made by ctypes: the Python packages that wrap them are in development or have a single
release. bubblewrap does as much, but needs user namespaces, which containers and some distributions forbid.
https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Numbers of the system calls, the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION = 1  # flag of CREATE_RULESET: say which version the kernel has
PATH_BENEATH = 1  # kind of rule: a file, or a folder with all that it holds
PR_SET_NO_NEW_PRIVS = 38

READ = 1 << 2  # of a file's content; names, sizes and dates of files are not restricted
WRITE_FILE = 1 << 1
TRUNCATE = 1 << 14
# Removing and making files, folders, links, sockets, pipes and devices.
IN_FOLDERS = sum(1 << bit for bit in range(4, 13))
REFER = 1 << 13  # renaming from one folder into another


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Landlock's version in this kernel; 0 where there is none, or where it is switched off."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION))))


def restrict(hidden: Sequence[Path], readable: Sequence[Path], writable: Sequence[Path]) -> None:
    """Keep this thread, and all that it starts or becomes, from reading `hidden` and from writing outside `writable`.

    hidden: files, and folders with all that they hold. readable, writable: exceptions, which have to exist; writable
    files are readable. Everything else that exists now can be read. This can't be undone. Raises OSError where the
    kernel refuses.
    """
    writing = WRITE_FILE | IN_FOLDERS
    if (kernel := version()) >= 2:
        writing |= REFER
    if kernel >= 3:
        writing |= TRUNCATE
    libc = ctypes.CDLL(None, use_errno=True)
    about = _Ruleset(READ | writing)
    ruleset = _called(
        libc, CREATE_RULESET, ctypes.byref(about), ctypes.c_size_t(ctypes.sizeof(about)), ctypes.c_uint32(0)
    )
    try:
        for path in [*_all_but(hidden), *readable]:
            _allow(libc, ruleset, path, READ)
        for path in writable:
            _allow(libc, ruleset, path, READ | writing)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl: no new privileges")
        _called(libc, RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _called(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock, system call {number}: {os.strerror(code)}")
    return result


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Add one rule; none for a file that is gone by now, such as another job's temporary file."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= READ | WRITE_FILE | TRUNCATE
        rule = _Beneath(rights, descriptor)
        _called(
            libc, ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
        )
    finally:
        os.close(descriptor)


def _all_but(hidden: Sequence[Path]) -> Iterator[Path]:
    """The files and folders that make up everything but what is hidden, each as large as possible.

    Landlock's rules only allow: an allowed folder can't have a forbidden part.
    """
    excluded = {path.resolve() for path in hidden}
    above = {folder for path in excluded for folder in path.parents}
    waiting = [Path("/")]
    while waiting:
        try:
            inner = [Path(entry.path) for entry in os.scandir(waiting.pop()) if not entry.is_symlink()]
        except OSError:  # a folder that may not be listed may not be read either
            continue
        waiting += [path for path in inner if path in above and path not in excluded]
        yield from (path for path in inner if path not in above and path not in excluded)
