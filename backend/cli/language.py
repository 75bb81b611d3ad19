"""Texts in the language of who sits before the command. Commands take ``_`` from here, so that their help is in it too."""

from __future__ import annotations

from mlwf.i18n import current_language, translate_click

from backend.i18n import _, speak

speak(current_language())
translate_click()

__all__ = ["_"]
