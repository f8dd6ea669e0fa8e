"""A small table of people: numbers and texts, some of them missing."""

import numpy as np

NAMES = ["age", "hours", "job", "town", "income"]


def make_rows(count, seed=0):
    """Lists of texts, "" where missing; the first has the names."""
    random = np.random.default_rng(seed)
    rows = [NAMES]
    for number in range(count):
        age = "" if number % 7 == 3 else f"{random.normal(40, 10):.3f}"
        job = ("baker", "cook, or chef", "", "driver")[random.integers(4)]
        rows.append([age, str(random.integers(10, 60)), job, str(random.integers(1, 4)), ("high", "low")[number % 2]])
    return rows


def write(file, count, unlabelled=0, seed=0):
    """Write CSV with quoted texts; `unlabelled` more rows have no target."""
    rows = make_rows(count + unlabelled, seed)
    for row in rows[count + 1 :]:
        row[-1] = ""
    write_rows(file, rows)
    return file


def write_rows(file, rows):
    file.write_text("".join(",".join(f'"{v}"' if "," in v else v for v in row) + "\n" for row in rows))
