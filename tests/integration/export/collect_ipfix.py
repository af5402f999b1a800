"""An IPFIX collector over TCP out of Debian's python3-ipfix: `collect_ipfix.py PORT`.

Runs under the system's Python. Prints a JSON object for each record, and one for each end of a
connection with the sequence numbers of the messages that came over it.
"""

import json
import socketserver
import sys

import ipfix
from ipfix.message import MessageBuffer

ipfix.ie.use_iana_default()
ipfix.ie.use_5103_default()


class Session(socketserver.StreamRequestHandler):
    """One transport session."""

    def handle(self) -> None:
        """Read messages until the exporter closes."""
        buffer = MessageBuffer()
        seen: list[tuple[int, int, int]] = []
        try:
            while True:
                buffer.read_message(self.rfile)
                rows = list(buffer.namedict_iterator())
                seen.append((buffer.sequence, len(rows), buffer.length))
                for row in rows:
                    print(json.dumps(row, default=str), flush=True)
        except EOFError:
            print(json.dumps({"messages": seen}), flush=True)


class Collector(socketserver.ThreadingTCPServer):
    """Comes back on the port that it had."""

    allow_reuse_address = True
    daemon_threads = True


with Collector(("127.0.0.1", int(sys.argv[1])), Session) as collector:
    print("ready", flush=True)
    collector.serve_forever()
