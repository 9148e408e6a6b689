"""The gateway side: reconciles what a device should run with what it does."""
