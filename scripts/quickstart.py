"""The command `td-quickstart`: see td/commands/quickstart.py."""

from td.commands.quickstart import main

if __name__ == "__main__":
    main()
