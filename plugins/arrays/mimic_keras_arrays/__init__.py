"""Your own data as data sets. Each module is one data set, or what they have in common."""
