"""The identity provider for run.sh, on loopback: a DNS server for the name idp.test, and its JWKS over HTTPS.

Usage: idp.py FOLDER   (writes ca.pem there; listens on ports 53 and 8443, so it needs its own network namespace)
"""

import base64
import http.server
import json
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

folder = Path(sys.argv[1])


def openssl(*args):
    return subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True).stdout


def make_certificates():
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl(*new, "-subj", "/CN=test-ca", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=idp.test", "-keyout", "idp.key", "-out", "idp.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-addext", "subjectAltName=DNS:idp.test", "-addext", "basicConstraints=critical,CA:FALSE")


def answer_names():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names:
        names.bind(("127.0.0.1", 53))
        while True:
            query, peer = names.recvfrom(512)
            question = query[12 : query.index(0, 12) + 5]
            known = question[:-4] == b"\x03idp\x04test\x00"
            address = known and question[-4:-2] == b"\x00\x01"
            # Flags: response, recursion available. Other names get NXDOMAIN; record types other than A get no record.
            head = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\x00\x01" + bytes([0, address]) + bytes(4)
            record = b"\xc0\x0c\x00\x01\x00\x01" + (60).to_bytes(4, "big") + b"\x00\x04" + socket.inet_aton("127.0.0.1")
            names.sendto(head + question + (record if address else b""), peer)


class Keys(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # The DER encoding of a P-256 public key ends with its coordinates x and y.
        point = openssl("pkey", "-in", "idp.key", "-pubout", "-outform", "DER")[-64:]
        x, y = (base64.urlsafe_b64encode(half).rstrip(b"=").decode() for half in (point[:32], point[32:]))
        body = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


make_certificates()
threading.Thread(target=answer_names, daemon=True).start()
server = http.server.HTTPServer(("127.0.0.1", 8443), Keys)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder / "idp.pem", folder / "idp.key")
server.socket = tls.wrap_socket(server.socket, server_side=True)
print("listening", flush=True)
server.serve_forever()
