"""Files as TIMIT's tools write them, by writers that share nothing with the reader."""

import io
import struct
import wave

# As on the disc.
FIELDS = {
    "database_id": "-s5 TIMIT",
    "database_version": "-s3 1.0",
    "utterance_id": "-s8 cjf0_sx1",
    "channel_count": "-i 1",
    "sample_count": "-i {count}",
    "sample_rate": "-i 16000",
    "sample_min": "-i -2191",
    "sample_max": "-i 2790",
    "sample_n_bytes": "-i 2",
    "sample_byte_format": "-s2 01",
    "sample_sig_bits": "-i 16",
}


def sphere(samples, size=1024, big=False, **fields):
    """NIST SPHERE with a header of `size` bytes, in which `fields` come first (None: are missing)."""
    fields = fields | {name: value for name, value in FIELDS.items() if name not in fields}
    if big:
        fields["sample_byte_format"] = "-s2 10"
    lines = [f"{name} {value}" for name, value in fields.items() if value is not None]
    header = "\n".join(["NIST_1A", f"{size:7d}", *lines, "end_head", ""]).format(count=len(samples))
    return header.encode().ljust(size) + struct.pack(f"{'<>'[big]}{len(samples)}h", *samples)


def riff(samples, channels=1, width=2, rate=16_000):
    """RIFF; `samples` fill `channels` of `width` bytes in turn."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(b"".join(int(sample).to_bytes(width, "little", signed=True) for sample in samples))
    return content.getvalue()


def chunk(name, content):
    """A RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def riff_of(*chunks):
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def pcm(kind=1, channels=1, rate=16_000, width=2, more=b""):
    """A RIFF file's fmt chunk."""
    frame = channels * width
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, 8 * width) + more)
