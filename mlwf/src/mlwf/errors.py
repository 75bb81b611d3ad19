"""What can go wrong for a user, in one shape: what happened, why, and the cure."""


def with_cure(detail: str, cure: str) -> str:
    """What happened and the cure, with the full stop between them that the language of the last word has."""
    head = detail.rstrip(".。")
    stop = "." if head[-1:].isascii() else "。"
    gap = " " if stop == "." else ""
    return f"{head}{stop}{gap}{cure}".rstrip()


class MlwfError(Exception):
    """A failure that the user is told in one sentence. The texts are in the reader's language already."""

    exit_status = 1

    def __init__(self, what: str, why: str = "", cure: str = "") -> None:
        super().__init__(what, why, cure)
        self.what = what
        self.why = why
        self.cure = cure

    def __str__(self) -> str:
        what = self.what.rstrip(".。")
        return with_cure(f"{what}: {self.why}" if self.why else what, self.cure)


class WrongUseError(MlwfError):
    """The command was asked for something that it cannot mean."""

    exit_status = 2
