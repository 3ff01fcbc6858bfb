"""`ssd serve`: a page for the browsers of this network, with a QR code of its address."""

import functools
import http.server
import io
import pathlib
import socket
import sys
import urllib.parse

import segno
from absl import flags, logging

from ssd_tf import commandline

USAGE = """
Serve the page of an export, a report or an overview to browsers, until Ctrl-C; prints its address
and a QR code of it, for the camera of a phone in the same network.

  ssd serve DIR|FILE.html [--port 8000] [--local]

All files of the folder can be read by whoever reaches this machine; --local keeps it to itself.
"""
FLAGS = commandline.new_flags()
flags.DEFINE_integer(
    "port", 8000, "Port to serve at; 0: any.", lower_bound=0, upper_bound=65535, flag_values=FLAGS
)
flags.DEFINE_bool("local", False, "Only for browsers on this machine.", flag_values=FLAGS)
# Some systems know other types for these, with which browsers reject them.
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_ANY_ADDRESS = "0.0.0.0"
# No packet goes there: an address for documentation (RFC 5737), to ask by which way one would.
_ELSEWHERE = ("192.0.2.1", 9)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, argv=argv)


def _main(values, positional):
    if len(positional) != 1:
        raise flags.Error("name one folder or HTML file (see --help)")
    page = find_page(positional[0])
    with make_server(page.parent, values.port, values.local) as server:
        address = address_of(server, page.name)
        if sys.stdout.isatty() and not values.local:
            print(qr_code(address))
        print(address, flush=True)
        if not values.local:
            here = address_of(server, page.name, is_here=True)
            logging.info("on this machine, where a page may use the camera: %s", here)
        logging.info("serving %s; Ctrl-C ends it", page.parent)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files only, without lists of folders, and always the newest."""

    def guess_type(self, path):
        return _TYPES.get(pathlib.PurePath(path).suffix) or super().guess_type(path)

    def list_directory(self, _path):
        self.send_error(404)

    def end_headers(self):
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_arguments):
        pass


def find_page(path) -> pathlib.Path:
    """The HTML file at a path: the file itself, or index.html of a folder.

    Raises FileNotFoundError.
    """
    path = pathlib.Path(path)
    page = path / "index.html" if path.is_dir() else path
    if page.suffix.lower() not in (".html", ".htm") or not page.is_file():
        raise FileNotFoundError(
            f"expected a folder with an index.html, or an HTML file; got {path}"
        )
    return page


def make_server(folder, port, is_local=False) -> http.server.ThreadingHTTPServer:
    """A server of the files of a folder; is_local: for browsers on this machine only.

    port: 0 takes any that is free. Raises OSError.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    host = "127.0.0.1" if is_local else _ANY_ADDRESS
    try:
        return http.server.ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise OSError(f"--port {port}: {error.strerror}; name another port") from None


def address_of(server, name, is_here=False) -> str:
    """The address of a file of the server's folder, for other machines if it serves them.

    is_here: for browsers on this machine. They give the camera to no other address without https.
    """
    host, port = server.server_address[:2]
    if host == _ANY_ADDRESS:
        host = "127.0.0.1" if is_here else _own_address()
    return f"http://{host}:{port}/{'' if name == 'index.html' else urllib.parse.quote(name)}"


def _own_address():
    """The address of this machine in its network; 127.0.0.1 if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def qr_code(address) -> str:
    """A QR code for a terminal, two of its rows in each line, white on black in any theme."""
    blocks = io.StringIO()
    segno.make(address, micro=False).terminal(blocks, compact=True)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in blocks.getvalue().splitlines())


if __name__ == "__main__":
    sys.exit(main())
