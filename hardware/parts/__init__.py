"""The parts of a chip, a file each."""
