"""A Python program that allocates and frees all the time and loses nothing.
It speaks the fixture protocol: "check" -> "ok N rounds", "quit"."""

import json
import random
import sys
import threading
import time


class Node:
    """An object in cycles that only the collector can free."""

    def __init__(self, number):
        self.number = number
        self.text = "node %d" % number
        self.other = None


class Load(threading.Thread):
    def __init__(self, rest):
        super().__init__(daemon=True)
        self.rest = rest
        self.rounds = 0
        self.wrong = None
        self.kept = {}

    def once(self):
        random.seed(self.rounds)
        data = {"k%d" % i: [random.random() for _ in range(20)] for i in range(50)}
        again = json.loads(json.dumps(data))
        if again != data:
            self.wrong = "json changed the data"
        if sorted(sum(data.values(), [])) != sorted(sum(again.values(), [])):
            self.wrong = "sort changed the data"
        nodes = [Node(i) for i in range(200)]
        for a, b in zip(nodes, nodes[1:] + nodes[:1]):
            a.other = b
        if sum(n.number for n in nodes) != 19900:
            self.wrong = "a node changed"
        self.kept[self.rounds % 100] = (data, nodes[:3])

    def run(self):
        while self.wrong is None:
            self.once()
            self.rounds += 1
            time.sleep(self.rest)


def main():
    loads = [Load(0.01), Load(0.02)]
    for load in loads:
        load.start()
    print("ready", flush=True)
    for line in sys.stdin:
        wrong = [load.wrong for load in loads if load.wrong]
        if line.strip() == "quit":
            break
        if line.strip() != "check":
            print("violation: unknown command", flush=True)
        elif wrong:
            print("violation:", wrong[0], flush=True)
        else:
            print("ok", sum(load.rounds for load in loads), "rounds", flush=True)


main()
