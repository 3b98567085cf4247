#!/usr/bin/env python3
"""bench_rpc.py - trivial calls a second over the gRPC transport, and over python's grpcio server.

    RPC_TEST_SERVER=build/release/rpc_test_server benchmarks/bench_rpc.py

Needs h2load (nghttp2-client) and python3-grpcio. Both servers get the same h2load in the same run,
which shares the machine with them: compare rows of one run. cpu_us is the server's CPU time a call,
which other work on the machine disturbs least. An answer is checked before the clock starts. One JSON
line a row. SPDX-License-Identifier: Apache-2.0
"""

import concurrent.futures
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile

import grpc

PATH = "/mixrank.test.Echo/Direct"


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def request(payload):
    body = b"\x0a" + varint(len(payload)) + payload if payload else b""
    return b"\0" + struct.pack(">I", len(body)) + body


def serve_python():
    """An echo without messages of its own: bytes in, bytes out."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=8))
    echo = grpc.unary_unary_rpc_method_handler(lambda body, context: body)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("mixrank.test.Echo", {"Direct": echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening 127.0.0.1:{port}\nready", flush=True)
    signal.sigwait([signal.SIGTERM])
    server.stop(0).wait()


def start(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = None
    for line in process.stdout:
        if line.startswith("listening "):
            address = line.split()[1]
        if line.strip() == "ready":
            return process, address
    sys.exit(f"{command[0]} did not start")


def resident_mb(process):
    with open(f"/proc/{process.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(process, address, body, connections, streams, calls):
    log = body + ".log"
    if os.path.exists(log):
        os.remove(log)
    before = cpu_seconds(process)
    out = subprocess.run(
        ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-n{calls}", f"--log-file={log}", f"-d{body}", "-Hcontent-type: application/grpc", "-Hte: trailers",
         f"http://{address}{PATH}"], capture_output=True, text=True, check=True).stdout
    cpu_us = (cpu_seconds(process) - before) / calls * 1e6
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", out).group(1))
    done, failed = re.search(r"(\d+) done, \d+ succeeded, (\d+) failed", out).groups()
    if int(failed):
        sys.exit(f"{failed} of {done} requests failed:\n{out}")
    with open(log) as f:
        times = sorted(int(line.split()[2]) for line in f)
    return rate, cpu_us, times[len(times) // 2], times[len(times) * 99 // 100]


def measure(name, command, folder, calls):
    process, address = start(command)
    idle = resident_mb(process)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(PATH)
        if b"hello" not in call(b"\x0a\x05hello"):
            sys.exit(f"{name}: a wrong answer")
    for what, payload in (("13 B", b"x" * 6), ("3.6 KB", os.urandom(3600))):
        body = os.path.join(folder, "body")
        with open(body, "wb") as f:
            f.write(request(payload))
        for connections, streams in ((1, 1), (4, 1), (4, 16), (16, 16)):
            few = calls // 4 if connections * streams == 1 else calls
            rate, cpu_us, p50, p99 = load(process, address, body, connections, streams, few)
            print(json.dumps({"bench": "rpc", "server": name, "request": what, "connections": connections,
                              "streams": streams, "calls_per_s": round(rate),
                              "cpu_us": round(cpu_us, 1), "p50_us": p50, "p99_us": p99}),
                  flush=True)
    print(json.dumps({"bench": "rpc_memory", "server": name, "idle_mb": round(idle, 1),
                      "loaded_mb": round(resident_mb(process), 1)}), flush=True)
    process.send_signal(signal.SIGTERM)
    process.wait()


def main():
    if sys.argv[1:] == ["--serve-python"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        serve_python()
        return
    with tempfile.TemporaryDirectory() as folder:
        measure("mixrank", [os.environ["RPC_TEST_SERVER"], "--listen", "127.0.0.1:0"], folder, 200000)
        measure("grpcio", [sys.executable, __file__, "--serve-python"], folder, 8000)


main()
