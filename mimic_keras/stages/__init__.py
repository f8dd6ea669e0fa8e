"""The seven stages of a run, one file each; every one takes what those before it returned."""
