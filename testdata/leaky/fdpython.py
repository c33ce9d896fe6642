"""Children and sockets in Python, with descriptors forgotten or not.

It speaks as the other programs do; "run N" is what a healthy program does, a
"leak" keeps what should have been closed:

  run N      N children whose output is read to its end, N connections that are
             used and closed, N files read in a with statement
  children N N children whose pipe is kept after their end: one descriptor each
  sockets N  N connections whose peer has closed, kept: CLOSE_WAIT
  quit
"""

import socket
import subprocess
import sys

CHILD = ["/bin/echo", "hello"]

forgotten = []  # what no code will ever close; the collector would


def run_child():
    if subprocess.run(CHILD, stdout=subprocess.PIPE, check=True).stdout != b"hello\n":
        raise RuntimeError("wrong output")


def start_child():
    child = subprocess.Popen(CHILD, stdout=subprocess.PIPE)  # want fd pipe2
    child.wait()
    forgotten.append(child.stdout)


def talk(listener):
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            client.sendall(b"ping")
            if server.recv(4, socket.MSG_WAITALL) != b"ping":
                raise RuntimeError("wrong answer")


def half_close(listener):
    client = socket.create_connection(listener.getsockname())  # want fd socket
    server, _ = listener.accept()
    server.close()
    if client.recv(1) != b"":
        raise RuntimeError("not closed")
    forgotten.append(client)


def read_file():
    with open("/etc/hostname", "rb") as f:
        f.read()


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "quit":
            break
        for _ in range(int(number)):
            if word == "run":
                run_child()
                talk(listener)
                read_file()
            elif word == "children":
                start_child()
            elif word == "sockets":
                half_close(listener)
            else:
                raise ValueError(line)
        print("ok", flush=True)


main()
