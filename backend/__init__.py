"""The service: the control plane of the tracking servers."""

__version__ = "0.2.0"
