"""Decode an utterance's sound from a NIST SPHERE or RIFF (WAV) file: int16 samples at 16 kHz, all or none."""

from __future__ import annotations

import io
import wave

import numpy as np

SAMPLE_RATE = 16_000
LARGEST_HEADER = 1 << 16
_BYTE_ORDERS = {"01": "<i2", "10": ">i2"}


def decode(data: bytes) -> np.ndarray:
    """The samples in a file's content, int16 [N].

    The first bytes tell the format, not the file name: TIMIT's .WAV files are SPHERE files.

    Raises:
        ValueError: the format is another, the content is damaged or truncated, or it is not single-channel 16-bit PCM
            at 16 kHz.

    Example:
        >>> decode(sphere_file(np.array([1, -2], np.int16))).tolist()
        [1, -2]
    """
    if data.startswith(b"NIST_1A\n"):
        return _decode_sphere(data)
    if data.startswith(b"RIFF"):
        return _decode_riff(data)
    raise ValueError("neither a NIST SPHERE nor a RIFF file" if data else "empty")


def sphere_file(samples: np.ndarray, byte_order: str = "01") -> bytes:
    """The content of a NIST SPHERE file of int16 samples [N]; byte order "01" is little-endian, "10" big-endian."""
    fields = {
        "channel_count": "-i 1",
        "sample_count": f"-i {len(samples)}",
        "sample_rate": f"-i {SAMPLE_RATE}",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": f"-s2 {byte_order}",
        "sample_sig_bits": "-i 16",
    }
    header = "NIST_1A\n   1024\n" + "".join(f"{name} {value}\n" for name, value in fields.items()) + "end_head\n"
    return header.encode().ljust(1024) + samples.astype(_BYTE_ORDERS[byte_order]).tobytes()


def _decode_sphere(data: bytes) -> np.ndarray:
    try:
        size = int(data[8:16])
    except ValueError:
        size = 0
    if not 16 < size <= LARGEST_HEADER:
        raise ValueError(f"SPHERE header: its length is {data[8:16]!r}, expected 17 to {LARGEST_HEADER}")
    head, found, _ = data[:size].decode("ascii", "replace").partition("\nend_head")
    if not found:
        raise ValueError("SPHERE header: it has no end_head")
    fields = {}
    for line in head.splitlines()[2:]:
        name, _, value = line.partition(" ")
        fields[name] = value.partition(" ")[2].strip()
    expected = {"channel_count": "1", "sample_rate": str(SAMPLE_RATE), "sample_n_bytes": "2"}
    for name, value in expected.items():
        if (found_value := fields.get(name, "missing")) != value:
            raise ValueError(f"SPHERE header: {name} is {found_value}, expected {value}")
    if (coding := fields.get("sample_coding", "pcm")) != "pcm":
        raise ValueError(f"SPHERE header: sample_coding is {coding}, expected pcm: unpack the file with sph2pipe")
    order, count = fields.get("sample_byte_format", ""), fields.get("sample_count", "")
    if order not in _BYTE_ORDERS:
        raise ValueError(f"SPHERE header: sample_byte_format is {order or 'missing'}, expected 01 or 10")
    if not (count.isascii() and count.isdigit()):
        raise ValueError(f"SPHERE header: sample_count is {count or 'missing'}, expected a number")
    return _samples(data[size:], int(count), _BYTE_ORDERS[order])


def _decode_riff(data: bytes) -> np.ndarray:
    try:
        with wave.open(io.BytesIO(data)) as file:
            found = {"channels": file.getnchannels(), "bytes": file.getsampwidth(), "rate": file.getframerate()}
            count, content = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError if a chunk is longer than the file
        raise ValueError(f"RIFF header: {str(error) or 'it ends too early'}") from error
    for name, expected in {"channels": 1, "bytes": 2, "rate": SAMPLE_RATE}.items():
        if found[name] != expected:
            unit = {"channels": "channels", "bytes": "bytes a sample", "rate": "samples a second"}[name]
            raise ValueError(f"RIFF header: {found[name]} {unit}, expected {expected}")
    return _samples(content, count, "<i2")


def _samples(content: bytes, count: int, kind: str) -> np.ndarray:
    if not count:
        raise ValueError("the header says that it has no samples")
    if len(content) < 2 * count:
        raise ValueError(f"cut off: {len(content) // 2:,} samples, the header says {count:,}")
    return np.frombuffer(content, kind, count).astype(np.int16)
