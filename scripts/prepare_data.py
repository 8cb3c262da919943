"""The command `td-prepare-data`: see td/commands/prepare_data.py."""

from td.commands.prepare_data import main

if __name__ == "__main__":
    main()
