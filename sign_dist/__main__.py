"""`python -m sign_dist` is `sign-dist`."""

from sign_dist.cli import main

if __name__ == "__main__":
    main()
