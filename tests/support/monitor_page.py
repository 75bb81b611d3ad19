"""What the page about monitoring has admins type."""

import re
from pathlib import Path

MONITOR = Path(__file__).parents[2] / "docs" / "howto" / "monitor.md"


def sql_of_the_page(word: str) -> str:
    """What docs/howto/monitor.md has an admin say to the database: the one block with that word."""
    (found,) = (block for block in re.findall(r"```sql\n(.*?)```", MONITOR.read_text("utf-8"), flags=re.DOTALL) if word in block)
    return str(found)
