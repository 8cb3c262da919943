"""The command `td-export`: see td/commands/export.py."""

from td.commands.export import main

if __name__ == "__main__":
    main()
