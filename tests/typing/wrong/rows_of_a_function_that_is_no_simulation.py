import scythe


def double(x: int) -> int:
    return 2 * x


scythe.rows(double)  # refused
