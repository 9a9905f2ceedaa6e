"""``python -m gridx`` is ``gridx``."""

from gridx.commands import main

if __name__ == "__main__":
    main()
