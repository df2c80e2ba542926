"""`python -m fsdeploy` is the `fsdeploy` command."""

from fsdeploy.cli import main

if __name__ == "__main__":
    main()
