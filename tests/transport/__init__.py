"""MQTT links and clients, against a real broker and in memory."""
