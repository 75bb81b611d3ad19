import os

from demo.cli import main

os.umask(0o077)
main()
