# SPDX-License-Identifier: GPL-2.0-or-later
"""What the client does: downloads, uploads, datagrams and pings, each watched closely."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from .machine import Failure
from .network import Network

SO_RCVBUFFORCE = 33
TIMEOUT = 60.0      # seconds without a byte after which a transfer has failed
FILES = 40          # that Writer has written over and over
FILE_SIZE = 20_000


def connect(network: Network, port: int = 80, timeout: float = TIMEOUT,
            address: str | None = None) -> socket.socket:
    """A TCP connection from the client to the guest."""
    address = address or network.guest_address
    with network.client.entered():
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(timeout)
    try:
        sock.connect((address, port))
    except OSError as error:
        sock.close()
        raise Failure(f"client: cannot connect to {address} port {port}: {error}") from None
    return sock


def read_header(sock: socket.socket) -> tuple[int, int, bytes]:
    """The status and the content length of an HTTP answer, and what followed the header."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            raise Failure("client: the guest closed the connection before it answered")
        data += chunk
    header, rest = data.split(b"\r\n\r\n", 1)
    lines = header.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), int(fields["content-length"]), rest


def request(network: Network, path: str = "/", body: bytes | None = None,
            timeout: float = TIMEOUT) -> bytes:
    """One HTTP request on a connection of its own; the answer's body."""
    method = "GET" if body is None else "PUT"
    head = f"{method} {path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Length: {len(body)}\r\n"
    with connect(network, timeout=timeout) as sock:
        try:
            sock.sendall(head.encode() + b"\r\n" + (body or b""))
            status, length, answer = read_header(sock)
            while len(answer) < length:
                chunk = sock.recv(1 << 20)
                if not chunk:
                    raise Failure(f"client: {path}: {len(answer)} of {length} bytes came")
                answer += chunk
        except OSError as error:
            raise Failure(f"client: {method} {path}: {error}") from None
    if status != 200:
        raise Failure(f"client: {method} {path} was answered with status {status}")
    return answer


class Dripping(threading.Thread):
    """A connection on which a request is made now and then, as long as it lives."""

    def __init__(self, network: Network, family: socket.AddressFamily):
        super().__init__(daemon=True, name="dripping")
        self.over = threading.Event()
        self.answers = 0
        self.last = 0.0         # when the last one came
        self.error: str | None = None
        address = network.guest_address if family == socket.AF_INET else network.guest_address6
        self.socket = connect(network, timeout=30, address=address)

    def run(self) -> None:
        request = b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n"
        try:
            with self.socket as connection, connection.makefile("rb") as answers:
                while not self.over.is_set():
                    connection.sendall(request)
                    self._read(answers)
                    self.last = time.monotonic()
                    self.answers += 1
                    self.over.wait(0.01)
        except (OSError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"

    @staticmethod
    def _read(answers) -> None:
        length = 0
        while (line := answers.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if answers.read(length) != b"ready\n":
            raise ValueError("a wrong answer")


def file_content(version: int) -> bytes:
    """What Writer has the guest keep as that version."""
    return random.Random(version).randbytes(FILE_SIZE)


class Writer(threading.Thread):
    """A client that has the guest keep files, one after the other, and remembers which it was told are on the disk."""

    def __init__(self, network: Network):
        super().__init__(daemon=True, name="writer")
        self.network = network
        self.over = threading.Event()
        self.kept: dict[int, int] = {}      # file: the version that is on the disk for certain
        self.version = 0                    # that is being written
        self.error: str | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                number = self.version % FILES
                request(self.network, f"/disk/{number}", file_content(self.version))
                self.kept[number] = self.version
                self.version += 1
        except Failure as error:
            self.error = str(error)

    def wrong_in(self, files: dict[int, bytes], kept: dict[int, int]) -> list[int]:
        """Which of these files are not what they were, nor what has been written over them since."""
        return [number for number, version in kept.items()
                if files.get(number) not in (file_content(later) for later in range(version, self.version + 1)
                                             if later % FILES == number)]


class Download(threading.Thread):
    """A download that runs in the background and notes when what arrived.

    join() it, then look at .error, .received and .sha256; result() does so and
    raises a Failure if it went wrong.
    """

    def __init__(self, network: Network, size: int, seed: int = 0, timeout: float = TIMEOUT, address: str | None = None):
        super().__init__(daemon=True, name="download")
        self.network, self.size, self.seed, self.timeout, self.address = network, size, seed, timeout, address
        self.received = 0
        self.receipts: list[tuple[float, int]] = []    # when, and how much had come by then
        self.error: str | None = None
        self.began = self.ended = 0.0
        self.local_port = 0
        self._digest = hashlib.sha256()
        self._moved = threading.Condition()

    def run(self) -> None:
        self.began = time.monotonic()
        try:
            self._receive()
        except (OSError, Failure) as error:
            self.error = f"after {self.received} of {self.size} bytes: {error}"
        finally:
            self.ended = time.monotonic()
            with self._moved:
                self._moved.notify_all()

    def _receive(self) -> None:
        with connect(self.network, timeout=self.timeout, address=self.address) as sock:
            self.local_port = sock.getsockname()[1]
            sock.sendall(f"GET /stream/{self.size}/{self.seed} HTTP/1.1\r\nHost: guest\r\n"
                         "Connection: close\r\n\r\n".encode())
            status, length, chunk = read_header(sock)
            if status != 200 or length != self.size:
                raise Failure(f"answered with status {status} and {length} bytes")
            self._note(chunk)
            while self.received < length:
                chunk = sock.recv(1 << 18)
                if not chunk:
                    raise Failure("the connection was closed")
                self._note(chunk)

    def _note(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        with self._moved:
            self.received += len(chunk)
            self.receipts.append((time.monotonic(), self.received))
            self._moved.notify_all()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def wait_for(self, count: int, timeout: float = TIMEOUT) -> None:
        """Wait until so many bytes have come."""
        with self._moved:
            self._moved.wait_for(lambda: self.received >= count or self.ended, timeout)
        if self.received < count:
            raise Failure(f"client: {self.error or f'{self.received} of {count} bytes came'} "
                          f"within {timeout:g} s")

    def result(self, timeout: float) -> str:
        """Wait for the end; return the hash of what came."""
        self.join(timeout)
        if self.is_alive():
            raise Failure(f"client: {self.received} of {self.size} bytes came within "
                          f"{timeout:g} s, then no end")
        if self.error:
            raise Failure(f"client: the download broke off {self.error}")
        return self.sha256

    def gap(self, since: float) -> float:
        """The longest wait between two receipts, in seconds, that was not over at `since`."""
        times = [when for when, _ in self.receipts]
        return max((after - before for before, after in zip(times, times[1:]) if after >= since),
                   default=0.0)


@dataclass
class PingResult:
    """What became of a series of pings."""

    sent: int = 0
    duplicates: int = 0
    missing: list[float] = field(default_factory=list)      # when those not answered were sent

    @property
    def lost(self) -> int:
        return len(self.missing)


class Ping(threading.Thread):
    """ICMP echo requests at a steady rate, in the background; answers may come late."""

    def __init__(self, network: Network, rate: float, seconds: float, size: int = 56,
                 patience: float = 30.0):
        super().__init__(daemon=True, name="ping")
        self.network, self.rate, self.seconds = network, rate, seconds
        self.patience = patience            # how long to wait for the last answers
        self.payload = bytes(i & 0xff for i in range(size - 4))
        self.result = PingResult()
        self.error: str | None = None
        self._sent_at: dict[int, float] = {}
        self._answered: set[int] = set()
        self._identifier = id(self) >> 4 & 0xffff
        self._all_sent = threading.Event()

    def run(self) -> None:
        try:
            with self.network.client.entered():
                sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        except OSError as error:
            self.error = str(error)
            return
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
            sock.connect((self.network.guest_address, 0))
            receiver = threading.Thread(target=self._receive, args=(sock,), daemon=True)
            receiver.start()
            try:
                self._send(sock)
            except OSError as error:
                self.error = str(error)
            self._all_sent.set()
            receiver.join()
        self.result.sent = len(self._sent_at)
        began = min(self._sent_at.values(), default=0.0)
        self.result.missing = [when - began for number, when in self._sent_at.items()
                               if number not in self._answered]

    def wait_sent(self, timeout: float) -> None:
        """Until all requests have been sent."""
        if not self._all_sent.wait(timeout):
            raise Failure(f"client: not all pings were sent within {timeout:g} s")

    def _send(self, sock: socket.socket) -> None:
        began = time.monotonic()
        for number in range(int(self.rate * self.seconds)):
            due = began + number / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            body = struct.pack("!HHI", self._identifier, number & 0xffff, number) + self.payload
            self._sent_at[number] = time.monotonic()
            sock.send(struct.pack("!BBH", 8, 0, _checksum(b"\x08\0\0\0" + body)) + body)

    def _receive(self, sock: socket.socket) -> None:
        deadline = None
        while True:
            if self._all_sent.is_set():
                deadline = deadline or time.monotonic() + self.patience
                if len(self._answered) == len(self._sent_at) or time.monotonic() > deadline:
                    return
            # Not with a timeout of the socket's: that would hold for sending, too.
            if not select.select([sock], [], [], 0.1)[0]:
                continue
            try:
                packet = sock.recv(65536)
            except OSError as error:
                self.error = str(error)
                return
            icmp = packet[(packet[0] & 15) * 4:]
            kind, _, _, identifier, _, number = struct.unpack_from("!BBHHHI", icmp)
            if kind != 0 or identifier != self._identifier:
                continue
            if number in self._answered:
                self.result.duplicates += 1
            else:
                self._answered.add(number)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
