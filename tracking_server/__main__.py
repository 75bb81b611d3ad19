"""`python -P -m tracking_server BOX`: runs one box in the foreground."""

import sys

from tracking_server.guard.main import main

if len(sys.argv) != 2:
    sys.stderr.write("usage: python -P -m tracking_server BOX_DIRECTORY\n")
    sys.exit(2)
sys.exit(main(sys.argv[1]))
