"""From a finished student to a SavedModel version for TensorFlow Serving: folded, written, verified, published."""
