"""Small random images in class folders, of different sizes and formats."""

import numpy as np
import tensorflow as tf

CLASSES = ("circle", "square", "star")


def encode(pixels, ending):
    if ending == "bmp":
        return bitmap(pixels)
    return {"png": tf.io.encode_png, "jpg": tf.io.encode_jpeg}[ending](pixels).numpy()


def bitmap(pixels):
    """uint8 [height, width, 3 or 1] as a BMP file, https://en.wikipedia.org/wiki/BMP_file_format."""
    height, width, channels = pixels.shape
    rows = [row.tobytes() + b"\0" * (-len(row.tobytes()) % 4) for row in pixels[::-1, :, ::-1]]
    palette = b"".join(bytes([level] * 3 + [0]) for level in range(256)) if channels == 1 else b""
    start = 54 + len(palette)
    numbers = [start + len(b"".join(rows)), 0, start, 40, width, height, 1 + (8 * channels << 16), 0, 0, 0, 0, 0, 0]
    return b"BM" + np.array(numbers, "<u4").tobytes() + palette + b"".join(rows)


def draw(folder, count=12, classes=CLASSES, seed=0):
    """Random images of different sizes and formats, some of them below the class folder."""
    random = np.random.default_rng(seed)
    for name in classes:
        for number in range(count):
            pixels = random.integers(0, 256, (7 + number, 9, 3), np.uint8)
            ending = ("png", "jpg", "bmp")[number % 3]
            file = folder / name / ("more" if number % 4 == 0 else "") / f"{number}.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(pixels, ending))
    return folder
