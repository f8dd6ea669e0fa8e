"""From one file to many experiments that share teachers and logits, and to their tables and figures."""
