"""The command `td-finetune`: see td/commands/finetune.py."""

from td.commands.finetune import main

if __name__ == "__main__":
    main()
