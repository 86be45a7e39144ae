#!/usr/bin/env python3
"""Runs $ANYBINDER_CHROMIUM without a way to hear of network devices; all else is as it was. For root, on Linux.

Chromium gives up what it is loading whenever a network device of this computer comes or goes, as those of containers and
machines do. It hears of that by a socket to the kernel; where it cannot have one, it takes the network for steady.
"""

import ctypes
import os
import platform
import struct
import sys

SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # its number, by how the kernel names the processor
FAMILY, PROTOCOL = 16, 32  # where the system call's first and third argument lie
AF_NETLINK, NETLINK_ROUTE, REFUSED = 16, 0, 0x00050000 | 97  # EAFNOSUPPORT
LOAD, EQUAL, ANSWER, ALLOWED = 0x20, 0x15, 0x06, 0x7FFF0000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def refuse_netlink() -> None:
    """For this process and all that come of it."""
    processor, number = SOCKET[platform.machine()]
    asked = ((4, processor), (0, number), (FAMILY, AF_NETLINK), (PROTOCOL, NETLINK_ROUTE))
    steps = []
    for at, (place, value) in enumerate(asked):
        away = 2 * (len(asked) - at - 1) + 1  # past the refusal
        steps += [(LOAD, 0, 0, place), (EQUAL, 0, away, value)]
    steps += [(ANSWER, 0, 0, REFUSED), (ANSWER, 0, 0, ALLOWED)]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    if ctypes.CDLL(None, use_errno=True).prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(steps), code))
    ):
        raise OSError(ctypes.get_errno(), "Chromium cannot be kept from hearing of network devices")


if platform.machine() in SOCKET:
    refuse_netlink()
program = os.environ["ANYBINDER_CHROMIUM"]
os.execv(program, [program, *sys.argv[1:]])
