"""Opens many connections, and sends an unfinished request head on each. They stay open until all heads are sent.

Usage: unfinished_heads.py ADDRESS CONNECTIONS BYTES
"""

import contextlib
import resource
import socket
import sys

address, connections, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (connections + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
head = b"POST /rollout/token HTTP/1.1\r\nHost: localhost\r\nX-Filler: "
head += b"x" * (size - len(head))
held = []
for _ in range(connections):
    peer = socket.socket()
    peer.settimeout(5)
    # The service may refuse or close connections above its connection limit.
    with contextlib.suppress(OSError):
        peer.connect((address, 8080))
        peer.sendall(head)
    held.append(peer)
print(f"tried to open {len(held)} connections with heads of {size} bytes")
