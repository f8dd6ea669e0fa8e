"""`python -m mimic_keras`: the same program as the `mimic-keras` command."""

from mimic_keras.interface.cli import entry

if __name__ == "__main__":
    entry()
