"""`python -m cb2_assist` is the same as `cb2-assist`."""

from cb2_assist.cli import main

if __name__ == "__main__":
    main()
