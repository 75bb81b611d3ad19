"""How the demo says that it cannot go on."""


class DemoError(Exception):
    """The demo cannot do what was asked; the message says what, why and the cure."""
