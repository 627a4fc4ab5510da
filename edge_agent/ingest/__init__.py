"""From a sensor's message to a kept reading, and from kept readings to a prediction.

`checks` and `assemble` decide and are pure; `mqtt` and `service` do the I/O round them.
"""
