"""The command `td-gpu-evidence`: see td/commands/gpu_evidence.py."""

from td.commands.gpu_evidence import main

if __name__ == "__main__":
    main()
