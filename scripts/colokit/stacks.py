# SPDX-License-Identifier: GPL-2.0-or-later
"""Two real TCP/IP stacks that talk over a wire of ours, recorded at the guest's end.

    namespace colo-PID-N-client                 namespace colo-PID-N-guest
    the client's sockets                        the server's sockets
    10.78.0.1, fd78::1   client == Wire == guest   10.78.0.2, fd78::2
                                       |
                                    a pcap file

Both ends are taps held by this process, so the wire needs nothing of the kernel
but taps: it loses, delays, swaps and doubles frames by itself, as a seed says.
What it records is what QEMU's filter-dump would: frames as the guest sends
them, and frames as they reach the guest.  A tap has no offloads unless asked
for them, so checksums are real.

Two links with the same addresses are two copies of a guest.  The server is the
same program with the same answers each time; how it cuts them into writes is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import heapq
import os
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from .machine import Failure
from .network import Namespace, Namespaces, batch

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_MAX = 65536 + 18
TIMEOUT = 30.0              # seconds for any one exchange
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)    # nanoseconds, Ethernet
LINGER_ABORT = struct.pack("ii", 1, 0)      # close() sends a RST
ESTABLISHED_TO_END = {0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0B}       # all but TIME-WAIT, CLOSE, LISTEN

GUEST_MAC, CLIENT_MAC = "52:54:00:78:00:02", "52:54:00:78:00:01"
GUEST, CLIENT = "10.78.0.2", "10.78.0.1"
GUEST6, CLIENT6 = "fd78::2", "fd78::1"
PORT = 80


@dataclass
class Conditions:
    """What the two runs of a test may differ in."""

    seed: int = 0
    loss: float = 0.0           # share of frames, in either direction
    doubled: float = 0.0
    swapped: float = 0.0        # share of frames that are late by `late` seconds
    late: float = 0.005
    delay: float = 0.0          # seconds, each way
    client_mss: int = 0         # that the client announces, 0: the kernel's
    guest_mtu: int = 1500
    guest_quickack: bool = False
    receive_buffer: int = 0     # the client's, in bytes
    chunk: int = 65536          # the guest writes at most so much at a time
    vlan: int = 0               # the guest is on a trunk, in this VLAN
    # What the guest answers wrongly: by the client's port, offset in the answers and what to xor there; if that
    # is 0, the answers end there and the guest closes.
    faults: dict[int, tuple[int, int]] = field(default_factory=dict)


def content(seed: int, size: int) -> bytes:
    """Bytes that depend on the seed, different everywhere."""
    return random.Random(seed).randbytes(size)


# ---------------------------------------------------------------- the wire

class Wire(threading.Thread):
    """Carries frames between two taps until stopped."""

    def __init__(self, guest: int, client: int, path: Path, conditions: Conditions):
        super().__init__(daemon=True)
        self.guest, self.client = guest, client
        self.conditions = conditions
        self.random = random.Random(conditions.seed)
        self.late: list[tuple[float, int, int, bytes]] = []
        self.number = 0
        self.carried = 0
        self.out = open(path, "wb")
        self.out.write(PCAP_HEADER)
        self.wake, self.stopper = os.pipe()

    def stop(self) -> None:
        os.close(self.stopper)
        self.join()
        os.close(self.wake)
        self.out.close()

    def run(self) -> None:
        poll = select.poll()
        for fd in (self.guest, self.client, self.wake):
            poll.register(fd, select.POLLIN)
        while True:
            self._deliver_late()
            wait = max(0.0, self.late[0][0] - time.monotonic()) * 1000 + 1 if self.late else None
            for fd, _ in poll.poll(wait):
                if fd == self.wake:
                    return
                self._carry_all(fd)

    def _carry_all(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                self._carry(fd, os.read(fd, FRAME_MAX))

    def _carry(self, fd: int, frame: bytes) -> None:
        to = self.client if fd == self.guest else self.guest
        if fd == self.guest:
            self._record(frame)
        draw, now, c = self.random.random(), time.monotonic(), self.conditions
        if draw < c.loss:
            return
        copies = 2 if draw < c.loss + c.doubled else 1
        late = c.late if draw > 1 - c.swapped else 0.0
        for _ in range(copies):
            if c.delay or late:
                self.number += 1
                heapq.heappush(self.late, (now + c.delay + late, self.number, to, frame))
            else:
                self._deliver(to, frame)

    def _deliver_late(self) -> None:
        while self.late and self.late[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(self.late)
            self._deliver(to, frame)

    def _deliver(self, to: int, frame: bytes) -> None:
        if to == self.guest:
            self._record(frame)
        os.write(to, frame)
        self.carried += 1

    def _record(self, frame: bytes) -> None:
        if self.conditions.vlan:
            frame = frame[:12] + struct.pack("!HH", 0x8100, self.conditions.vlan) + frame[12:]
        now = time.time_ns()
        self.out.write(struct.pack("<IIII", now // 10**9, now % 10**9, len(frame), len(frame)) + frame)


# ---------------------------------------------------------------- the link

def _tap(namespace: Namespace, name: str) -> int:
    """A new tap in the namespace."""
    with namespace.entered():
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise Failure(f"/dev/net/tun: {error.strerror}; load the tun module (modprobe tun)") from None
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


class Link(Namespaces):
    """A client, a guest and the wire between them, as a context manager."""

    def __init__(self, path: Path, conditions: Conditions):
        super().__init__("client", "guest")
        self.client, self.guest = self.namespaces
        self.path = path
        self.conditions = conditions
        self.taps: list[int] = []
        self.wire: Wire | None = None
        self.server: Server | None = None

    def __exit__(self, *exception) -> None:
        if self.server:
            self.server.stop()
        if self.wire:
            self.wire.stop()
        for tap in self.taps:
            os.close(tap)
        super().__exit__(*exception)

    def _furnish(self) -> None:
        c = self.conditions
        for namespace in self.namespaces:
            namespace.set(ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0,
                          ipv6__conf__default__router_solicitations=0,
                          # No repetition only because this machine is slow: it would draw an answer from one guest
                          # that the other has no reason to give.  See rto_min below.
                          ipv4__tcp_early_retrans=0)
        for namespace, name in ((self.guest, "guest"), (self.client, "client")):
            self.taps.append(_tap(namespace, name))
        mss = f"advmss {c.client_mss}" if c.client_mss else ""
        quick = "quickack 1" if c.guest_quickack else ""
        rto = "" if c.loss or c.swapped else "rto_min 1s"
        for namespace, name, mac, address, address6, mtu, route in (
                (self.guest, "guest", GUEST_MAC, GUEST, GUEST6, c.guest_mtu, quick),
                (self.client, "client", CLIENT_MAC, CLIENT, CLIENT6, 1500, mss)):
            batch(namespace, f"""
                link set lo up
                link set {name} address {mac} mtu {mtu} txqueuelen 20000
                address add {address}/24 dev {name}
                address add {address6}/64 dev {name} nodad
                link set {name} up
                route replace 10.78.0.0/24 dev {name} src {address} {rto} {route}
                route replace fd78::/64 dev {name} metric 1 {rto} {route}
            """)
        self.wire = Wire(*self.taps, self.path, c)
        self.wire.start()
        self.server = Server(self.guest, c)

    # What the client does.

    @contextlib.contextmanager
    def connected(self, port: int, ipv6: bool = False) -> Iterator[socket.socket]:
        """A connection from the client's port to the server."""
        with self.client.entered():
            sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
        with sock:
            sock.settimeout(TIMEOUT)
            if self.conditions.receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.conditions.receive_buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((CLIENT6 if ipv6 else CLIENT, port))
            sock.connect((GUEST6 if ipv6 else GUEST, PORT))
            yield sock

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of the client's."""
        with self.client.entered():
            sock = socket.socket(family, kind, protocol)
        sock.settimeout(TIMEOUT)
        return sock

    def settle(self) -> None:
        """Wait until all connections have ended on both sides."""
        until = time.monotonic() + TIMEOUT
        while self._is_connected() or self.wire.late:
            if time.monotonic() > until:
                raise Failure("connections did not end")
            time.sleep(0.002)       # between two looks: the kernel tells nobody of this

    def _is_connected(self) -> bool:
        for namespace in self.namespaces:
            with namespace.entered():
                for table in ("tcp", "tcp6"):
                    lines = Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
                    if any(int(line.split()[3], 16) in ESTABLISHED_TO_END for line in lines):
                        return True
        return False


# ---------------------------------------------------------------- the server

class Server:
    """The guest's program.  A request is a line; its answer follows.

    get SIZE SEED   content(SEED, SIZE)
    put SIZE        (and so many bytes) their SHA-256, in hex, and a newline
    reset           the connection is aborted
    close           it is closed by the server first
    end of input    "bye", the bytes received so far and a newline, then the end
    UDP: "SIZE SEED" is answered with content(SEED, SIZE)
    """

    def __init__(self, guest: Namespace, conditions: Conditions):
        self.conditions = conditions
        with guest.entered():
            self.listener = socket.create_server(("::", PORT), family=socket.AF_INET6, backlog=256,
                                                 dualstack_ipv6=True)
            self.udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.udp.bind(("::", PORT))
        self.threads = [threading.Thread(target=target, daemon=True)
                        for target in (self._accept, self._answer_datagrams)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.udp.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(TIMEOUT)
        self.listener.close()
        self.udp.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock, address[1]), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _spoil(self, port: int, sent: int, data: bytes) -> bytes:
        """The data, with the fault that belongs there; `sent` bytes have gone before."""
        offset, change = self.conditions.faults.get(port, (-1, 0))
        at = offset - sent
        if 0 <= at < len(data):
            data = data[:at] + (bytes([data[at] ^ change]) + data[at + 1:] if change else b"")
        return data

    def _serve(self, sock: socket.socket, port: int) -> None:
        draw = random.Random(self.conditions.seed * 65536 + port)
        sent = received = 0

        def answer(data: bytes) -> None:
            nonlocal sent
            whole = len(data)
            data = self._spoil(port, sent, data)
            sent += len(data)
            at = 0
            while at < len(data):
                size = draw.randint(1, self.conditions.chunk)
                sock.sendall(data[at:at + size])
                at += size
            if at < whole:
                raise EOFError

        with sock, contextlib.suppress(OSError, EOFError):
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = sock.makefile("rb")
            for line in stream:
                received += len(line)
                word, *numbers = line.split()
                if word == b"get":
                    answer(content(int(numbers[1]), int(numbers[0])))
                elif word == b"put":
                    data = stream.read(int(numbers[0]))
                    received += len(data)
                    answer(hashlib.sha256(data).hexdigest().encode() + b"\n")
                elif word == b"reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)
                    stream.close()
                    return
                elif word == b"close":
                    sock.shutdown(socket.SHUT_WR)
                    sock.recv(1)            # until the client has closed, too
                    return
            answer(b"bye %d\n" % received)

    def _answer_datagrams(self) -> None:
        while True:
            try:
                request, address = self.udp.recvfrom(65536)
            except OSError:
                return
            if not address or not request:
                return                      # shut down
            size, seed = map(int, request.split())
            with contextlib.suppress(OSError):
                self.udp.sendto(self._spoil(address[1], 0, content(seed, size)), address)


# ---------------------------------------------------------------- what a client asks for

def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise Failure(f"the server closed after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def get(sock: socket.socket, size: int, seed: int) -> None:
    """Download; what comes may be spoilt."""
    sock.sendall(f"get {size} {seed}\n".encode())
    receive(sock, size)


def put(sock: socket.socket, size: int, seed: int) -> None:
    """Upload."""
    data = content(seed, size)
    sock.sendall(f"put {size}\n".encode())
    sock.sendall(data)
    if receive(sock, 65) != hashlib.sha256(data).hexdigest().encode() + b"\n":
        raise Failure("the server received something else")


def half_close(sock: socket.socket) -> None:
    """The client ends its stream and reads the server's to its end."""
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        pass


def ping(link: Link, identifier: int, number: int, size: int, ipv6: bool = False) -> None:
    """One ICMP echo."""
    family, protocol, kind = ((socket.AF_INET6, socket.IPPROTO_ICMPV6, 128) if ipv6
                              else (socket.AF_INET, socket.IPPROTO_ICMP, 8))
    body = content(number, size)
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, number) + body
    if not ipv6:        # the kernel fills in ICMPv6's
        total = sum(struct.unpack(f"!{len(message + bytes(len(message) % 2)) // 2}H",
                                  message + bytes(len(message) % 2)))
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
    with link.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.sendto(message, (GUEST6 if ipv6 else GUEST, 0))
        answered = False
        while not answered:
            answered = sock.recv(65536).endswith(body)


def ask(link: Link, port: int, size: int, seed: int, ipv6: bool = False) -> None:
    """One datagram there and one back."""
    with link.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((CLIENT6 if ipv6 else CLIENT, port))
        sock.sendto(f"{size} {seed}".encode(), (GUEST6 if ipv6 else GUEST, PORT))
        if len(sock.recv(65536)) != size:
            raise Failure("a datagram of another size came back")


def record(path: Path, conditions: Conditions, work: Callable[[Link], None]) -> Path:
    """Let a client do its work with a guest; the capture."""
    with Link(path, conditions) as link:
        try:
            work(link)
            link.settle()
        except OSError as error:
            raise Failure(f"{path.stem}: {error}") from None
    return path
