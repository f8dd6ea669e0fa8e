"""The seven stages of a run, one file each, and the workspace they share; each takes what the stages before it made."""
