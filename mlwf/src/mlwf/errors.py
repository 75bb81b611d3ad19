"""What can go wrong for a user, in one shape: what happened, why, and the cure."""


class MlwfError(Exception):
    """A failure that the user is told in one sentence. The texts are in the reader's language already."""

    exit_status = 1

    def __init__(self, what: str, why: str = "", cure: str = "") -> None:
        super().__init__(what, why, cure)
        self.what = what
        self.why = why
        self.cure = cure

    def __str__(self) -> str:
        head = self.what.rstrip(".。")
        if self.why:
            head += f": {self.why.rstrip('.。')}"
        stop = "." if head.isascii() or head[-1:].isascii() else "。"  # as the language of the last word has it
        gap = " " if stop == "." else ""
        return f"{head}{stop}{gap}{self.cure}".rstrip()


class WrongUseError(MlwfError):
    """The command was asked for something that it cannot mean."""

    exit_status = 2
