"""From YAML to typed objects, with every problem of a file at once; no TensorFlow, no plugin."""
