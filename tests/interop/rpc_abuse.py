"""Clients that mean harm, or are broken, against rpc_test_server; another client must not notice.

SPDX-License-Identifier: Apache-2.0
"""

import gzip
import os
import resource
import socket
import struct
import threading
import time

import grpc

import rpc_support as t
from rpc_support import MIB, SLOW, check, check_equal, fails_with, wait_until

Code = grpc.StatusCode
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """HPACK: a literal without indexing, lengths below 127."""
    def text(s):
        s = s.encode()
        check(len(s) < 127, "short texts only")
        return bytes([len(s)]) + s
    return b"\0" + text(name) + text(value)


def request_headers(method="Unary"):
    return b"".join(literal(k, v) for k, v in [
        (":method", "POST"), (":scheme", "http"), (":path", f"/mixrank.test.Echo/{method}"),
        (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")])


class Raw:
    """HTTP/2 by hand."""

    def __init__(self, server, greet=True):
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.settimeout(10 * SLOW)
        self.data = b""
        self.ended = False
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def agree(self):
        """Acknowledges the server's settings: its windows hold from here on."""
        self.read(SETTINGS)
        self.send(frame(SETTINGS, 1, 0))
        return self

    def send(self, data):
        """False when the server has closed the connection."""
        try:
            self.socket.sendall(data)
            return True
        except (ConnectionError, socket.timeout):
            return False

    def read(self, until, seconds=5):
        """Collects until a frame of the kind came, or the end of the connection."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end and not self.ended:
            found = [f for f in self.frames() if f[0] == until]
            if found:
                return found[-1]
            try:
                self.socket.settimeout(0.2)
                more = self.socket.recv(65536)
                self.ended = not more
                self.data += more
            except socket.timeout:
                pass
            except ConnectionError:
                self.ended = True
        found = [f for f in self.frames() if f[0] == until]
        return found[-1] if found else None

    def frames(self):
        at, out = 0, []
        while at + 9 <= len(self.data):
            n = int.from_bytes(self.data[at:at + 3], "big")
            if at + 9 + n > len(self.data):
                break
            out.append((self.data[at + 3], self.data[at + 4],
                        int.from_bytes(self.data[at + 5:at + 9], "big"), self.data[at + 9:at + 9 + n]))
            at += 9 + n
        return out

    def closed(self, seconds):
        self.read(255, seconds)
        return self.ended

    def close(self):
        self.socket.close()


class Bystander:
    """A client that calls all the time, and wants its answers within a second."""

    def __init__(self, server):
        self.stub = server.stub()
        self.stop = threading.Event()
        self.calls, self.errors, self.slowest = 0, [], 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            start = time.monotonic()
            try:
                self.stub.Direct(self.stub.EchoRequest(payload=b"x"), timeout=1 * SLOW)
                self.calls += 1
            except grpc.RpcError as error:
                self.errors.append(error.code())
            self.slowest = max(self.slowest, time.monotonic() - start)
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()
        time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        check_equal(self.errors, [], "errors of another client")
        check(self.calls > 5, f"{self.calls} calls of another client")


def flood(make, seconds=2, connections=1, most_growth=16 * MIB, drops=True):
    """Sends what make(i) gives, over and over, opening a new connection when one is closed."""
    with t.Server() as server:
        with Bystander(server):
            time.sleep(0.2)
            before = server.stats()
            end = time.monotonic() + seconds
            closed = 0
            while time.monotonic() < end and closed < 20:
                raw = Raw(server)
                i = 0
                while time.monotonic() < end:
                    if not raw.send(make(i)):
                        closed += 1
                        break
                    i += 1
                raw.close()
            after = server.stats()
        growth = after.rss_bytes - before.rss_bytes
        if not os.environ.get("SANITIZE"):
            check(growth < most_growth, f"grew by {growth >> 10} KiB")
        if drops:
            check(closed > 0 and after.dropped > before.dropped,
                  f"{closed} connections closed, {after.dropped - before.dropped} dropped")
        wait_until(lambda: server.stats().calls <= 1, 3, "calls are gone")


def reset_flood():
    headers = request_headers()

    def make(i):
        out = b""
        for k in range(50):
            stream = 2 * (50 * i + k) + 1
            out += frame(HEADERS, END_HEADERS, stream, headers) + frame(RST, 0, stream, b"\0\0\0\x08")
        return out
    flood(make)


def provoked_resets():
    """MadeYouReset: a window update of 0 makes the server reset a stream that goes on working."""
    headers = request_headers()
    body = b"\0\0\0\0\x04\x18\xf0\xd4\x03" # delay_ms = 60,000

    def make(i):
        out = b""
        for k in range(50):
            stream = 2 * (50 * i + k) + 1
            out += (frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, body) +
                    frame(WINDOW, 0, stream, bytes(4)))
        return out
    flood(make)


def ping_flood():
    flood(lambda i: frame(PING, 0, 0, bytes(8)) * 200)


def settings_flood():
    flood(lambda i: frame(SETTINGS, 0, 0) * 200)


def empty_frames():
    headers = request_headers()

    def make(i):
        return (frame(HEADERS, END_HEADERS, 1, headers) if i == 0 else b"") + frame(DATA, 0, 1) * 200
    flood(make)


def priority_flood():
    flood(lambda i: b"".join(frame(PRIORITY, 0, 2 * k + 1, b"\0\0\0\0\x10") for k in range(200)))


def continuation_flood():
    def make(i):
        first = frame(HEADERS, 0, 1, request_headers()) if i == 0 else b""
        return first + frame(CONTINUATION, 0, 1, literal("x-a", "y" * 100) * 10)
    flood(make)


def header_bomb():
    """One indexed header of 4,000 bytes, named by one byte thousands of times."""
    big = b"\x40\x05x-big" + b"\x7f" + bytes([4000 - 127 - 128 + 128 & 0x7f | 0x80, (4000 - 127) >> 7]) + b"y" * 4000

    def make(i):
        stream = 2 * i + 1
        first = big if i == 0 else b""
        return frame(HEADERS, END_HEADERS | END_STREAM, stream,
                     request_headers() + first + b"\xbe" * 12000)
    flood(make, drops=False)


def calls_that_only_open():
    """Streams without a body, as many as allowed, held open."""
    with t.Server(["--upload-ms", str(500 * SLOW)]) as server:
        with Bystander(server):
            raw = Raw(server)
            raw.send(b"".join(frame(HEADERS, END_HEADERS, 2 * k + 1, request_headers())
                              for k in range(300)))
            wait_until(lambda: server.stats().calls >= 250, 3, "the calls are in")
            wait_until(lambda: server.stats().calls <= 2, 8, "late uploads are ended")
            raw.close()


def slow_loris():
    """Bytes one by one: preface, headers, a message. Each has its time limit."""
    with t.Server(["--handshake-ms", "500", "--upload-ms", "500"]) as server:
        with Bystander(server):
            silent = Raw(server, greet=False)
            check(silent.closed(5), "a client that says nothing is closed")
            slow = Raw(server, greet=False)
            for byte in PREFACE:
                if not slow.send(bytes([byte])):
                    break
                time.sleep(0.05)
            check(slow.closed(5), "a slow preface is closed")
            half = Raw(server)
            half.send(frame(HEADERS, END_HEADERS, 1, request_headers())[:-5])
            check(half.closed(5), "headers that do not end are closed")
            lost = Raw(server)
            lost.send(frame(HEADERS, 0, 1, request_headers()))
            check(lost.closed(5), "headers without their continuation are closed")
            body = Raw(server)
            body.send(frame(HEADERS, END_HEADERS, 1, request_headers()) + frame(DATA, 0, 1, b"\0\0\0\1\0abc"))
            end = body.read(HEADERS)
            check(end and end[1] & END_STREAM, f"a late message is answered: {end}")
            check_equal(server.stats().dropped, 4, "dropped")
            for raw in (silent, slow, half, lost, body):
                raw.close()


def half_closed():
    """A client that shuts its sending side: the connection goes, with what it had asked."""
    with t.Server() as server:
        raw = Raw(server)
        raw.send(frame(HEADERS, END_HEADERS, 1, request_headers()) +
                 frame(DATA, END_STREAM, 1, b"\0\0\0\0\x04\x18\xf0\xd4\x03"))
        wait_until(lambda: server.stats().calls >= 2, 3, "the call is in")
        raw.socket.shutdown(socket.SHUT_WR)
        check(raw.closed(5), "closed")
        wait_until(lambda: server.stats().cancelled >= 1, 3, "the work is given up")


def does_not_read():
    """Asks for much and reads nothing: by window or by socket, memory stays bounded."""
    with t.Server(["--stall-ms", str(1000 * SLOW), "--max-deadline-ms", str(2000 * SLOW)]) as server:
        with Bystander(server):
            ask = b"\0\0\0\0\x07\x10\x80\x80\x40\x30\xe8\x07" # reply_bytes = 1 MiB, count = 1000
            raw = Raw(server)
            for k in range(20):
                raw.send(frame(HEADERS, END_HEADERS, 2 * k + 1, request_headers("Stream")) +
                         frame(DATA, END_STREAM, 2 * k + 1, ask))
            wide = Raw(server)
            wide.send(frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(WINDOW, 0, 0, b"\x7f\xff\0\0"))
            for k in range(20):
                wide.send(frame(HEADERS, END_HEADERS, 2 * k + 1, request_headers("Stream")) +
                          frame(DATA, END_STREAM, 2 * k + 1, ask))
            time.sleep(0.5)
            check(server.stats().buffered_bytes < 50 * MIB, "replies wait in bounded memory")
            wait_until(lambda: server.stats().calls <= 2, 10, "stalled calls are ended")
            raw.close()
            wide.close()


def zip_bomb():
    with t.Server(["--max-message", str(4 * MIB)]) as server:
        bomb = gzip.compress(bytes(200 * MIB), 9) # 1,000 to 1; within a stream's window
        before = server.stats().rss_bytes
        raw = Raw(server).agree()
        with Bystander(server):
            raw.send(frame(HEADERS, END_HEADERS, 1, request_headers() + literal("grpc-encoding", "gzip")))
            message = b"\1" + struct.pack(">I", len(bomb)) + bomb
            for at in range(0, len(message), 16384):
                raw.send(frame(DATA, 0, 1, message[at:at + 16384]))
            raw.send(frame(DATA, END_STREAM, 1))
            end = raw.read(HEADERS)
            check(end and end[1] & END_STREAM, f"answered: {end}")
        if not os.environ.get("SANITIZE"):
            check(server.stats().rss_bytes - before < 24 * MIB, "memory")
        raw.close()


def descriptors_run_out():
    """64 descriptors, 120 connections: later clients are served once they are closed."""
    with t.Server(limit_files=64) as server:
        many = []
        for _ in range(120):
            try:
                many.append(socket.create_connection(("127.0.0.1", server.port), timeout=1))
            except OSError:
                pass
        time.sleep(1)
        for s in many:
            s.close()
        stub = server.stub()
        stub.Direct(stub.EchoRequest(), timeout=5 * SLOW)
        stats = server.stats()
        check(1 <= stats.accept_errors <= 30, f"{stats.accept_errors} accept errors in a second")
        wait_until(lambda: server.stats().connections <= 3, 5, "the closed ones are gone")


def too_many_connections():
    with t.Server(["--max-connections", "8"]) as server:
        many = [Raw(server) for _ in range(20)]
        check_equal(sum(m.read(SETTINGS, 2) is not None for m in many), 8, "connections let in")
        for m in many:
            m.close()
        wait_until(lambda: server.stats().refused >= 12, 3, "the others were refused")


def garbage():
    with t.Server() as server:
        with Bystander(server):
            for start in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(5000), b"\x16\x03\x01" + bytes(500)):
                raw = Raw(server, greet=False)
                raw.send(start)
                check(raw.closed(5), f"closed after {start[:10]!r}")
                raw.close()
            for k in range(200):
                raw = Raw(server)
                raw.send(frame(k % 12, k * 7 % 256, k % 5, os.urandom(k * 3)))
                raw.close()


def idle_connections_end():
    with t.Server(["--idle-ms", "500"]) as server:
        raw = Raw(server)
        last = raw.read(GOAWAY)
        check(last is not None, "an idle client is told to go")
        check(raw.closed(3), "and closed")
        raw.close()


def silent_connections_end():
    """A client whose machine vanished does not answer pings."""
    with t.Server(["--keepalive-ms", "300", "--keepalive-answer-ms", "300"]) as server:
        raw = Raw(server)
        check(raw.read(PING) is not None, "is pinged")
        check(raw.closed(3), "and closed")
        raw.close()
        check_equal(server.stats().dropped, 1, "dropped")


resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
t.run([
    ("stream resets", reset_flood), ("provoked resets", provoked_resets), ("pings", ping_flood),
    ("settings", settings_flood), ("empty frames", empty_frames), ("priorities", priority_flood),
    ("continuations", continuation_flood), ("header bomb", header_bomb),
    ("calls that only open", calls_that_only_open), ("slow loris", slow_loris),
    ("half closed", half_closed), ("does not read", does_not_read), ("zip bomb", zip_bomb),
    ("descriptors run out", descriptors_run_out), ("too many connections", too_many_connections),
    ("garbage", garbage), ("idle connections", idle_connections_end),
    ("silent connections", silent_connections_end),
], "abuse")
