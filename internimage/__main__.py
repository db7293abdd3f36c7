"""`python -m internimage` is the command line."""

from internimage.cli import main

if __name__ == "__main__":
    main()
