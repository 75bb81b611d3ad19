"""`python -P -m tracking_server [--spawner SOCKET] BOX`: runs one box in the foreground."""

import sys

from tracking_server.guard.main import main

arguments = sys.argv[1:]
spawner = None
if arguments[:1] == ["--spawner"] and len(arguments) == 3:
    spawner, arguments = arguments[1], arguments[2:]
if len(arguments) != 1:
    sys.stderr.write("usage: python -P -m tracking_server [--spawner SOCKET] BOX_DIRECTORY\n")
    sys.exit(2)
sys.exit(main(arguments[0], spawner))
