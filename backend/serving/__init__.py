"""How the service runs: its parts wired, each a process, kept alive, behind its sockets."""
