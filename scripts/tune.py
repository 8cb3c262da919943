"""The command `td-tune`: see td/commands/tune.py."""

from td.commands.tune import main

if __name__ == "__main__":
    main()
