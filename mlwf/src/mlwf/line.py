"""Names and paths that people write, as far as they stand on one line."""

import unicodedata

ENV_NAME = r"[a-z0-9][a-z0-9_-]{1,254}"


def is_one_line(text: str) -> bool:
    """Whether it has neither control characters nor line breaks, and all of it is text. Unlike `str.isprintable`, it lets the spaces of
    all scripts be (in Japanese the full-width one), and the letters that a site or a person has of its own.
    """
    return not any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in text)
