"""The command `td-sweep`: see td/commands/sweep.py."""

from td.commands.sweep import main

if __name__ == "__main__":
    main()
