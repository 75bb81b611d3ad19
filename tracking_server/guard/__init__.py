"""The box's first process: holds the sockets, says who may in, starts and stops nginx and MLflow.

It is there for a server's whole life, awake or asleep, so it stays small: no asyncio, logging, subprocess or dataclasses.
"""
