"""The service: the control plane of the tracking servers."""

__version__ = "0.1.0"
