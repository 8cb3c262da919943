"""The command `td-reproduce`: see td/commands/reproduce.py."""

from td.commands.reproduce import main

if __name__ == "__main__":
    main()
