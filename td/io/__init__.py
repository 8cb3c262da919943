"""Files and processes: run folders, checkpoints, logs, several hosts, command lines."""
