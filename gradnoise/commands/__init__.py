"""The parts of the command line: what it reads, the targets, the commands that train."""
