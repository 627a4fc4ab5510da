"""Watches what comes in and what was predicted: drift, error, staleness, range, torn screens.

Ten-minute winds and the errors of a prediction are autocorrelated over hours. Stock detectors take
samples as independent and raise alarms without end on such data. Here every test works on means
over blocks of hours, and its threshold comes from the run length to false alarm that blocks of
days, drawn again from a healthy record, give. `cusum`, `runlength` and `tear` are pure; `watch`
joins them.
"""
