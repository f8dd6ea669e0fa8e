"""From a finished student to versions that TensorFlow Serving picks up: folded, written, verified, published."""
