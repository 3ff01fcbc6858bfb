"""Processes that take turns, each with its own environment: TensorFlow reads it once."""

import collections
import json
import os
import statistics
import subprocess
import sys
import time


def take_turns(commands, rounds):
    """{name: (command, environment)} -> {name: {what: median milliseconds}}.

    Each process runs `serve`. The first two rounds warm up.
    """
    peers = {}
    for name, (command, environment) in commands.items():
        peers[name] = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
    times = {name: collections.defaultdict(list) for name in commands}
    for turn in range(rounds + 2):
        for name, peer in peers.items():
            peer.stdin.write("turn\n")
            peer.stdin.flush()
            line = peer.stdout.readline()
            if not line:
                raise OSError(f"{' '.join(commands[name][0])} has ended; run it to see why")
            for what, value in json.loads(line).items():
                if turn >= 2:
                    times[name][what].append(value)
    for peer in peers.values():
        peer.stdin.close()
        peer.wait()
    return {
        name: {what: statistics.median(values) for what, values in found.items()}
        for name, found in times.items()
    }


def serve(runs):
    """Run each of {what: function} once per line of stdin and print their milliseconds."""
    for _ in sys.stdin:
        times = {}
        for what, run in runs.items():
            start = time.perf_counter()
            run()
            times[what] = (time.perf_counter() - start) * 1000
        print(json.dumps(times), flush=True)
