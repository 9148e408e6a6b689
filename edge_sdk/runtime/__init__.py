"""Running one variant: engines, sessions, memory plan, pre- and post-processing."""
