"""A cable that delays and loses packets, where the kernel has no netem: python slow_cable.py ...

offload INTERFACE                   the kernel completes and cuts packets itself, as on a cable
forward INTERFACE INTERFACE DELAY LOSS  carry packets between two interfaces (seconds, fraction)
"""

import collections
import fcntl
import random
import select
import socket
import struct
import sys
import time

SIOCETHTOOL = 0x8946
# ETHTOOL_STXCSUM, SSG, STSO, SGSO, SGRO of linux/ethtool.h.
OFFLOADS = (0x17, 0x19, 0x1F, 0x24, 0x2C)
ALL_PROTOCOLS = 0x0003
OUTGOING = 4


def switch_offloads_off(interface):
    import ctypes

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(control, SIOCETHTOOL, request)


def open_interface(name):
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    opened.bind((name, 0))
    return opened


def forward(first, second, delay, loss):
    sockets = [open_interface(first), open_interface(second)]
    others = dict(zip(sockets, reversed(sockets), strict=True))
    waiting = collections.deque()  # (time to send, socket, packet), the oldest first
    while True:
        timeout = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
        for source in select.select(sockets, [], [], timeout)[0]:
            packet, (_, _, kind, *_) = source.recvfrom(1 << 16)
            if kind != OUTGOING and random.random() >= loss:
                waiting.append((time.monotonic() + delay, others[source], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, target, packet = waiting.popleft()
            target.send(packet)


if __name__ == "__main__":
    if sys.argv[1] == "offload":
        switch_offloads_off(sys.argv[2])
    else:
        forward(sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
