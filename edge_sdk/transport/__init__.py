"""Ways to the cloud behind small protocols: MQTT, HTTP, and in memory."""
