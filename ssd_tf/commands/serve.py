"""`ssd serve`: a page for the browsers of this network, with a QR code of its address."""

import sys

from absl import flags, logging

from ssd_tf import commandline, pages

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


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, argv=argv)


def _main(values, positional):
    if len(positional) != 1:
        raise flags.Error("name one folder or HTML file (see --help)")
    page = pages.find_page(positional[0])
    with pages.make_server(page.parent, values.port, values.local) as server:
        address = pages.address_of(server, page.name)
        if sys.stdout.isatty() and not values.local:
            print(pages.qr_code(address))
        print(address, flush=True)
        if not values.local:
            here = pages.address_of(server, page.name, is_here=True)
            logging.info("on this machine, where a page may use the camera: %s", here)
        logging.info("serving %s; Ctrl-C ends it", page.parent)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    sys.exit(main())
