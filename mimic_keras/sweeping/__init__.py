"""`mimic-keras sweep`: a table or figure of experiments that share teachers and logits, from one file."""
