"""The command `td-train`: see td/commands/train.py."""

from td.commands.train import main

if __name__ == "__main__":
    main()
