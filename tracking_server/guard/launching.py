"""How MLflow's process is started, by the guard or by the spawner, which has this module and few others: it is to stay small."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tracking_server.guard import child

FILES = 4
"""Descriptors that it is given: the plan, the log, the listening socket, the pipe for its words."""
WORD_BYTES = 1024
"""The longest message between guard and spawner."""


def launch(files: Sequence[int], temporary: str) -> int:
    """Start it as a child of this process, which it dies with; returns its process id. Raises OSError."""
    plan, output, listener, status = files
    return child.spawn(
        [sys.executable, "-P", "-m", "tracking_server.mlflow_process", str(os.getpid())],
        environment=child.environment(temporary),
        files={0: plan, 1: output, 2: output, 3: listener, 4: status},
    )
