"""The command `td-translate`: see td/commands/translate.py."""

from td.commands.translate import main

if __name__ == "__main__":
    main()
