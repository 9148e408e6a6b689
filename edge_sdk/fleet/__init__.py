"""The cloud side: shadow service, rollouts, presence, blobs for a one-machine start."""
