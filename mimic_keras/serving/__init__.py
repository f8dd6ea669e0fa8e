"""From a finished student to a version that TensorFlow Serving picks up: folded, written, verified, published."""
