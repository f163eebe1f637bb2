"""`python -m logitflow` is the command `logitflow`."""

from logitflow.cli import main

raise SystemExit(main())
