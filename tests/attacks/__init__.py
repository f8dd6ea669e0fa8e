"""What was found by attacking the program, one file for each topic; names carry the faults' ids."""
