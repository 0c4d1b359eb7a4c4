import scythe
from scythe import FileRefs


def load(text: int) -> int:
    return text


data = FileRefs(scythe.files("hourly"), "hourly", load)  # refused
