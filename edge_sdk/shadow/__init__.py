"""The device shadow: document algebra, topics, and the content of the ``models`` shadow.

Pure: nothing here opens a socket or a file or asks the clock.
"""
